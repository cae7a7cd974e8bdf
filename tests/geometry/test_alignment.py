from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pano3d.geometry.alignment import (
    align_similarity,
    apply_transform,
    estimate_normals,
    is_nearly_a_line,
    move_cameras,
    nearest_points,
    register_icp,
    scale_of,
)
from pano3d.types import DataError, DegenerateError


def similarity(seed: int, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    transform = np.eye(4)
    transform[:3, :3] = scale * Rotation.random(random_state=rng).as_matrix()
    transform[:3, 3] = rng.normal(size=3)
    return transform


@pytest.mark.parametrize("seed", range(5))
def test_recovers_any_similarity(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(20, 3))
    transform = similarity(seed, 0.3 + seed)
    found = align_similarity(points, apply_transform(transform, points))
    np.testing.assert_allclose(found, transform, atol=1e-10)
    assert scale_of(found) == pytest.approx(0.3 + seed)


def test_three_points_on_a_plane_are_enough_and_never_mirrored() -> None:
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]])
    found = align_similarity(triangle, triangle * [1, -1, 1])
    np.testing.assert_allclose(apply_transform(found, triangle), triangle * [1, -1, 1], atol=1e-12)
    assert np.linalg.det(found[:3, :3]) > 0
    cloud = np.random.default_rng(0).normal(size=(50, 3))
    assert np.linalg.det(align_similarity(cloud, cloud * [1, 1, -1])[:3, :3]) > 0


def test_least_squares_by_perturbation() -> None:
    rng = np.random.default_rng(3)
    source = rng.normal(size=(30, 3))
    target = apply_transform(similarity(1, 2.0), source) + rng.normal(0, 0.1, (30, 3))
    best = align_similarity(source, target)

    def cost(transform: np.ndarray) -> float:
        return float(((apply_transform(transform, source) - target) ** 2).sum())

    for seed in range(20):
        nudge = similarity(seed, 1.0)
        nudge[:3, :3] = Rotation.random(random_state=seed).as_matrix() * 0 + Rotation.from_rotvec(
            np.random.default_rng(seed).normal(0, 1e-3, 3)
        ).as_matrix() * (1 + 1e-3 * (-1) ** seed)
        nudge[:3, 3] *= 1e-3
        assert cost(nudge @ best) >= cost(best)


def test_rigid_alignment_keeps_lengths() -> None:
    points = np.random.default_rng(0).normal(size=(10, 3))
    found = align_similarity(points, 3 * points, with_scale=False)
    assert scale_of(found) == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_points_on_a_line_have_no_unique_rotation(count: int) -> None:
    line = np.arange(count)[:, None] * np.array([[1.0, 2.0, 3.0]])
    with pytest.raises(DegenerateError, match=r"line|three or more"):
        align_similarity(line, line)
    np.testing.assert_allclose(
        apply_transform(align_similarity(line, line, allow_degenerate=True), line), line, atol=1e-9
    )


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_a_line_in_space_is_one_in_spite_of_rounding(precision: type[np.floating]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(500):
        along = generator.normal(size=(8, 1)) * generator.uniform(1, 10)
        line = (along * generator.normal(size=3) + generator.normal(size=3)).astype(precision)
        with pytest.raises(DegenerateError):
            align_similarity(line, line)
        assert is_nearly_a_line(line)


def test_a_walk_with_a_wobble_is_nearly_a_line() -> None:
    walk = np.linspace(0, 1.5, 8)[:, None] * np.array([[1.0, 0.0, 0.0]])
    wobble = np.random.default_rng(0).normal(scale=0.01, size=(8, 3))
    assert is_nearly_a_line(walk + wobble)
    assert is_nearly_a_line(np.eye(3)[:2])
    assert not is_nearly_a_line(walk + 20 * wobble)


def test_bad_input() -> None:
    with pytest.raises(DataError, match=r"\(P, 3\)"):
        align_similarity(np.zeros((3, 3)), np.zeros((4, 3)))
    with pytest.raises(DataError, match="finite"):
        align_similarity(np.full((3, 3), np.nan), np.zeros((3, 3)))
    with pytest.raises(DegenerateError):
        align_similarity(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(DataError, match="registering"):
        register_icp(np.zeros((0, 3)), np.zeros((3, 3)), 0.1)


def test_icp_pulls_a_displaced_cloud_back() -> None:
    rng = np.random.default_rng(0)
    surface = rng.uniform(-1, 1, (4000, 3))
    surface[:2000, 2], surface[2000:, 0] = 0, 0  # two crossing planes
    offset = similarity(0, 1.0)
    offset[:3, :3] = Rotation.from_rotvec([0.01, -0.02, 0.015]).as_matrix()
    offset[:3, 3] = [0.02, 0.0, -0.01]
    found = register_icp(apply_transform(offset, surface), surface, 0.1)
    assert found.fitness == 1
    assert found.inlier_rmse < 0.01
    far = register_icp(surface + 100, surface, 0.1)
    assert far.fitness == 0
    np.testing.assert_array_equal(far.target_from_source, np.eye(4))


def test_nearest_respects_the_limit_and_empty_targets() -> None:
    distance, index = nearest_points(np.array([[0.0, 0, 0], [9, 0, 0]]), np.array([[0.0, 0, 0.5]]), 1.0)
    assert index.tolist() == [0, -1]
    assert distance[0] == 0.5
    assert nearest_points(np.zeros((2, 3)), np.zeros((0, 3)))[1].tolist() == [-1, -1]


def test_normals_of_a_plane() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (300, 3)) * [1, 1, 0]
    np.testing.assert_allclose(np.abs(estimate_normals(points)), np.tile([0, 0, 1.0], (300, 1)), atol=1e-9)
    with pytest.raises(DegenerateError):
        estimate_normals(points[:2])


def test_moved_cameras_stay_rotations() -> None:
    transform = similarity(2, 3.0)
    cameras = np.stack([similarity(seed, 1.0) for seed in range(3)])
    moved = move_cameras(transform, cameras)
    np.testing.assert_allclose(
        moved[:, :3, :3] @ moved[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (3, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(moved[:, :3, 3], apply_transform(transform, cameras[:, :3, 3]))
