"""Panoptic quality by two named policies, `coco` and `scene`, which must never be mixed.

Per class: PQ = sum of IoU over matches / (TP + FP/2 + FN/2), SQ = sum of IoU / TP, RQ = TP / (TP + FP/2 + FN/2).
A pair matches if the classes agree and IoU > 0.5 strictly, hence at most one partner each (Kirillov et al. 2019).

`coco`  (panopticapi): segments of one image, statistics summed over all images, then one mean over classes.
`scene` (Panoptic Lifting, PanSt3R's PQ^scene): a segment is one object over *all* views of a scene; truth without a
    label is deleted first; rare classes are dropped; a true segment mostly left unpredicted is forgiven. The
    forgiving rewards predicting less, so the share of unpredicted pixels and the strict variant belong beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.metrics.counting import (
    BoolArray,
    IntArray,
    densify,
    joint_histogram,
    ratio,
    require_range,
    require_same_shape,
)
from pano3d.types import VOID, DataError

PanopticPolicy = Literal["coco", "scene", "scene_strict"]
MIN_CLASS_SHARE = 0.005
"""Classes below this share of the pixels, in the truth or in the prediction, are dropped by `scene`."""


@dataclass(frozen=True)
class PanopticCounts:
    """What matching found, per class of the label space; counts of several images of one policy may be added.

    iou_sum: (K,). true_positive, false_positive, false_negative: (K,).
    evaluated: (K,) classes that take part in the mean (`scene`; for `coco` those with any count).
    pixels, unpredicted: labelled pixels and those among them without prediction.
    """

    policy: PanopticPolicy
    iou_sum: NDArray[np.float64]
    true_positive: NDArray[np.int64]
    false_positive: NDArray[np.int64]
    false_negative: NDArray[np.int64]
    evaluated: BoolArray
    pixels: int
    unpredicted: int

    def __add__(self, other: PanopticCounts) -> PanopticCounts:
        if self.policy != other.policy or self.iou_sum.shape != other.iou_sum.shape:
            raise DataError(
                f"adding panoptic counts: policies {self.policy} and {other.policy}, "
                f"{self.iou_sum.size} and {other.iou_sum.size} classes; score both with one policy and label space"
            )
        return replace(
            self,
            iou_sum=self.iou_sum + other.iou_sum,
            true_positive=self.true_positive + other.true_positive,
            false_positive=self.false_positive + other.false_positive,
            false_negative=self.false_negative + other.false_negative,
            evaluated=self.evaluated | other.evaluated,
            pixels=self.pixels + other.pixels,
            unpredicted=self.unpredicted + other.unpredicted,
        )


@dataclass(frozen=True)
class PanopticQuality:
    """Panoptic quality with everything needed to judge it. Fractions in [0, 1]; NaN where no class takes part.

    pq, sq, rq: means over the evaluated classes, so pq differs from sq * rq in general.
    pq_things, pq_stuff: the same over the subsets.
    class_pq, class_sq, class_rq: (K,), 0 for a class without counts.
    unpredicted_share: share of labelled pixels without prediction.
    """

    policy: PanopticPolicy
    pq: float
    sq: float
    rq: float
    pq_things: float
    pq_stuff: float
    num_classes: int
    class_pq: NDArray[np.float64]
    class_sq: NDArray[np.float64]
    class_rq: NDArray[np.float64]
    counts: PanopticCounts
    unpredicted_share: float


def panoptic_quality(counts: PanopticCounts, is_thing: BoolArray) -> PanopticQuality:
    """Ratios of summed counts. `is_thing`: (K,)."""
    weight = counts.true_positive + 0.5 * counts.false_positive + 0.5 * counts.false_negative
    class_pq = ratio(counts.iou_sum, weight, 0.0)
    class_sq = ratio(counts.iou_sum, counts.true_positive, 0.0)
    class_rq = ratio(counts.true_positive, weight, 0.0)

    def mean(values: NDArray[np.float64], subset: BoolArray) -> float:
        return float(values[subset].mean()) if subset.any() else float("nan")

    evaluated = counts.evaluated
    return PanopticQuality(
        policy=counts.policy,
        pq=mean(class_pq, evaluated),
        sq=mean(class_sq, evaluated),
        rq=mean(class_rq, evaluated),
        pq_things=mean(class_pq, evaluated & is_thing),
        pq_stuff=mean(class_pq, evaluated & ~is_thing),
        num_classes=int(evaluated.sum()),
        class_pq=class_pq,
        class_sq=class_sq,
        class_rq=class_rq,
        counts=counts,
        unpredicted_share=counts.unpredicted / counts.pixels if counts.pixels else float("nan"),
    )


def scene_counts(
    pred_class: IntArray,
    pred_instance: IntArray,
    true_class: IntArray,
    true_instance: IntArray,
    is_thing: BoolArray,
    min_class_share: float = MIN_CLASS_SHARE,
    policy: Literal["scene", "scene_strict"] = "scene",
) -> PanopticCounts:
    """Match segments over all pixels (or points) of one scene at once.

    Args:
        pred_class, true_class: any one shape, in [0, K), VOID where there is none. Truth without a class is deleted.
        pred_instance, true_instance: same shape; view-consistent ids. Ignored for stuff: one segment per class.
        is_thing: (K,).
        min_class_share: a class rarer than this among the labelled pixels of the truth, or of the prediction where it
            occurs, becomes void on both sides. 0 switches the rule off; classes absent from both are dropped anyway.
        policy: `scene_strict` does not forgive: unpredicted pixels count as missed.

    Raises:
        DataError: shapes differ or a class lies outside the label space.

    Source: Panoptic Lifting (Siddiqui et al. 2023), released evaluation; IoU in single precision as there.
    """
    what = "scoring panoptic quality of a scene"
    _check_maps(what, pred_class, pred_instance, true_class, true_instance, is_thing)
    labelled = (true_class != VOID).ravel()
    pred_class, true_class = pred_class.ravel()[labelled], true_class.ravel()[labelled]
    pred_instance, true_instance = pred_instance.ravel()[labelled], true_instance.ravel()[labelled]
    evaluated = _frequent_classes(pred_class, true_class, is_thing.size, min_class_share)
    pred_segment, pred_segment_class = _segments(pred_class, pred_instance, is_thing, evaluated)
    true_segment, true_segment_class = _segments(true_class, true_instance, is_thing, evaluated)
    table = joint_histogram(true_segment, pred_segment, true_segment_class.size + 1, pred_segment_class.size + 1)
    counts = _match(table, true_segment_class, pred_segment_class, is_thing.size, policy)
    return replace(counts, evaluated=evaluated, pixels=int(labelled.sum()), unpredicted=int((pred_class == VOID).sum()))


def coco_counts(
    pred_class: IntArray,
    pred_instance: IntArray,
    true_class: IntArray,
    true_instance: IntArray,
    is_thing: BoolArray,
) -> PanopticCounts:
    """Match segments image by image and add up: arguments (V, ...) as in `scene_counts`, first axis the image.

    Stuff is merged to one segment per class and image before matching. Unlabelled truth stays in as void.
    """
    _check_maps("scoring panoptic quality per image", pred_class, pred_instance, true_class, true_instance, is_thing)
    everything = np.ones(is_thing.size, np.bool_)
    pred_segment, pred_segment_class = _segments(pred_class, pred_instance, is_thing, everything)
    true_segment, true_segment_class = _segments(true_class, true_instance, is_thing, everything)
    total = empty_counts("coco", is_thing.size)
    for pred_image, true_image in zip(pred_segment, true_segment, strict=True):
        table = joint_histogram(true_image, pred_image, true_segment_class.size + 1, pred_segment_class.size + 1)
        total = total + _match(table, true_segment_class, pred_segment_class, is_thing.size, "coco")
    return total


def annotated_counts(
    pred: IntArray,
    true: IntArray,
    pred_classes: dict[int, int],
    true_classes: dict[int, int],
    crowd: Sequence[int],
    num_classes: int,
) -> PanopticCounts:
    """`coco` policy on one image whose segments come with explicit lists, as in COCO-panoptic files.

    Args:
        pred, true: (H, W) segment ids, 0 = void.
        pred_classes, true_classes: segment id -> class in [0, num_classes). A listed truth without pixels is a miss.
        crowd: true ids that are crowd: never matched, never missed; the last one of a class absorbs predictions.

    Raises:
        DataError: an id is in the image but not in its list, or a predicted one in the list but not in the image.
    """
    require_same_shape("scoring an annotated image", prediction=pred, truth=true)
    for side, image, listed in (("prediction", pred, pred_classes), ("truth", true, true_classes)):
        unlisted = set(np.unique(image).tolist()) - set(listed) - {0}
        if unlisted:
            raise DataError(
                f"scoring an annotated image: {side} has pixels of unlisted segments {sorted(unlisted)[:5]}"
            )
        require_range(f"classes of the {side}", np.array(list(listed.values()), np.int64), 0, num_classes)
    absent = set(pred_classes) - set(np.unique(pred).tolist())
    if absent:
        raise DataError(f"scoring an annotated image: predicted segments {sorted(absent)[:5]} have no pixels")
    pred_ids, true_ids = np.array([0, *pred_classes], np.int64), np.array([0, *true_classes], np.int64)
    pred_position = {segment: position for position, segment in enumerate(pred_ids.tolist())}
    true_position = {segment: position for position, segment in enumerate(true_ids.tolist())}
    table = joint_histogram(
        _positions(true, true_position), _positions(pred, pred_position), true_ids.size, pred_ids.size
    )
    is_crowd = np.isin(true_ids[1:], np.array(list(crowd), np.int64))
    true_class = np.array(list(true_classes.values()), np.int64)
    pred_class = np.array(list(pred_classes.values()), np.int64)
    return _match(table, true_class, pred_class, num_classes, "coco", is_crowd)


def empty_counts(policy: PanopticPolicy, num_classes: int) -> PanopticCounts:
    """Counts of nothing: the neutral element of addition."""
    none = np.zeros(num_classes, np.int64)
    return PanopticCounts(
        policy, np.zeros(num_classes), none, none, none, np.zeros(num_classes, np.bool_), pixels=0, unpredicted=0
    )


def _check_maps(
    what: str,
    pred_class: IntArray,
    pred_instance: IntArray,
    true_class: IntArray,
    true_instance: IntArray,
    is_thing: BoolArray,
) -> None:
    require_same_shape(
        what,
        predicted_classes=pred_class,
        predicted_instances=pred_instance,
        true_classes=true_class,
        true_instances=true_instance,
    )
    require_range(f"{what}, predicted classes", pred_class, VOID, is_thing.size)
    require_range(f"{what}, true classes", true_class, VOID, is_thing.size)


def _positions(labels: IntArray, position: dict[int, int]) -> NDArray[np.int64]:
    distinct, index = densify(labels)
    table = np.array([position[int(label)] for label in distinct], np.int64)
    return table[index] if distinct.size else index


def _frequent_classes(pred_class: IntArray, true_class: IntArray, num_classes: int, min_share: float) -> BoolArray:
    """(K,) classes present on a side and on neither side present but rarer than `min_share`."""
    total = max(true_class.size, 1)
    pred_share = np.bincount(pred_class + 1, minlength=num_classes + 1)[1:] / total
    true_share = np.bincount(true_class + 1, minlength=num_classes + 1)[1:] / total
    rare = ((pred_share > 0) & (pred_share < min_share)) | ((true_share > 0) & (true_share < min_share))
    return ((pred_share > 0) | (true_share > 0)) & ~rare


def _segments(
    class_id: IntArray, instance: IntArray, is_thing: BoolArray, evaluated: BoolArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Dense segment ids (0 = void) of (class, instance) pairs, and the class of segments 1, 2, ..."""
    instance_ids, instance_index = densify(instance)
    num_instances = max(instance_ids.size, 1)
    # One slot per class for stuff, one per (class, instance) for things; slot 0 is void.
    thing = np.append(is_thing & evaluated, False)  # VOID = -1 indexes the appended entry
    first_slot = np.append(np.where(evaluated, 1 + np.arange(is_thing.size) * num_instances, 0), 0)
    slot = first_slot[class_id] + np.where(thing[class_id], instance_index, 0)
    slots, segment = densify(slot)
    if slots.size == 0 or slots[0] != 0:
        slots, segment = np.append(0, slots), segment + 1
    return segment, (slots[1:] - 1) // num_instances


