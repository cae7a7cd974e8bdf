"""Cameras recovered from pointmaps: exact on exact maps, and never NaN."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pano3d.geometry.cameras import recover_cameras, recover_focals, register_views

HEIGHT, WIDTH = 12, 16


def camera_points(focal: float, num_views: int = 1) -> Tensor:
    """Pointmap of a wavy wall seen with a known focal, principal point (W/2, H/2) as the public code has it."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    depth = 2 + 0.5 * torch.sin(columns * 0.7) + 0.3 * torch.cos(rows * 0.9)
    x, y = (columns - WIDTH / 2) / focal, (rows - HEIGHT / 2) / focal
    return torch.stack((x * depth, y * depth, depth), dim=-1).expand(1, num_views, HEIGHT, WIDTH, 3).clone()


def turn(angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    motion = torch.eye(4)
    motion[:3] = torch.tensor([[cos, 0, sin, 1.0], [0, 1, 0, -2.0], [-sin, 0, cos, 0.5]])
    return motion


def move(motion: Tensor, points: Tensor) -> Tensor:
    return points @ motion[:3, :3].T + motion[:3, 3]


def test_exact_maps_give_exact_cameras() -> None:
    camera = camera_points(20.0, num_views=2)
    motions = [turn(0.3), turn(-1.2)]
    world = torch.stack([move(motion, camera[:, i]) for i, motion in enumerate(motions)], dim=1)
    cameras = recover_cameras(world, camera, torch.full(world.shape[:-1], 2.0))
    torch.testing.assert_close(cameras.world_from_camera[0], torch.stack(motions), rtol=0, atol=1e-5)
    # Pixel centres are integers: the middle of 16 columns is 7.5.
    expected = torch.tensor([[20.0, 0, (WIDTH - 1) / 2], [0, 20.0, (HEIGHT - 1) / 2], [0, 0, 1]])
    torch.testing.assert_close(cameras.intrinsics[0, 1], expected, rtol=0, atol=1e-3)
    assert cameras.focal_ok.all()
    assert cameras.pose_ok.all()


def test_focal_is_robust_to_a_quarter_of_wrong_pixels() -> None:
    camera = camera_points(20.0)
    camera[..., 4:7, :, :2] *= 2
    focal, ok = recover_focals(camera)
    assert ok.all()
    assert focal.item() == pytest.approx(20.0, rel=0.02)


def test_doubtful_points_do_not_move_the_camera() -> None:
    camera = camera_points(20.0)
    world = move(turn(0.4), camera)
    confidence = torch.full(world.shape[:-1], 3.0)
    world[..., :3, :, :] += 5
    confidence[..., :3, :] = 1.0
    world[..., 3, :, :] = float("nan")
    pose, ok = register_views(world, camera, confidence)
    assert ok.all()
    torch.testing.assert_close(pose[0, 0], turn(0.4), rtol=0, atol=1e-5)


def test_never_a_mirror_image() -> None:
    camera = camera_points(20.0)
    pose, _ = register_views(camera * torch.tensor([-1.0, 1, 1]), camera, torch.full(camera.shape[:-1], 2.0))
    assert torch.linalg.det(pose[0, 0, :3, :3]).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("spoilt", ["no confidence", "nan", "a line", "a point"])
def test_failures_are_reported_per_view_and_never_nan(spoilt: str) -> None:
    camera = camera_points(20.0, num_views=2)
    world = move(turn(0.3), camera)
    confidence = torch.full(world.shape[:-1], 2.0)
    if spoilt == "no confidence":
        confidence[:, 1] = 1.0
    elif spoilt == "nan":
        camera[:, 1] = float("nan")
    elif spoilt == "a line":
        camera[:, 1] = camera[:, 1, :, :, :1] * torch.tensor([1.0, 2.0, 0.5])
        world[:, 1] = camera[:, 1]
    else:
        camera[:, 1] = world[:, 1] = 0.0
    cameras = recover_cameras(world, camera, confidence)
    assert cameras.pose_ok.tolist() == [[True, False]]
    torch.testing.assert_close(cameras.world_from_camera[0, 1], torch.eye(4))
    assert cameras.intrinsics.isfinite().all()
    assert (cameras.intrinsics[..., 0, 0] > 0).all()
    if spoilt in ("nan", "a point"):
        assert cameras.focal_ok.tolist() == [[True, False]]
        assert cameras.intrinsics[0, 1, 0, 0].item() == pytest.approx(20.0, rel=1e-3)  # its neighbour's


def test_a_field_of_view_of_60_degrees_when_nothing_is_known() -> None:
    nothing = torch.zeros(1, 1, HEIGHT, WIDTH, 3)
    cameras = recover_cameras(nothing, nothing, torch.ones(1, 1, HEIGHT, WIDTH))
    assert cameras.intrinsics[0, 0, 0, 0].item() == pytest.approx(WIDTH / 2 / math.tan(math.pi / 6))
