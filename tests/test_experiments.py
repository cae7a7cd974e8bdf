"""Full-size presets: each composes, passes every stage's checks, and says what it costs; nothing is trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pano3d import config
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.model import BackboneChoice
from pano3d.model_files import read_description
from pano3d.stages.geometry_init import GeometryInitConfig
from pano3d.stages.joint_finetune import JointFinetuneConfig
from pano3d.training.slices import require_equal_shares

ROOT = Path(__file__).parents[1]
PRESET = {"must3r": "must3r_512", "pi3": "pi3_large"}
STEPS = {"scannet": 30_000, "scannet200": 50_000, "scannetpp": 50_000}  # as reported for the paper


@pytest.mark.parametrize("backbone", PRESET)
@pytest.mark.parametrize("dataset", STEPS)
def test_full_size_presets(dataset: str, backbone: str) -> None:
    name = f"{dataset}_{backbone}"
    words = ["head=pano3d", f"experiment={name}", f"backbone={PRESET[backbone]}"]
    value = config.compose(ROOT / "params", words)
    joint = config.load(value["joint_finetune"], JointFinetuneConfig)
    assert joint.mode == "joint"
    assert joint.training.steps == STEPS[dataset]
    assert joint.training.optimizer.encoder == 0
    assert joint.geometry_weight == 10
    assert value["head"]["fusion"].get("gradient_gate", 0.1) == 0.1
    geometry = config.load(value["geometry_init"], GeometryInitConfig)
    assert (geometry.source, geometry.training) == ("official", None)
    loader = joint.training.loader
    assert loader.image_width == value["backbone"]["image_width"]
    for processes in (1, 2, 4, 8):
        require_equal_shares(loader.images_per_batch, loader.views, processes * joint.training.accumulate)
    require_equal_shares(loader.images_per_batch, loader.views, 8)  # accumulate: 8 on one GPU
    header = (ROOT / f"params/experiment/{name}.yaml").read_text().split("geometry_init:")[0]
    for word in ("Command:", "Needs:", "Cost:", f"backbones.{backbone}: {PRESET[backbone]}"):
        assert word in header


@pytest.mark.parametrize("backbone", PRESET)
@pytest.mark.parametrize(
    ("dataset", "own_experiment"), [("rooms", False), *((dataset, own) for dataset in STEPS for own in (False, True))]
)
def test_only_generated_rooms_are_dyed_flattened_and_patterned(
    dataset: str, own_experiment: bool, backbone: str
) -> None:
    experiment = [f"experiment={dataset}_{backbone}"] if own_experiment else []
    words = [f"dataset={dataset}", f"backbone={backbone}_tiny", *experiment]
    value = config.compose(ROOT / "params", words)
    stages = [value[stage]["training"] for stage in ("geometry_init", "joint_finetune")]
    changes = [training["loader"]["augmentation"] for training in stages if training]
    chances = (0.5, 0.2, 0.5) if dataset == "rooms" else (0.0, 0.0, 0.0)
    wanted = dict(zip(("recolor", "flatten", "pattern"), chances))
    assert [{name: one[name] for name in wanted} for one in changes] == [wanted] * len(changes)
    assert changes


@pytest.mark.parametrize("backbone", ["must3r", "pi3"])
def test_the_released_models_are_trained_coarse_first_and_split_once(backbone: str) -> None:
    patch = {}
    for experiment, preset in (("rooms_released_coarse", "tiny_coarse"), ("rooms_released", "tiny")):
        value = config.compose(ROOT / "params", [f"experiment={experiment}", f"backbone={backbone}_{preset}"])
        geometry = config.load(value["geometry_init"], GeometryInitConfig)
        joint = config.load(value["joint_finetune"], JointFinetuneConfig)
        network = value["backbone"]["network"]
        patch[experiment] = (network if backbone == "must3r" else network["encoder"])["patch_size"] / network[
            "rope_scale"
        ]
        assert (joint.mode, joint.panoptic_loss.class_mode) == ("joint", "softmax")
        start = None if experiment.endswith("coarse") else f"work/split/{backbone}"
        assert (geometry.weights, joint.released) == (start, start)
    # Half the patch and half the frequency: where a token stands means the same to both.
    assert patch["rooms_released"] == patch["rooms_released_coarse"]


@pytest.mark.parametrize("backbone", ["must3r", "pi3"])
def test_the_small_models_are_the_tiny_ones_grown(backbone: str) -> None:
    value = config.compose(ROOT / "params", ["experiment=rooms_small", f"backbone={backbone}_small"])
    joint = config.load(value["joint_finetune"], JointFinetuneConfig)
    assert (joint.mode, joint.released) == ("joint", f"work/grown/{backbone}")
    assert config.load(value["geometry_init"], GeometryInitConfig).weights == joint.released
    photos = value["dataset"]["generator"]
    loader = joint.training.loader
    assert (loader.image_width, loader.image_height) == (photos["width"], photos["height"])
    small: BackboneChoice = config.load(value["backbone"], BackboneChoice)
    tiny, released = (read_description(ROOT / f"weights/{backbone}_{size}_joint").config for size in ("tiny", "small"))
    assert released.backbone == small
    # The place of a token in the image means the same to both.
    shares = []
    for choice in (tiny.backbone, small):
        network = choice.network
        patch_size = network.patch_size if isinstance(network, Must3rConfig) else network.encoder.patch_size
        shares.append(network.rope_scale * choice.image_width / patch_size)
    assert shares[0] == pytest.approx(shares[1])


@pytest.mark.parametrize("path", sorted((ROOT / "params/experiment").glob("rooms_*.yaml")), ids=lambda path: path.stem)
def test_the_default_run_leaves_no_trace_in_a_recipe(path: Path) -> None:
    def names(value: dict[str, Any], prefix: str = "") -> set[str]:
        return {
            deep
            for key, inner in value.items()
            for deep in (names(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key})
        }

    recipe, default = (
        yaml.safe_load(one.read_text()) for one in (path, ROOT / "params/dataset_profile/rooms_default.yaml")
    )
    for section in ("dataset", "geometry_init", "joint_finetune"):
        if section == "dataset" or recipe[section]["training"] is not None:
            assert names(default[section]) <= names(recipe[section]), section


@pytest.mark.parametrize("path", sorted((ROOT / "params/experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_says_its_command_hardware_and_cost_first(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("# Command: ", "# Needs: "):
        assert any(line.startswith(word) for line in header), word
    assert any("Cost: " in line for line in header)
