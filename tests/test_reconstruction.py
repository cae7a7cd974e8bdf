"""Known cameras: a scene is carried onto them, also along a straight walk, and what is no camera is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pano3d.geometry.alignment import move_cameras
from pano3d.reconstruction import align_to_cameras
from pano3d.types import DataError, DegenerateError
from tests.known_scene import known_scene


def walk(wobble: float, views: int = 4) -> NDArray[np.float64]:
    """(V 4 4) cameras along 1.5 m that turn a little and sway by `wobble` metres."""
    generator = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (views, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("y", np.linspace(-30, 30, views)[:, None], degrees=True).as_matrix()
    poses[:, 0, 3] = np.linspace(0, 1.5, views)
    poses[:, :3, 3] += generator.normal(scale=wobble, size=(views, 3))
    return poses


def test_a_straight_walk_is_not_rolled_about_itself() -> None:
    truth = np.eye(4)
    truth[:3, :3] = 2.0 * Rotation.from_euler("xyz", (40, -20, 70), degrees=True).as_matrix()
    truth[:3, 3] = (1.0, 2.0, 3.0)
    scene = replace(known_scene(views=4), world_from_camera=walk(wobble=0.003))
    known = move_cameras(truth, walk(wobble=0.0))
    found, residual = align_to_cameras(scene, known)
    turned = Rotation.from_matrix(found[:3, :3] @ truth[:3, :3].T / np.cbrt(np.linalg.det(found[:3, :3]) * 8))
    assert np.degrees(turned.magnitude()) < 1
    assert residual < 0.02


def test_known_cameras_that_are_none_are_refused() -> None:
    scene = known_scene()
    poses = scene.world_from_camera
    with pytest.raises(DataError, match=r"known poses: expected .* got shape"):
        align_to_cameras(scene, poses[:, :3])
    with pytest.raises(DataError, match=r"known poses: .* not finite"):
        align_to_cameras(scene, poses * np.nan)
    with pytest.raises(DegenerateError):
        align_to_cameras(scene, np.tile(np.eye(4), (len(poses), 1, 1)))
