"""Depth, point maps and cameras: numbers by hand, invariances and edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pano3d.metrics.cameras import (
    area_under_curve,
    error_histogram,
    pair_errors,
    pose_auc,
    share_below,
    trajectory_score,
)
from pano3d.metrics.depth import depth_score
from pano3d.metrics.pointmaps import f_scores, median_norm_scale, point_score
from pano3d.types import DataError


def trajectory(seed: int, count: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, rng).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(count, 3))
    return poses


def moved(poses: np.ndarray, scale: float) -> np.ndarray:
    turn = Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_matrix()
    out = poses.copy()
    out[:, :3, :3] = turn @ poses[:, :3, :3]
    out[:, :3, 3] = scale * poses[:, :3, 3] @ turn.T + [1, 2, 3]
    return out


def test_depth_by_hand() -> None:
    true, pred = np.array([[2.0, 4.0, 0.0]]), np.array([[1.0, 4.12, 9.0]])
    score = depth_score(pred, true, "metric")
    assert score.abs_rel == pytest.approx((0.5 + 0.03) / 2)
    assert score.rmse == pytest.approx(np.sqrt((1 + 0.12**2) / 2))
    assert score.delta == (0.5, 0.5, 0.5)  # ratio 2 exceeds 1.25^3
    assert score.valid_pixels == 2
    assert depth_score(np.array([4.11, 4.13]), np.array([4.0, 4.0]), "metric").inlier_103 == 0.5


def test_mask_restricts_the_score_but_not_the_alignment() -> None:
    true, pred = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 60.0])
    score = depth_score(pred, true, "median", mask=np.array([True, False, False]))
    assert score.scale == pytest.approx(0.5)  # medians 2 and 4 of all three
    assert score.abs_rel == pytest.approx(0)


@pytest.mark.parametrize("alignment", ["median", "scale_l1", "scale_shift"])
def test_scale_of_the_prediction_is_free(alignment: str) -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(1, 5, (2, 10, 10))
    pred = true * np.exp(rng.normal(0, 0.1, true.shape))
    scores = [depth_score(pred * s, true, alignment) for s in (1.0, 4.0)]
    assert scores[0].abs_rel == pytest.approx(scores[1].abs_rel, rel=1e-3)


def test_depth_edges() -> None:
    nothing = depth_score(np.ones(3), np.zeros(3), "median")
    assert np.isnan(nothing.abs_rel)
    assert nothing.valid_pixels == 0
    silent = depth_score(np.zeros(3), np.ones(3), "median")
    assert silent.abs_rel == 1
    assert silent.inlier_103 == 0
    with pytest.raises(DataError, match="same scene"):
        depth_score(np.ones((2, 3)), np.ones((2, 4)), "median")


def test_points_by_hand() -> None:
    pred = np.array([[0.0, 0, 0], [1, 0, 0]])
    true = np.array([[0.0, 0, 0.04], [1, 0, 0], [3, 0, 0]])
    normals_pred, normals_true = np.array([[0, 0, 1.0], [1, 0, 0]]), np.array([[0, 0, -1.0], [0, 1, 0], [1, 0, 0]])
    score = point_score(pred, true, normals_pred, normals_true)
    assert score.accuracy == pytest.approx(0.02)
    assert score.completeness == pytest.approx((0.04 + 0 + 2) / 3)
    assert score.completion_ratio == pytest.approx(2 / 3)
    assert score.nc1 == pytest.approx(0.5)  # the sign of a normal is free
    assert score.nc2 == pytest.approx(2 / 3)
    (f,) = f_scores(pred, true, [0.04])
    assert (f.precision, f.recall) == (0.5, pytest.approx(1 / 3))  # strictly closer
    assert f.fscore == pytest.approx(0.4)
    assert median_norm_scale(pred[1:] * 0.5, pred[1:]) == pytest.approx(2)


def test_points_edges() -> None:
    assert np.isnan(point_score(np.zeros((0, 3)), np.ones((2, 3))).chamfer)
    assert f_scores(np.zeros((1, 3)), np.ones((1, 3)), [0.1])[0].fscore == 0
    assert np.isnan(f_scores(np.zeros((0, 3)), np.ones((1, 3)), [0.1])[0].fscore)
    with pytest.raises(DataError, match="not finite"):
        point_score(np.full((1, 3), np.nan), np.ones((2, 3)))


def test_camera_scores_ignore_the_frame() -> None:
    true = trajectory(0)
    exact = trajectory_score(moved(true, 2.5), true, "sim3")
    assert exact.ape_rmse < 1e-12
    assert exact.ape_rotation_deg < 1e-6
    assert exact.rpe_rmse < 1e-12
    assert trajectory_score(moved(true, 2.5), true, "se3").ape_rmse > 0.1
    noisy = true.copy()
    noisy[:, :3, 3] += np.random.default_rng(1).normal(0, 0.1, (6, 3))
    a, b = pair_errors(noisy, true), pair_errors(moved(noisy, 0.2), true)
    np.testing.assert_allclose(a.translation_deg, b.translation_deg, atol=1e-6)
    np.testing.assert_allclose(a.rotation_deg, b.rotation_deg, atol=1e-6)
    assert 0 < pose_auc(a, 30) < 1


def test_relative_rotation_by_hand() -> None:
    true = np.tile(np.eye(4), (2, 1, 1))
    true[1, 0, 3] = 1.0
    pred = true.copy()
    pred[1, :3, :3] = Rotation.from_euler("z", 12.5, degrees=True).as_matrix()
    errors = pair_errors(pred, true)
    assert errors.rotation_deg == pytest.approx([12.5])
    # camera 1 turned by 12.5 degrees about z sees camera 0 turned by the same angle
    assert errors.translation_deg == pytest.approx([12.5])
    assert share_below(np.array([12.5, 3.0]), 12.5) == 0.5  # strictly
    # 12.5 falls into bin [12, 13): 13 of 30 bins before it ends are empty -> (30 - 12) / 30
    assert pose_auc(errors, 30) == pytest.approx(18 / 30)
    half_turn = pred.copy()
    half_turn[1, :3, :3] = Rotation.from_euler("y", 180, degrees=True).as_matrix()
    assert pair_errors(half_turn, true).rotation_deg == pytest.approx([180])


def test_camera_edges() -> None:
    line = np.tile(np.eye(4), (4, 1, 1))
    line[:, 0, 3] = np.arange(4)
    assert np.isnan(trajectory_score(line, line, "sim3").ape_rmse)
    assert trajectory_score(line, line, "none").ape_rmse == 0
    assert pair_errors(line[:1], line[:1]).rotation_deg.size == 0
    assert np.isnan(area_under_curve(error_histogram(np.zeros(0), 30)))
    still = np.tile(np.eye(4), (3, 1, 1))
    assert pair_errors(still, line[:3]).translation_deg.tolist() == [90, 90, 90]
    with pytest.raises(DataError, match="cameras"):
        pair_errors(line[:3], line)
    with pytest.raises(DataError, match="not finite"):
        pair_errors(line * np.nan, line)
