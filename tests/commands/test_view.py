"""What `pano3d view` serves, and to whom."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from pano3d import cli
from pano3d.commands.result_folder import read_result
from pano3d.commands.view import LOOPBACK, open_viewer
from pano3d.types import DataError
from tests.known_scene import known_scene
from tests.small_model import write_photos, write_small_model


def test_a_result_is_served_on_loopback_only(tmp_path: Path) -> None:
    photos, model, out = write_photos(tmp_path / "photos"), write_small_model(tmp_path / "model"), tmp_path / "out"
    assert cli.main(["reconstruct", str(photos), "-o", str(out), "--model", str(model)]) == 0
    viewer = open_viewer(out, LOOPBACK, 0, 1000)
    try:
        assert viewer.drawn == 1000
        port = int(viewer.url.rsplit(":", 1)[1])
        listening = [one.laddr for one in psutil.Process().net_connections("inet") if one.status == psutil.CONN_LISTEN]
        assert [address.ip for address in listening if address.port == port] == ["127.0.0.1"]
    finally:
        viewer.stop()


def test_a_folder_without_a_result_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["view", str(tmp_path)]) == 1
    assert "expected a folder of `pano3d reconstruct`" in capsys.readouterr().err
    with pytest.raises(DataError):
        open_viewer(tmp_path, LOOPBACK, 0, 10)


@pytest.mark.parametrize("points", ["0", "-5"])
def test_no_points_are_refused(points: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["view", str(tmp_path), "--points", points]) == 1
    assert f"--points {points}: expected 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["format_version", "input", "model", "options"])
def test_a_description_without_what_is_shown_is_damaged(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known_scene().save(tmp_path / "scene.safetensors")
    whole = {
        "format_version": 1,
        "input": {"title": "room", "views": ["a", "b", "c"]},
        "model": {"label_space": "scannet20"},
        "options": {"drop_least_sure": 0.1},
    }
    (tmp_path / "reconstruction.json").write_text(json.dumps(whole))
    assert read_result(tmp_path).title == "room"
    del whole[part]
    (tmp_path / "reconstruction.json").write_text(json.dumps(whole))
    assert cli.main(["view", str(tmp_path)]) == 1
    assert f"damaged (KeyError('{part}')); reconstruct again" in capsys.readouterr().err
