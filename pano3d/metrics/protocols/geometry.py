"""Point-map and pose protocols of MUSt3R (normalised clouds, SE(3)/Sim(3) trajectories) and Pi3 (Umeyama, ICP, AUC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.geometry.alignment import align_similarity, apply_transform, estimate_normals, register_icp
from pano3d.metrics.cameras import (
    PairErrors,
    TrajectoryScore,
    pair_errors,
    pool_pairs,
    pose_auc,
    share_below,
    trajectory_score,
)
from pano3d.metrics.counting import BoolArray, FloatArray, require_same_shape
from pano3d.metrics.pointmaps import PointScore, point_score
from pano3d.types import ConfigError, DataError


@dataclass(frozen=True)
class PointmapConfig:
    """name: pi3_pointmap aligns by Umeyama; must3r_pointmap normalises both clouds by their mean distance, shifts by
    median depth and restores the true scale. crop: side of the central square that counts, None = everything.
    icp_distance: in units of the data (0.1 m, 100 for millimetres). normals: neighbours."""

    name: Literal["pi3_pointmap", "must3r_pointmap"]
    crop: int | None
    icp_distance: float
    normal_neighbours: int

    def __post_init__(self) -> None:
        if self.icp_distance <= 0 or self.normal_neighbours < 3 or (self.crop is not None and self.crop < 1):
            raise ConfigError(f"{self.name}: icp_distance and crop must be positive, normal_neighbours 3 or more")


@dataclass(frozen=True)
class PoseConfig:
    """name: of the protocol. alignment: of trajectories. thresholds_deg: of RRA, RTA and AUC."""

    name: Literal["pi3_pose", "must3r_pose"]
    alignment: Literal["se3", "sim3"]
    thresholds_deg: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.thresholds_deg or min(self.thresholds_deg) < 1:
            raise ConfigError(f"{self.name}: thresholds_deg is {self.thresholds_deg}; expected whole degrees from 1 on")


@dataclass(frozen=True)
class PoseResult:
    """Pairs pooled over sequences (RRA, RTA, AUC by threshold), trajectories averaged over sequences."""

    protocol: str
    rra: dict[int, float]
    rta: dict[int, float]
    auc: dict[int, float]
    ate: float
    rpe: float
    rpe_rotation_deg: float
    num_sequences: int
    num_undefined: int


def pointmap_decisions(config: PointmapConfig) -> list[str]:
    """The protocol in words."""
    how = (
        "Umeyama Sim(3) on all valid pixels"
        if config.name == "pi3_pointmap"
        else "no Umeyama: both clouds divided by mean distance and shifted by median depth, true scale restored"
    )
    return [
        f"{config.name}: {how}",
        f"central {config.crop}x{config.crop} crop" if config.crop else "no crop",
        f"then point-to-point ICP within {config.icp_distance}, normals from {config.normal_neighbours} neighbours",
        "mean over sequences",
    ]


def pose_decisions(config: PoseConfig) -> list[str]:
    """The protocol in words."""
    return [
        f"{config.name}: trajectories aligned by {config.alignment}, averaged over sequences where that is defined",
        "RRA, RTA and AUC over all unordered pairs, pooled over sequences; AUC of the larger error in one-degree bins",
    ]


def score_pointmaps(pred: FloatArray, true: FloatArray, valid: BoolArray, config: PointmapConfig) -> PointScore:
    """One sequence of pixel-aligned point maps (V, H, W, 3), both in the first camera's frame.

    Raises:
        DataError: shapes differ, or predicted points are not finite where the truth is valid.
    """
    require_same_shape(f"scoring {config.name}", prediction=pred, truth=true)
    require_same_shape(f"scoring {config.name}", truth=true[..., 0], valid=valid)
    if config.crop is not None:
        pred, true, valid = (_central(x, config.crop) for x in (pred, true, valid))
    x, y = pred[valid].astype(np.float64), true[valid].astype(np.float64)
    if len(x) < 3:
        raise DataError(f"scoring {config.name}: {len(x)} valid points; expected 3 or more")
    if config.name == "pi3_pointmap":
        x = apply_transform(align_similarity(x, y), x)
    else:
        x = _normalised(x) * np.linalg.norm(y, axis=1).mean()
        x[:, 2] += np.median(y[:, 2]) - np.median(x[:, 2])
    x = apply_transform(register_icp(x, y, config.icp_distance).target_from_source, x)
    return point_score(
        x, y, estimate_normals(x, config.normal_neighbours), estimate_normals(y, config.normal_neighbours)
    )


def score_poses(
    sequences: Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]], config: PoseConfig
) -> PoseResult:
    """Sequences of (predicted, true) poses (V, 4, 4), `frame_from_camera`.

    Raises:
        DataError: there are no sequences, or poses are not paired.
    """
    if not sequences:
        raise DataError(f"scoring {config.name}: no sequences")
    pairs: PairErrors = pool_pairs([pair_errors(pred, true) for pred, true in sequences])
    tracks: list[TrajectoryScore] = [trajectory_score(pred, true, config.alignment) for pred, true in sequences]

    def mean(values: list[float]) -> float:
        known = [value for value in values if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")

    return PoseResult(
        protocol=config.name,
        rra={t: share_below(pairs.rotation_deg, t) for t in config.thresholds_deg},
        rta={t: share_below(pairs.translation_deg, t) for t in config.thresholds_deg},
        auc={t: pose_auc(pairs, t) for t in config.thresholds_deg},
        ate=mean([track.ape_rmse for track in tracks]),
        rpe=mean([track.rpe_rmse for track in tracks]),
        rpe_rotation_deg=mean([track.rpe_rotation_deg for track in tracks]),
        num_sequences=len(sequences),
        num_undefined=sum(bool(np.isnan(track.ape_rmse)) for track in tracks),
    )


def _central(x: NDArray[Any], side: int) -> NDArray[Any]:
    """The central square of (V, H, W, ...), or all of it where it is smaller."""
    top, left = max((x.shape[1] - side) // 2, 0), max((x.shape[2] - side) // 2, 0)
    return x[:, top : top + side, left : left + side]


def _normalised(points: NDArray[np.float64]) -> NDArray[np.float64]:
    distance = float(np.linalg.norm(points, axis=1).mean())
    if distance == 0:
        raise DataError("normalising a cloud: all points lie in the camera")
    return points / distance
