"""Instance average precision on points by the ScanNet benchmark's rule; ScanNet++ and class-agnostic AP use it too.

Each scene is reduced to `InstanceExamples` (scored hits and false alarms per threshold and class, plus misses); these
are small, and concatenating them over scenes is all that the benchmark's pooling does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pano3d.metrics.counting import BoolArray, FloatArray, IntArray, densify, joint_histogram, require_same_shape
from pano3d.types import DataError

AP_THRESHOLDS: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.25)
"""Strict lower bounds of IoU; AP averages the first nine (0.95 is not among them), 0.25 stands alone."""
MIN_POINTS = 100
"""Smaller predictions are dropped; smaller true instances need not be found, but excuse predictions on them."""


@dataclass(frozen=True)
class InstanceOverlaps:
    """Predicted and true instances of one scene and how many points they share.

    intersection: (P, G). pred_size, pred_void: (P,) points, and those on void. pred_class, pred_score: (P,).
    Predictions stand in file order, which decides ties.
    true_size, true_class: (G,), ascending id.
    """

    intersection: NDArray[np.int64]
    pred_size: NDArray[np.int64]
    pred_void: NDArray[np.int64]
    pred_class: NDArray[np.int64]
    pred_score: NDArray[np.float64]
    true_size: NDArray[np.int64]
    true_class: NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Scored examples of one class at one threshold, and true instances that nothing matched."""

    score: list[float]
    is_hit: list[bool]
    misses: int
    has_truth: bool


@dataclass(frozen=True)
class InstanceAP:
    """AP per class (NaN without truth) and its means over classes with truth.

    class_ap: (K,) mean over nine thresholds. class_ap50, class_ap25: (K,). num_truth: (K,) instances to be found.
    """

    protocol: str
    ap: float
    ap50: float
    ap25: float
    class_ap: NDArray[np.float64]
    class_ap50: NDArray[np.float64]
    class_ap25: NDArray[np.float64]
    num_truth: NDArray[np.int64]


def overlaps_from_masks(
    masks: BoolArray, pred_class: IntArray, pred_score: FloatArray, true_instance: IntArray, true_class: IntArray
) -> InstanceOverlaps:
    """Overlaps of (possibly overlapping) predicted masks with true instances.

    Args:
        masks: (P, N) over N points. pred_class, pred_score: (P,).
        true_instance: (N,) id of each point's instance, any integers > 0, 0 = void (also: class without instances).
        true_class: (N,) class per point; read at points with an instance.
    """
    if masks.ndim != 2 or masks.shape[1] != true_instance.size:
        raise DataError(
            f"scoring instances: expected masks (P, {true_instance.size}) over the points of the truth, "
            f"got {masks.shape}; check that both belong to the same scene"
        )
    require_same_shape("scoring instances", classes=pred_class, scores=pred_score, masks=np.zeros(len(masks)))
    index, classes, sizes = _true_instances(true_instance, true_class)
    counts = [np.bincount(index[mask], minlength=classes.size + 1) for mask in masks]
    table = np.array(counts, np.int64).reshape(len(masks), classes.size + 1)
    return _overlaps(table, pred_class, pred_score, sizes, classes)


def overlaps_from_labels(
    pred_segment: IntArray,
    pred_class: IntArray,
    pred_score: FloatArray,
    true_instance: IntArray,
    true_class: IntArray,
) -> InstanceOverlaps:
    """The same for predictions that do not overlap: pred_segment (N,) in [0, P], 0 = none; segment i + 1 is row i."""
    require_same_shape("scoring instances", prediction=pred_segment, truth=true_instance)
    index, classes, sizes = _true_instances(true_instance, true_class)
    table = joint_histogram(pred_segment, index, pred_class.size + 1, classes.size + 1)[1:]
    return _overlaps(table, pred_class, pred_score, sizes, classes)


