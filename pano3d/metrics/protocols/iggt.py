"""`iggt` (Pano3D's second table): 2D mIoU, 3D mIoU on voxels, AbsRel and inliers, T-mIoU and T-SR over 8-10 frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.geometry.alignment import apply_transform
from pano3d.metrics.counting import BoolArray, FloatArray, IntArray, densify, joint_histogram
from pano3d.metrics.depth import DepthAlignment, depth_score
from pano3d.metrics.scenes import (
    CAMERA_ALIGNMENT,
    ScenePrediction,
    SceneTruth,
    align_scene,
    check_scene,
    finite_pixels,
    true_points,
)
from pano3d.metrics.semantic import confusion_matrix, semantic_score
from pano3d.types import VOID, ConfigError, DataError


@dataclass(frozen=True)
class IggtConfig:
    """name: of the protocol. label_space: the class table. voxel_size: metres. icp_distance: metres of the alignment.
    depth_alignment: per scene. track_iou: an object is found in a view above this IoU with its track's predicted
    segment."""

    name: Literal["iggt"]
    label_space: str
    voxel_size: float
    icp_distance: float
    depth_alignment: DepthAlignment
    track_iou: float

    def __post_init__(self) -> None:
        if self.voxel_size <= 0 or self.icp_distance <= 0 or not 0 <= self.track_iou < 1:
            raise ConfigError("iggt: voxel_size and icp_distance must be positive, track_iou a share in [0, 1)")


@dataclass(frozen=True)
class IggtScene:
    """One scene: confusions (K, K+1) in 2D and (K+1, K+1) on voxels (row K: no true voxel), and the scene's values."""

    pixels: NDArray[np.int64]
    voxels: NDArray[np.int64]
    abs_rel: float
    inlier_103: float
    track_miou: float
    track_success: float


@dataclass(frozen=True)
class IggtResult:
    """Confusions pooled over scenes, other values averaged over scenes where defined."""

    protocol: str
    miou_2d: float
    macc_2d: float
    miou_3d: float
    abs_rel: float
    inlier_103: float
    track_miou: float
    track_success: float
    num_scenes: int


def decisions(config: IggtConfig) -> list[str]:
    """The protocol in words; voxel size, alignment and matching of tracks are not published."""
    return [
        f"iggt: 8-10 frames per scene, classes of {config.label_space}; confusions pooled over scenes",
        f"3D mIoU on voxels of {config.voxel_size} m: a predicted voxel where no true one is, or of another class, is a"
        " false alarm; a voxel takes its most frequent class",
        f"alignment: {CAMERA_ALIGNMENT} within {config.icp_distance} m",
        f"AbsRel and inliers at 1.03 after `{config.depth_alignment}` over all views of a scene",
        "T-mIoU: each true thing against the one predicted segment it overlaps most over all views;"
        f" T-SR: share of things found in every view they appear in, IoU above {config.track_iou}",
    ]


def score(prediction: ScenePrediction, truth: SceneTruth, config: IggtConfig) -> IggtScene:
    """One scene by the IGGT protocol."""
    check_scene(prediction, truth)
    num_classes = truth.is_thing.size
    true_class = truth.class_of(truth.segment_id)
    alignment = align_scene(prediction, truth, "cameras", config.icp_distance, 50_000)
    usable = finite_pixels(prediction)
    points = apply_transform(alignment.scan_from_world, prediction.points_world[usable])
    known = truth.depth > 0
    voxels = _voxel_confusion(
        points,
        prediction.class_id[usable],
        true_points(truth)[known],
        true_class[known],
        config.voxel_size,
        num_classes,
    )
    depth = depth_score(
        np.where(np.isfinite(prediction.depth), prediction.depth, 0), truth.depth, config.depth_alignment
    )
    track_miou, track_success = _tracks(prediction.segment_id, truth, true_class, config.track_iou)
    return IggtScene(
        pixels=confusion_matrix(prediction.class_id, true_class, num_classes),
        voxels=voxels,
        abs_rel=depth.abs_rel,
        inlier_103=depth.inlier_103,
        track_miou=track_miou,
        track_success=track_success,
    )