def _match(
    table: NDArray[np.int64],
    true_class: NDArray[np.int64],
    pred_class: NDArray[np.int64],
    num_classes: int,
    policy: PanopticPolicy,
    is_crowd: BoolArray | None = None,
) -> PanopticCounts:
    """Counts from the (G+1, P+1) pixel table of true and predicted segments; row and column 0 are void."""
    crowd = np.zeros(true_class.size, np.bool_) if is_crowd is None else is_crowd
    true_area, pred_area = table[1:].sum(1), table[:, 1:].sum(0)
    unpredicted, on_void, both = table[1:, 0], table[0, 1:], table[1:, 1:]
    union = pred_area - on_void + (true_area - (unpredicted if policy == "scene" else 0))[:, None] - both
    iou = ratio(both, union, 0.0)
    if policy != "coco":
        # The published script divides in single precision; without it the tenth digit differs.
        iou = ratio(both.astype(np.float32), union.astype(np.float32), 0.0).astype(np.float32).astype(np.float64)
    matched = (true_class[:, None] == pred_class) & (iou > 0.5) & ~crowd[:, None]
    true_index, pred_index = np.nonzero(matched)

    missed = ~matched.any(1) & ~crowd
    present = true_area > 0
    if policy == "scene":
        missed &= ~(2 * unpredicted > true_area)
    missed &= present | (is_crowd is not None)  # explicit lists may name a segment without pixels; maps cannot
    # A crowd of the same class excuses a prediction like void does; the last unmatched one of each class.
    excused = on_void.copy()
    for position in {int(true_class[row]): int(row) for row in np.flatnonzero(crowd)}.values():
        excused += np.where(pred_class == true_class[position], both[position], 0)
    wrong = ~matched.any(0) & ~(2 * excused > pred_area) & (pred_area > 0)

    true_positive = np.bincount(true_class[true_index], minlength=num_classes)
    false_negative = np.bincount(true_class[missed], minlength=num_classes)
    false_positive = np.bincount(pred_class[wrong], minlength=num_classes)
    iou_sum = np.zeros(num_classes)
    np.add.at(iou_sum, true_class[true_index], iou[true_index, pred_index])
    return PanopticCounts(
        policy=policy,
        iou_sum=iou_sum,
        true_positive=true_positive,
        false_positive=false_positive,
        false_negative=false_negative,
        evaluated=true_positive + false_positive + false_negative > 0,
        pixels=int(table[1:].sum()),
        unpredicted=int(unpredicted.sum()),
    )
