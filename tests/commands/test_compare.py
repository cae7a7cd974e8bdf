"""Two results side by side: equal ones agree in everything, a changed one differs where it was changed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pano3d import cli
from pano3d.commands.compare import Side, compare_scenes, same_views
from pano3d.reconstruction import move_scene
from pano3d.types import DataError
from tests.known_scene import known_scene
from tests.small_model import PI3, write_photos, write_small_model


def test_numbers_by_hand() -> None:
    scene = known_scene()
    same = compare_scenes(scene, scene)
    assert (same["same_class"], same["same_segment"], same["depth_difference"]) == (1, 1, 0)
    assert same["rotation_difference_deg"] == pytest.approx(0, abs=1e-4)
    assert (same["objects_first"], same["objects_second"]) == (3, 3)
    # Another frame and twice the scale change nothing; other ids neither.
    moved = move_scene(scene, np.diag([2.0, 2.0, 2.0, 1.0]))
    renamed = dataclasses.replace(moved, segment_id=np.where(moved.segment_id > 0, moved.segment_id + 4, 0))
    assert compare_scenes(scene, renamed)["same_segment"] == 1
    assert compare_scenes(scene, renamed)["depth_difference"] == pytest.approx(0, abs=1e-6)
    # The chair gone: its pixels are labelled by one of the two only, the rest agrees.
    without = dataclasses.replace(scene, segment_id=np.where(scene.segment_id == 3, 0, scene.segment_id))
    numbers = compare_scenes(scene, without)
    assert numbers["labelled_both"] == pytest.approx(((scene.segment_id > 0) & (scene.segment_id != 3)).mean())
    assert numbers["same_class"] == 1
    # Every chair pixel called floor: the same pixels disagree in class.
    wrong = dataclasses.replace(scene, class_id=np.where(scene.class_id == 2, 1, scene.class_id))
    both = scene.segment_id > 0
    assert compare_scenes(scene, wrong)["same_class"] == pytest.approx((scene.class_id != 2)[both].mean())


def test_views_are_paired_by_name_and_brought_to_one_size() -> None:
    first = Side("a", known_scene(3), ("x", "y", "z"), "scannet20")
    second = Side("b", known_scene(2, 48, 64), ("z", "x"), "scannet20")
    mine, theirs = same_views(first, second)
    assert mine.names == theirs.names == ("x", "z")
    assert theirs.scene.depth.shape == mine.scene.depth.shape == (2, 24, 32)
    np.testing.assert_array_equal(theirs.scene.world_from_camera, second.scene.world_from_camera[[1, 0]])
    with pytest.raises(DataError, match="no view of a"):
        same_views(first, dataclasses.replace(second, names=("p", "q")))


def test_models_and_results_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, model = write_photos(tmp_path / "photos"), write_small_model(tmp_path / "must3r")
    other, out = write_small_model(tmp_path / "pi3", PI3), tmp_path / "out"
    assert cli.main(["reconstruct", str(photos), "-o", str(tmp_path / "result"), "--model", str(model)]) == 0
    words = ["compare", tmp_path / "result", other, "--input", photos, "-o", out]
    assert cli.main([str(word) for word in words]) == 0
    content = json.loads((out / "compare.json").read_text())
    assert content["views"] == ["photo_1", "photo_2", "photo_3"]
    assert content["numbers"]["rotation_difference_deg"] >= 0
    sheet = cv2.imread(str(out / "compare.png"))
    assert sheet.shape[1] == 7 * 204 - 4  # seven columns of 200 pixels
    capsys.readouterr()
    assert cli.main(["compare", str(model), str(other), "-o", str(out)]) == 1
    assert "needs --input" in capsys.readouterr().err
    for views in ("0", "-1"):
        assert cli.main([*map(str, words), "--views", views]) == 1
        assert f"--views {views}: expected 1 or more" in capsys.readouterr().err
