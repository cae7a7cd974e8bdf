"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trimesh

import pano3d
from pano3d import cli
from tests.small_model import write_photos, write_small_model

ROOT = Path(__file__).parents[1]


def example(name: str, *words: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, words)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_reconstruct_photos(tmp_path: Path) -> None:
    photos, model = write_photos(tmp_path / "photos"), write_small_model(tmp_path / "model")
    printed = example("reconstruct_photos.py", photos, tmp_path / "out", model)
    assert "3 views of 48x32" in printed
    scene = pano3d.PanopticScene.load(tmp_path / "out" / "scene.safetensors")
    cloud = trimesh.load(tmp_path / "out" / "scene.ply")
    assert 0.45 < len(cloud.vertices) / scene.depth.size < 0.55


def test_find_object(tmp_path: Path) -> None:
    photos, model, out = write_photos(tmp_path / "photos"), write_small_model(tmp_path / "model"), tmp_path / "out"
    words = ["reconstruct", photos, "-o", out, "--model", model, "--merging", "two_pass", "--score", "0"]
    assert cli.main([str(word) for word in words]) == 0
    found = pano3d.PanopticScene.load(out / "scene.safetensors").segments
    name = found[0].class_name
    lines = example("find_object.py", out, name).splitlines()
    assert len(lines) == sum(segment.class_name == name for segment in found)
    assert f"{name} {found[0].id}: best seen in photo_" in lines[0]
    assert "no dragon; found were: " in example("find_object.py", out, "dragon")


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text()
    assert [path.name for path in (ROOT / "examples").glob("*.py") if f'"{path.name}"' not in text] == []