def pool(scenes: Sequence[IggtScene]) -> IggtResult:
    """The dataset's numbers.

    Raises:
        DataError: there are no scenes.
    """
    if not scenes:
        raise DataError("pooling iggt: no scenes were scored")
    pixels = semantic_score(np.sum([scene.pixels for scene in scenes], axis=0), "iggt")
    voxels = np.sum([scene.voxels for scene in scenes], axis=0)
    hits = np.diagonal(voxels)[:-1]
    union = voxels.sum(1)[:-1] + voxels.sum(0)[:-1] - hits
    occurring = union > 0

    def mean(name: str) -> float:
        values = np.array([getattr(scene, name) for scene in scenes], np.float64)
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    return IggtResult(
        protocol="iggt",
        miou_2d=pixels.miou,
        macc_2d=pixels.macc,
        miou_3d=float((hits[occurring] / union[occurring]).mean()) if occurring.any() else float("nan"),
        abs_rel=mean("abs_rel"),
        inlier_103=mean("inlier_103"),
        track_miou=mean("track_miou"),
        track_success=mean("track_success"),
        num_scenes=len(scenes),
    )


def _voxel_confusion(
    pred_points: FloatArray,
    pred_class: IntArray,
    true: FloatArray,
    true_class: IntArray,
    size: float,
    num_classes: int,
) -> NDArray[np.int64]:
    """(K+1, K+1) counts of voxels by true and predicted class, K = none; voxels with unlabelled truth are left out."""
    cells = np.floor(np.concatenate([pred_points, true]) / size).astype(np.int64)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.ravel()
    count = int(cell.max(initial=-1)) + 1
    labels = []
    for part, classes in ((cell[: len(pred_points)], pred_class), (cell[len(pred_points) :], true_class)):
        # One more column each for void (present, no class): it wins only where nothing else is.
        table = joint_histogram(part, np.where(classes == VOID, num_classes, classes), count, num_classes + 1)
        named, present = table[:, :num_classes], table.sum(1) > 0
        labels.append((np.where(named.any(1), named.argmax(1), num_classes), present))
    (pred_label, _), (true_label, true_present) = labels
    scored = ~(true_present & (true_label == num_classes))
    return joint_histogram(true_label[scored], pred_label[scored], num_classes + 1, num_classes + 1)


def _tracks(pred: IntArray, truth: SceneTruth, true_class: IntArray, found_above: float) -> tuple[float, float]:
    """T-mIoU and T-SR over the true things; NaN without any."""
    thing: BoolArray = np.append(truth.is_thing, False)[true_class]
    ids, index = densify(np.where(thing, truth.segment_id, 0))
    pred_ids, pred_index = densify(pred)
    tables = np.stack(
        [joint_histogram(t, p, ids.size, pred_ids.size) for t, p in zip(index, pred_index, strict=True)]
    )  # (V, G, P)
    objects, segments = ids != 0, pred_ids != 0
    if not objects.any():
        return float("nan"), float("nan")
    if not segments.any():
        return 0.0, 0.0
    true_area, pred_area = tables.sum(2)[:, objects], tables.sum(1)[:, segments]
    both = tables[:, objects][:, :, segments]
    union = true_area.sum(0)[:, None] + pred_area.sum(0) - both.sum(0)
    iou = both.sum(0) / union
    best = iou.argmax(1)
    rows = np.arange(best.size)
    per_view = both[:, rows, best] / np.maximum(true_area + pred_area[:, best] - both[:, rows, best], 1)
    found = ((per_view > found_above) | (true_area == 0)).all(0)
    return float(iou[rows, best].mean()), float(found.mean())
