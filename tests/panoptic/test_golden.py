"""The panoptic half against values recorded from the public implementations, through the door."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.doors import panoptic as door

GOLDEN = Path(__file__).parent.parent / "golden" / "panoptic"
CASES = json.loads((GOLDEN / "manifest.json").read_text())["cases"]
EXACT = ("_query", "_target", "segmentation", "labels", "class_allowed", "masks", "_alpha")


def recorded(name: str) -> dict[str, np.ndarray]:
    path = GOLDEN / f"{name}.safetensors"
    if path.exists():
        return load_file(path)
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def point_sets(rows: np.ndarray) -> np.ndarray:
    """Points of each row in one canonical order: their order inside a row is free."""
    return np.stack([row[np.lexsort(row.T)] for row in rows])


def compare(name: str, found: dict, expected: dict[str, np.ndarray], keys: list[str]) -> None:
    assert keys
    for key in keys:
        got, want = found[key], expected[key]
        if key.endswith(("loss_points", "selected")):
            np.testing.assert_allclose(point_sets(got), point_sets(want), atol=1e-6, err_msg=key)
        elif key.endswith("sampled_logits"):
            np.testing.assert_allclose(np.sort(got), np.sort(want), rtol=1e-4, atol=1e-5, err_msg=key)
        elif any(part in key for part in EXACT):
            np.testing.assert_array_equal(got, want, err_msg=key)
        else:
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5, err_msg=key)


OUTPUTS = {
    "elementary_losses": r"bce|dice|pairwise_bce|pairwise_dice|focal",
    "point_sampling": r".*_(selected|sampled_logits)",
    "matcher_single_view": r"cost_.*|w.*",
    "matcher_multi_view": r"cost_.*|w.*",
    "criterion_single_view": r".*_(query|target)_\d|.*_loss_.*|.*_weighted_total|total",
    "criterion_multi_view_sigmoid": r".*_(query|target)_\d|.*_loss_.*|.*_weighted_total|total",
    "criterion_multi_view_softmax": r".*_(query|target)_\d|.*_loss_.*|.*_weighted_total|total",
    "targets_multi_view": r"masks|labels|class_allowed",
    "merge_mask2former": r".*_segmentation",
    "merge_panst3r": r".*_(segmentation|confidence)",
    "merge_qubo": r".*_(W|alpha|energy|winning_query|segmentation|confidence)",
    "mask_decoder_one_level": r"out\..*",
    "mask_decoder_two_levels": r"out\..*",
    "pixel_shuffle_upscaler": r"out\..*",
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_recorded_case(name: str) -> None:
    arrays = recorded(name)
    found = door.compute(name, arrays, CASES[name])
    compare(name, found, arrays, [key for key in arrays if re.fullmatch(OUTPUTS[name], key) and "second" not in key])


@pytest.mark.parametrize("name", ["merge_mask2former", "merge_panst3r"])
def test_recorded_segments(name: str) -> None:
    found = door.compute(name, recorded(name), CASES[name])
    for case in CASES[name]["cases"]:
        assert found[f"case{case['case']}_segments"] == case["segments"]


def test_recorded_panoptic_quality() -> None:
    found = door.compute("panoptic_quality", recorded("panoptic_quality"), CASES["panoptic_quality"])
    for case in CASES["panoptic_quality"]["cases"]:
        for key in ("scene_plain", "scene_robust", "mean_of_images_plain"):
            np.testing.assert_allclose(found[f"case{case['case']}_{key}"], case[key], rtol=0, atol=1e-6, err_msg=key)


def test_recorded_instance_ap() -> None:
    found = door.compute("instance_ap", recorded("instance_ap"), CASES["instance_ap"])
    for protocol, expected in CASES["instance_ap"]["results"].items():
        for key in ("ap", "ap50", "ap25"):
            assert found[protocol][key] == pytest.approx(expected[key], abs=1e-6)
        for name, row in expected["per_class"].items():
            wanted = [np.nan if value is None else value for value in row]
            np.testing.assert_allclose(found[protocol]["per_class"][name], wanted, rtol=0, atol=1e-6, err_msg=name)
