"""A scene survives the disk, and a damaged file is told apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import pano3d
from pano3d.types import DataError, PanopticScene, Segment
from tests.known_scene import known_scene


def test_save_and_load_give_the_same_scene(tmp_path: Path) -> None:
    scene = known_scene()
    scene.save(tmp_path / "deep" / "scene.safetensors")
    loaded = pano3d.PanopticScene.load(tmp_path / "deep" / "scene.safetensors")
    for field in dataclasses.fields(scene):
        mine, theirs = getattr(scene, field.name), getattr(loaded, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        else:
            assert mine == theirs
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["scene.safetensors"]


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.safetensors"
    scene = known_scene()
    scene.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"not a file of PanopticScene\.save"):
        PanopticScene.load(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(DataError, match="format None"):
        PanopticScene.load(path)
    with pytest.raises(DataError, match="not a file of"):
        PanopticScene.load(tmp_path / "missing")
    dataclasses.replace(scene, depth=scene.depth[:, :-1]).save(path)
    with pytest.raises(DataError, match="depth is float32"):
        PanopticScene.load(path)
    dataclasses.replace(scene, segments=scene.segments[:1]).save(path)
    with pytest.raises(DataError, match="not listed"):
        PanopticScene.load(path)


def test_a_notebook_shows_segments_and_no_foreign_markup() -> None:
    scene = known_scene()
    nasty = Segment(1, 0, "<script>", False, 0.5)
    html = dataclasses.replace(scene, segments=[nasty, *scene.segments[1:]])._repr_html_()
    assert "3 views of 32x24, 3 segments" in html
    assert "<script>" not in html
    assert "data:image/png;base64," in html
    assert html.index("chair") < html.index("floor")  # largest first
