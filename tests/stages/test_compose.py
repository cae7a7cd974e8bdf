"""params/ as shipped: every option of every group loads, and a wrong one is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pano3d import config
from pano3d.stages import compose
from pano3d.types import ConfigError

PARAMS = Path(__file__).parents[2] / "params"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PARAMS, tmp_path / "params"))


def choose(params: Path, **changes: object) -> Path:
    selection = yaml.safe_load((params / "run.yaml").read_text())
    (params / "run.yaml").write_text(yaml.safe_dump({**selection, **changes}))
    return params


def composed(params: Path, **changes: object) -> dict[str, dict[str, object]]:
    output = params.parent / "out"
    compose.run(choose(params, **changes), output)
    return {path.parent.name: config.read(path) for path in sorted(output.glob("*/params.yaml"))}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (PARAMS / group).glob("*.yaml"))


def test_one_file_per_backbone_with_every_section(params: Path) -> None:
    files = composed(params)
    assert sorted(files) == ["must3r", "pi3"]
    for value in files.values():
        assert list(value) == ["reproduction", "seed", *compose.SECTIONS]
    assert files["must3r"]["reproduction"] == files["pi3"]["reproduction"]
    assert files["must3r"]["backbone"] != files["pi3"]["backbone"]


@pytest.mark.parametrize("group", ["dataset", "head", "profile", "experiment", "ablation"])
def test_every_option_of_a_group_composes(params: Path, group: str) -> None:
    base = composed(params)
    for option in options(group):
        # Classes from text need a file, and a loss that treats each class by itself.
        text = ["head.text_classes=names.safetensors", "joint_finetune.panoptic_loss.class_mode=sigmoid"]
        changed = composed(params, overrides=text if option == "panst3r" else [], **{group: option})
        if group in ("ablation", "experiment"):
            assert changed != base, f"params/{group}/{option}.yaml changes nothing"


def test_every_preset_composes(params: Path) -> None:
    for preset in options("backbone"):
        name = preset.split("_")[0]
        assert composed(params, backbones={name: preset})[name]["backbone"]


def test_the_profile_names_the_presets_that_the_selection_leaves_open(params: Path) -> None:
    def heights(**changes: object) -> dict[str, object]:
        return {name: value["backbone"]["image_height"] for name, value in composed(params, **changes).items()}  # type: ignore[index]

    assert heights() == {"must3r": 168, "pi3": 168}
    assert heights(profile="smoke") == {"must3r": 96, "pi3": 98}
    assert heights(profile="smoke", backbones={"must3r": "must3r_small", "pi3": None}) == {"must3r": 168, "pi3": 98}
    (params / "profile/bare.yaml").write_text("# @package _global_\n{}\n")
    with pytest.raises(ConfigError, match=r"neither run\.yaml nor profile bare names a preset for must3r, pi3"):
        composed(params, profile="bare", backbones={"must3r": None, "pi3": None})


def test_the_default_run_on_rooms_photographs_what_its_models_see(params: Path) -> None:
    for value in composed(params).values():
        size = (value["backbone"]["image_width"], value["backbone"]["image_height"])  # type: ignore[index]
        photos = value["dataset"]["generator"]  # type: ignore[index]
        assert size == (photos["width"], photos["height"])


def test_free_overrides_reach_both_backbones_and_the_name_of_the_reproduction(params: Path) -> None:
    base, changed = composed(params), composed(params, overrides=["seed=5"])
    assert {value["seed"] for value in changed.values()} == {5}
    assert changed["pi3"]["reproduction"] != base["pi3"]["reproduction"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "atlantis"}, "atlantis"),
        ({"profle": "smoke"}, "profle: unknown key; did you mean 'profile'"),
        ({"overrides": ["seeed=5"]}, "seeed"),
        ({"overrides": ["seed=fast"]}, "seed: expected a whole number from 0 on, found 'fast'"),
        ({"overrides": ["seed=-1"]}, "seed: expected a whole number from 0 on, found -1"),
        ({"overrides": ["evaluate.split=train2"]}, "split"),
        ({"overrides": ["geometry_init.training.loader.images_per_batch=0"]}, "loader.images_per_batch = 0"),
        ({"backbones": {"must3r": "pi3_tiny", "pi3": None}}, "that preset is a pi3; expected a must3r"),
        ({"overrides": ["+surplus=5"]}, "nothing reads surplus"),
        ({"overrides": ["=="]}, "composing"),
        ({"overrides": ["experiment=null"]}, "composing"),
        ({"backbones": {"must3r": "must3r_huge"}}, "must3r_huge"),
    ],
)
def test_a_wrong_choice_is_refused_by_name(params: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        composed(params, **changes)
    assert said in str(refusal.value)