def _true_instances(
    true_instance: IntArray, true_class: IntArray
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Index of each point's instance (0 = void), class and size of instances 1, 2, ..."""
    require_same_shape("reading true instances", ids=true_instance, classes=true_class)
    ids, index = densify(true_instance)
    if ids.size == 0 or ids[0] != 0:
        if ids.size and ids[0] < 0:
            raise DataError(f"reading true instances: expected ids >= 0 (0 = void), got {ids[0]}")
        ids, index = np.append(0, ids), index + 1
    classes = np.zeros(ids.size, np.int64)
    classes[index] = true_class
    sizes = np.bincount(index, minlength=ids.size)
    return index, classes[1:], sizes[1:]


def _overlaps(
    table: NDArray[np.int64],
    pred_class: IntArray,
    pred_score: FloatArray,
    sizes: NDArray[np.int64],
    classes: NDArray[np.int64],
) -> InstanceOverlaps:
    return InstanceOverlaps(
        intersection=table[:, 1:],
        pred_size=table.sum(1),
        pred_void=table[:, 0],
        pred_class=pred_class.astype(np.int64),
        pred_score=pred_score.astype(np.float64),
        true_size=sizes,
        true_class=classes,
    )


def instance_examples(
    overlaps: InstanceOverlaps,
    num_classes: int,
    thresholds: Sequence[float] = AP_THRESHOLDS,
    min_points: int = MIN_POINTS,
) -> list[list[Examples]]:
    """One scene's examples, [threshold][class]. Predictions of classes outside [0, num_classes) are skipped."""
    return [
        [_class_examples(overlaps, class_id, threshold, min_points) for class_id in range(num_classes)]
        for threshold in thresholds
    ]


def _class_examples(overlaps: InstanceOverlaps, class_id: int, threshold: float, min_points: int) -> Examples:
    """ScanNet's matching: true instances in ascending id, each taking predictions in file order."""
    pred = np.flatnonzero((overlaps.pred_class == class_id) & (overlaps.pred_size >= min_points))
    true = np.flatnonzero(overlaps.true_class == class_id)
    large = overlaps.true_size[true] >= min_points
    both = overlaps.intersection[np.ix_(pred, true)]
    union = overlaps.pred_size[pred][:, None] + overlaps.true_size[true] - both
    above = both / np.maximum(union, 1) > threshold
    score: list[float] = []
    is_hit: list[bool] = []
    misses = 0
    used = np.zeros(pred.size, np.bool_)
    for column in np.flatnonzero(large):
        best: float | None = None
        for row in np.flatnonzero(above[:, column] & ~used):
            confidence = float(overlaps.pred_score[pred[row]])
            if best is None:
                best = confidence
                used[row] = True
            else:  # a duplicate: the lower score becomes a false alarm, and the duplicate stays available
                score.append(min(best, confidence))
                is_hit.append(False)
                best = max(best, confidence)
        if best is None:
            misses += 1
        else:
            score.append(best)
            is_hit.append(True)
    excused = overlaps.pred_void[pred] + both[:, ~large].sum(1)
    wrong = ~above.any(1) & (excused / np.maximum(overlaps.pred_size[pred], 1) <= threshold)
    score += overlaps.pred_score[pred[wrong]].tolist()
    is_hit += [False] * int(wrong.sum())
    return Examples(score, is_hit, misses, has_truth=bool(large.any()))


def average_precision(scenes: Sequence[Examples]) -> float:
    """Area under the precision-recall curve of examples pooled over scenes.

    NaN without truth, 0 with truth but no prediction or only excused ones.
    """
    if not any(scene.has_truth for scene in scenes):
        return float("nan")
    score = np.array([value for scene in scenes for value in scene.score])
    is_hit = np.array([value for scene in scenes for value in scene.is_hit], np.float64)
    misses = sum(scene.misses for scene in scenes)
    if score.size == 0:
        return 0.0
    order = np.argsort(score, kind="stable")
    _, first = np.unique(score[order], return_index=True)
    hits_below = np.concatenate([[0.0], np.cumsum(is_hit[order])])
    true_positive = hits_below[-1] - hits_below[first]  # at or above each distinct score
    kept = score.size - first
    found_or_missed = hits_below[-1] + misses
    precision = np.append(true_positive / kept, 1.0)
    recall = np.append(true_positive / found_or_missed if found_or_missed else np.zeros(first.size), 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (0.5 * (padded[:-2] - padded[2:])))


def instance_ap(
    scenes: Sequence[list[list[Examples]]], num_classes: int, protocol: str = "scannet_instance"
) -> InstanceAP:
    """AP of scenes reduced by `instance_examples` with the default thresholds."""
    table = np.full((len(AP_THRESHOLDS), num_classes), np.nan)
    for row in range(len(AP_THRESHOLDS)):
        for class_id in range(num_classes):
            table[row, class_id] = average_precision([scene[row][class_id] for scene in scenes])
    found_at = AP_THRESHOLDS.index(0.5)
    num_truth = [
        sum(scene[found_at][class_id].misses + sum(scene[found_at][class_id].is_hit) for scene in scenes)
        for class_id in range(num_classes)
    ]
    class_ap, class_ap50, class_ap25 = table[:-1].mean(0), table[0], table[-1]
    return InstanceAP(
        protocol=protocol,
        ap=_mean_of_known(class_ap),
        ap50=_mean_of_known(class_ap50),
        ap25=_mean_of_known(class_ap25),
        class_ap=class_ap,
        class_ap50=class_ap50,
        class_ap25=class_ap25,
        num_truth=np.array(num_truth, np.int64),
    )


def _mean_of_known(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
