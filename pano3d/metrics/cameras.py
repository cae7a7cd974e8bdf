"""Camera errors: absolute (APE) and relative (RPE) trajectory error, and accuracies over pairs (RRA, RTA, AUC).

Poses are `frame_from_camera` (V, 4, 4), estimate and truth paired by index. Angles of errors are in degrees, as in
every published table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.geometry.alignment import align_similarity, move_cameras
from pano3d.metrics.counting import FloatArray, require_same_shape
from pano3d.types import DataError, DegenerateError

TrajectoryAlignment = Literal["none", "se3", "sim3"]


@dataclass(frozen=True)
class TrajectoryScore:
    """Position error in metres and rotation error in degrees; NaN where the alignment has no unique answer.

    ape_*: of absolute poses. rpe_*: root mean square error of the motion between consecutive frames; NaN for one frame.
    """

    alignment: TrajectoryAlignment
    ape_rmse: float
    ape_mean: float
    ape_median: float
    ape_max: float
    ape_rotation_deg: float
    rpe_rmse: float
    rpe_rotation_deg: float
    num_frames: int


@dataclass(frozen=True)
class PairErrors:
    """Errors of relative poses over all unordered pairs i < j, degrees; pool pairs of scenes by concatenation.

    rotation_deg: (N,) in [0, 180]. translation_deg: (N,) angle between directions folded to [0, 90].
    """

    rotation_deg: NDArray[np.float64]
    translation_deg: NDArray[np.float64]


def trajectory_score(pred: FloatArray, true: FloatArray, alignment: TrajectoryAlignment) -> TrajectoryScore:
    """APE and RPE after aligning camera centres. Fewer than three frames or a straight line: undefined, all NaN.

    Raises:
        DataError: the pose arrays are not paired (V, 4, 4).

    Source: Sturm et al. 2012; alignment by Umeyama 1991.
    """
    _require_poses(pred, true)
    if alignment != "none":
        try:
            true_from_pred = align_similarity(pred[:, :3, 3], true[:, :3, 3], with_scale=alignment == "sim3")
        except DegenerateError:
            nan = float("nan")
            return TrajectoryScore(alignment, nan, nan, nan, nan, nan, nan, nan, len(pred))
        pred = move_cameras(true_from_pred, pred)
    distance = np.linalg.norm(pred[:, :3, 3] - true[:, :3, 3], axis=1)
    rotation_deg = _rotation_angle_deg(true[:, :3, :3].transpose(0, 2, 1) @ pred[:, :3, :3])
    drift = _inverse(_relative(true[:-1], true[1:])) @ _relative(pred[:-1], pred[1:])
    return TrajectoryScore(
        alignment=alignment,
        ape_rmse=_rms(distance),
        ape_mean=float(distance.mean()),
        ape_median=float(np.median(distance)),
        ape_max=float(distance.max()),
        ape_rotation_deg=_rms(rotation_deg),
        rpe_rmse=_rms(np.linalg.norm(drift[:, :3, 3], axis=1)),
        rpe_rotation_deg=_rms(_rotation_angle_deg(drift[:, :3, :3])),
        num_frames=len(pred),
    )


def pair_errors(pred: FloatArray, true: FloatArray) -> PairErrors:
    """Relative-pose errors over all unordered pairs of frames; empty for one frame.

    Relative poses are `camera_j_from_camera_i`, i < j. The sign of a translation is ignored; a pair without
    predicted (or true) baseline has a translation error of 90 degrees.
    """
    _require_poses(pred, true)
    first, second = np.triu_indices(len(pred), k=1)
    relative = [
        _inverse(poses)[second] @ poses[first]  # camera j from camera i; the direction moves the angle
        for poses in (pred, true)
    ]
    rotation_deg = _rotation_angle_deg(relative[1][:, :3, :3].transpose(0, 2, 1) @ relative[0][:, :3, :3])
    a, b = relative[0][:, :3, 3], relative[1][:, :3, 3]
    along, across = np.abs((a * b).sum(1)), np.linalg.norm(np.cross(a, b), axis=1)
    moves = (np.linalg.norm(a, axis=1) > 1e-15) & (np.linalg.norm(b, axis=1) > 1e-15)
    translation_deg = np.where(moves, np.rad2deg(np.arctan2(across, along)), 90.0)
    return PairErrors(rotation_deg, translation_deg)


def share_below(errors_deg: FloatArray, threshold_deg: int | float) -> float:
    """RRA@t or RTA@t: share of pairs strictly below the threshold; NaN without pairs."""
    return float((errors_deg < threshold_deg).mean()) if errors_deg.size else float("nan")


def error_histogram(errors_deg: FloatArray, max_deg: int) -> NDArray[np.int64]:
    """(max_deg + 1,) counts in [0, 1), [1, 2), ... [max - 1, max] degrees, and beyond; add up to pool scenes."""
    inside, _ = np.histogram(errors_deg, bins=np.arange(max_deg + 1))
    return np.append(inside, errors_deg.size - inside.sum()).astype(np.int64)


def area_under_curve(histogram: NDArray[np.int64]) -> float:
    """AUC@T of pooled `error_histogram`s: mean over the T bins of the share of pairs up to there; NaN without pairs."""
    total = histogram.sum()
    return float((np.cumsum(histogram[:-1]) / total).mean()) if total else float("nan")


def pose_auc(errors: PairErrors, max_deg: int) -> float:
    """AUC@T of the larger of rotation and translation error per pair."""
    return area_under_curve(error_histogram(np.maximum(errors.rotation_deg, errors.translation_deg), max_deg))


def pool_pairs(scenes: Sequence[PairErrors]) -> PairErrors:
    """All pairs of a dataset."""
    return PairErrors(
        np.concatenate([np.zeros(0), *(scene.rotation_deg for scene in scenes)]),
        np.concatenate([np.zeros(0), *(scene.translation_deg for scene in scenes)]),
    )


def _require_poses(pred: FloatArray, true: FloatArray) -> None:
    require_same_shape("scoring cameras", prediction=pred, truth=true)
    if pred.ndim != 3 or pred.shape[1:] != (4, 4) or len(pred) == 0:
        raise DataError(f"scoring cameras: expected poses (V, 4, 4) with V >= 1, got {pred.shape}")
    if not (np.isfinite(pred).all() and np.isfinite(true).all()):
        raise DataError("scoring cameras: poses are not finite; leave frames without pose out on both sides")


def _inverse(poses: FloatArray) -> NDArray[np.float64]:
    return np.asarray(np.linalg.inv(poses.astype(np.float64)), np.float64)


def _relative(first: FloatArray, second: FloatArray) -> NDArray[np.float64]:
    return np.asarray(_inverse(first) @ second, np.float64)


def _rotation_angle_deg(rotation: FloatArray) -> NDArray[np.float64]:
    """Angle of rotations (N, 3, 3), accurate at 0 and at 180 degrees, where the arc cosine of the trace is not."""
    off_axis = np.stack(
        [
            rotation[:, 2, 1] - rotation[:, 1, 2],
            rotation[:, 0, 2] - rotation[:, 2, 0],
            rotation[:, 1, 0] - rotation[:, 0, 1],
        ],
        axis=1,
    )
    return np.rad2deg(np.arctan2(np.linalg.norm(off_axis, axis=1), np.trace(rotation, axis1=1, axis2=2) - 1))


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean())) if values.size else float("nan")
