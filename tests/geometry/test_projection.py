"""Pinhole projection, by hand and by identity."""

import torch

from pano3d.geometry.projection import invert_rigid, transform_points, unproject_depth


def test_unproject_by_hand():
    # focal 10, centre (1, 0): pixel (x=3, y=0) at depth 5 lies at x = (3 - 1) / 10 * 5 = 1.
    intrinsics = torch.tensor([[10.0, 0, 1], [0, 20, 0], [0, 0, 1]])
    points = unproject_depth(torch.full((2, 4), 5.0), intrinsics)
    torch.testing.assert_close(points[0, 3], torch.tensor([1.0, 0.0, 5.0]))
    # y = (1 - 0) / 20 * 5 = 0.25
    torch.testing.assert_close(points[1, 1], torch.tensor([0.0, 0.25, 5.0]))


def test_skew_moves_x_with_y():
    intrinsics = torch.tensor([[10.0, 2.0, 0], [0, 10, 0], [0, 0, 1]])
    point = unproject_depth(torch.ones(3, 3), intrinsics)[2, 1]
    torch.testing.assert_close((intrinsics @ point)[:2] / point[2], torch.tensor([1.0, 2.0]))


def test_inverse_undoes_a_rigid_transform():
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(5, 3, 3, generator=generator, dtype=torch.float64))[0]
    transform = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    transform[:, :3, :3], transform[:, :3, 3] = rotation, torch.randn(5, 3, generator=generator, dtype=torch.float64)
    points = torch.randn(5, 2, 3, 3, generator=generator, dtype=torch.float64)
    back = transform_points(invert_rigid(transform), transform_points(transform, points))
    torch.testing.assert_close(back, points)


def test_translation_by_hand():
    transform = torch.eye(4)
    transform[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    moved = transform_points(transform, torch.zeros(1, 1, 3))
    torch.testing.assert_close(moved[0, 0], torch.tensor([1.0, 2.0, 3.0]))
