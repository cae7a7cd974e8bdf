"""Every protocol behind one interface: a scene becomes a piece, pieces become numbers, decisions become words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.geometry.alignment import apply_transform
from pano3d.metrics.panoptic_quality import PanopticQuality
from pano3d.metrics.pointmaps import PointScore
from pano3d.metrics.protocols import geometry, iggt, panoptic, surface
from pano3d.metrics.scenes import ScenePrediction, SceneTruth, finite_pixels, true_points

ProtocolConfig = (
    panoptic.PqConfig | surface.SurfaceConfig | iggt.IggtConfig | geometry.PointmapConfig | geometry.PoseConfig
)
Piece = (
    PanopticQuality
    | surface.SurfaceScene
    | iggt.IggtScene
    | PointScore
    | tuple[NDArray[np.floating], NDArray[np.floating]]
)

_PQ_VALUES = ("pq", "sq", "rq", "pq_things", "pq_stuff", "unpredicted_share")
_IGGT_VALUES = ("miou_2d", "macc_2d", "miou_3d", "abs_rel", "inlier_103", "track_miou", "track_success")
_POINT_VALUES = ("accuracy", "completeness", "chamfer", "nc", "completion_ratio")


@dataclass(frozen=True)
class ProtocolScores:
    """A protocol's numbers over a set of scenes.

    values: name -> number, NaN = undefined; shares in [0, 1], lengths in metres, angles in degrees.
    decisions: what was done, in words, and where that is not what was published.
    """

    name: str
    values: Mapping[str, float]
    decisions: tuple[str, ...]
    num_scenes: int


def with_label_space(config: ProtocolConfig, label_space: str) -> tuple[ProtocolConfig, list[str]]:
    """The protocol on a model's own classes, and the words to say so where they are not the published ones."""
    if isinstance(config, geometry.PointmapConfig | geometry.PoseConfig) or config.label_space == label_space:
        return config, []
    note = f"scored on the classes of {label_space}; published on those of {config.label_space}"
    return replace(config, label_space=label_space), [note]


def score_scene(config: ProtocolConfig, prediction: ScenePrediction, truth: SceneTruth) -> Piece:
    """One scene by one protocol, to be pooled by `pool`.

    Raises:
        DataError: prediction and truth do not describe the same views, or the protocol cannot score them.
    """
    match config:
        case panoptic.PqConfig(name="pq_3d"):
            return panoptic.score_surface(prediction, truth, config)
        case panoptic.PqConfig():
            true_class = truth.class_of(truth.segment_id)
            ids = prediction.segment_id, true_class, truth.segment_id
            return panoptic.score_views(prediction.class_id, *ids, truth.is_thing, config)
        case surface.SurfaceConfig():
            return surface.score(prediction, truth, config)
        case iggt.IggtConfig():
            return iggt.score(prediction, truth, config)
        case geometry.PointmapConfig():
            pred = _in_first_camera(prediction.points_world, prediction.world_from_camera)
            true = _in_first_camera(true_points(truth), truth.scan_from_camera)
            return geometry.score_pointmaps(pred, true, (truth.depth > 0) & finite_pixels(prediction), config)
        case geometry.PoseConfig():
            return prediction.world_from_camera, truth.scan_from_camera


def pool(config: ProtocolConfig, pieces: Sequence[Any], notes: Sequence[str] = ()) -> ProtocolScores:
    """The numbers of all scenes.

    Args:
        pieces: what `score_scene` gave for each, by the same protocol.
        notes: printed after the protocol's own decisions.

    Raises:
        DataError: there are no scenes.
    """
    match config:
        case panoptic.PqConfig():
            quality = panoptic.mean_over_scenes(pieces, config)
            values = {name: getattr(quality, name) for name in _PQ_VALUES}
            words = panoptic.decisions(config)
        case surface.SurfaceConfig():
            labels = surface.pool(pieces, config)
            values = {"miou_3d": labels.semantic.miou, "macc_3d": labels.semantic.macc, "coverage": labels.coverage}
            values |= {"ap": labels.ap.ap, "ap50": labels.ap.ap50, "ap25": labels.ap.ap25}
            words = surface.decisions(config)
        case iggt.IggtConfig():
            tracked = iggt.pool(pieces)
            values = {name: getattr(tracked, name) for name in _IGGT_VALUES}
            words = iggt.decisions(config)
        case geometry.PointmapConfig():
            values = {name: _mean([getattr(piece, name) for piece in pieces]) for name in _POINT_VALUES}
            words = geometry.pointmap_decisions(config)
        case geometry.PoseConfig():
            poses = geometry.score_poses(pieces, config)
            values = {"ate": poses.ate, "rpe": poses.rpe, "rpe_rotation_deg": poses.rpe_rotation_deg}
            for kind in ("rra", "rta", "auc"):
                values |= {f"{kind}{degrees}": value for degrees, value in getattr(poses, kind).items()}
            words = geometry.pose_decisions(config)
    return ProtocolScores(config.name, values, (*words, *notes), len(pieces))


def _in_first_camera(points: NDArray[Any], frame_from_camera: NDArray[Any]) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = apply_transform(np.linalg.inv(frame_from_camera[0].astype(np.float64)), points)
    return moved


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
