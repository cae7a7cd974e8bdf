"""params/ -> one effective file per backbone, which all later stages read key by key.

DVC composes Hydra groups only under `dvc exp run`; this stage does it for `dvc repro` too, and checks every section
against the dataclass it will fill, so that a mistyped value stops here and not minutes into training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pano3d import config
from pano3d.types import ConfigError

SECTIONS = (
    "backbone",
    "head",
    "dataset",
    "prepare",
    "check_data",
    "geometry_init",
    "joint_finetune",
    "geometry_control",
    "evaluate",
    "compare_confidence",
    "report",
)


@dataclass(frozen=True)
class Selection:
    """params/run.yaml: which option of each group, which preset for each backbone, and free overrides.

    backbones: None takes the preset that the profile names.
    """

    dataset: str
    head: str
    profile: str
    experiment: str | None
    ablation: str | None
    backbones: dict[str, str | None]
    overrides: tuple[str, ...]

    def words(self, preset: str) -> list[str]:
        """The selection with one preset in Hydra's grammar, free overrides last."""
        groups = {name: getattr(self, name) for name in ("dataset", "head", "profile", "experiment", "ablation")}
        chosen = [f"{name}={option}" for name, option in groups.items() if option is not None]
        return [*chosen, f"backbone={preset}", *self.overrides]


def run(params: Path, output: Path) -> None:
    """Compose and check.

    Args:
        params: folder with run.yaml, config.yaml and the groups.
        output: written as <output>/<backbone>/params.yaml.

    Raises:
        ConfigError: names the file, the key and what is accepted.
    """
    selection = config.load(params / "run.yaml", Selection)
    composed = {}
    for backbone, preset in chosen_presets(params, selection).items():
        value = config.compose(params, selection.words(preset))
        composed[backbone] = {"seed": value["seed"], **{section: value.get(section, {}) for section in SECTIONS}}
        unread = value.keys() - composed[backbone].keys() - {"backbones"}
        if unread:
            raise ConfigError(f"{params}: nothing reads {', '.join(sorted(unread))}; put it under one of {SECTIONS}")
        where = f"{params} for backbone {backbone} ({preset})"
        check(composed[backbone], where)
        if composed[backbone]["backbone"]["name"] != backbone:
            raise ConfigError(
                f"{where}: that preset is a {composed[backbone]['backbone']['name']}; expected a {backbone}"
            )
    # Names the reproduction: the same for both backbones, so that all their runs find one parent.
    name = config.digest(composed)
    for backbone, value in composed.items():
        config.write(output / backbone / "params.yaml", {"reproduction": name, **value})


def chosen_presets(params: Path, selection: Selection) -> dict[str, str]:
    """The preset of each backbone: the selection's, or its profile's.

    Raises:
        ConfigError: neither names one.
    """
    of_profile = config.compose(params, [f"profile={selection.profile}"]).get("backbones", {})
    chosen = {backbone: preset or of_profile.get(backbone) for backbone, preset in selection.backbones.items()}
    nameless = [backbone for backbone, preset in chosen.items() if preset is None]
    if nameless:
        raise ConfigError(
            f"{params}: neither run.yaml nor profile {selection.profile} names a preset for {', '.join(nameless)}"
        )
    return chosen


def check(composed: dict[str, Any], where: str) -> None:
    """Fill every section's dataclass once, for the sake of its checks."""
    seed = composed["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"{where}: seed: expected a whole number from 0 on, found {seed!r}")
    for section, schema in schemas().items():
        try:
            config.load(composed[section], schema)
        except ConfigError as error:
            raise ConfigError(f"{where}: {section}: {error}") from error


def schemas() -> dict[str, Any]:
    """The dataclass behind each section. Imported here, so that reading this module does not import the rooms."""
    from pano3d.data.contracts import CheckDataConfig
    from pano3d.data.datasets import Dataset
    from pano3d.evaluation import EvaluationConfig
    from pano3d.model import BackboneChoice, HeadConfig
    from pano3d.stages.compare_confidence import CompareConfidenceConfig
    from pano3d.stages.geometry_control import GeometryControlConfig
    from pano3d.stages.geometry_init import GeometryInitConfig
    from pano3d.stages.joint_finetune import JointFinetuneConfig
    from pano3d.stages.prepare import PrepareConfig
    from pano3d.stages.report import ReportConfig

    return {
        "backbone": BackboneChoice,
        "head": HeadConfig,
        "dataset": Dataset,
        "prepare": PrepareConfig,
        "check_data": CheckDataConfig,
        "geometry_init": GeometryInitConfig,
        "joint_finetune": JointFinetuneConfig,
        "geometry_control": GeometryControlConfig,
        "evaluate": EvaluationConfig,
        "compare_confidence": CompareConfidenceConfig,
        "report": ReportConfig,
    }
