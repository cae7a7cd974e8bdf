"""The benchmark of relative rotations: truth is 0 degrees off, a turned camera as much as it was turned."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.pair_rotations import rotation_errors, table
from pano3d.data.archive import write_scene
from pano3d.data.frames import FrameCache

from .data.scenes import make_scene


class Turned:
    """Gives the true cameras of the pairs in order, the second of each turned by an angle about its own axis."""

    def __init__(self, cameras: list[Any], degrees: float) -> None:
        self._pairs = iter([(a, b) for i, a in enumerate(cameras) for b in cameras[i + 1 :]])
        angle = np.deg2rad(degrees)
        self._turn = np.eye(4)
        self._turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]

    def reconstruct(self, images: Any) -> Any:
        first, second = next(self._pairs)
        return SimpleNamespace(world_from_camera=np.stack([first, second @ self._turn]))


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_every_pair_is_as_far_off_as_its_camera_was_turned(tmp_path: Path, degrees: float) -> None:
    write_scene(tmp_path / "scene.zip", make_scene("scene", views=3, height=32, width=48))
    frames = FrameCache([tmp_path / "scene.zip"], 48, 32, 2**20)
    scene = frames.scene(0)
    cameras = [frame.scan_from_camera for frame in scene.frames]
    found = rotation_errors(Turned(cameras, degrees), frames, 0)  # type: ignore[arg-type]
    shares = [float(min(scene.overlap[i, j], scene.overlap[j, i])) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert [share for share, _ in found] == pytest.approx(shares)
    assert [error for _, error in found] == pytest.approx([degrees] * 3, abs=1e-3)


def test_table_by_hand() -> None:
    # Shares 0.1 | 0.3 and 0.4 | 1.0; medians 90, (10 + 30) / 2, 4; none, half and all below 15 degrees.
    lines = table(np.array([[0.1, 90.0], [0.3, 10.0], [0.4, 30.0], [1.0, 4.0]]))
    assert [line.split() for line in lines[1:]] == [
        ["from", "0%", "1", "90.0°", "0%"],
        ["from", "30%", "2", "20.0°", "50%"],
        ["from", "70%", "1", "4.0°", "100%"],
    ]
