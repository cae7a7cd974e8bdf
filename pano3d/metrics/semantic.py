"""Semantic IoU from one confusion matrix over a whole set: ScanNet, ScanNet++ (top-k) and Panoptic Lifting rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pano3d.metrics.counting import IntArray, joint_histogram, ratio, require_range, require_same_shape
from pano3d.types import VOID, DataError


@dataclass(frozen=True)
class SemanticScore:
    """IoU and accuracy per class, with their means over classes that occur.

    iou, accuracy: (K,), NaN for a class without a denominator. true_positive, union: (K,) counts.
    unpredicted_share: labelled elements without a predicted class.
    """

    protocol: str
    miou: float
    macc: float
    iou: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    true_positive: NDArray[np.int64]
    union: NDArray[np.int64]
    confusion: NDArray[np.int64]
    unpredicted_share: float


def confusion_matrix(pred_class: IntArray, true_class: IntArray, num_classes: int) -> NDArray[np.int64]:
    """(K, K+1) counts: rows true class, columns predicted class, the last column "no class predicted".

    Elements whose truth is VOID are left out. Matrices of several scenes may be added.
    """
    what = "counting semantic confusion"
    require_same_shape(what, prediction=pred_class, truth=true_class)
    require_range(f"{what}, prediction", pred_class, VOID, num_classes)
    require_range(f"{what}, truth", true_class, VOID, num_classes)
    labelled = true_class.ravel() != VOID
    true_label, pred_label = true_class.ravel()[labelled], pred_class.ravel()[labelled]
    column = np.where(pred_label == VOID, num_classes, pred_label)
    return joint_histogram(true_label, column, num_classes, num_classes + 1)


def semantic_score(confusion: NDArray[np.int64], protocol: str = "scannet_semantic") -> SemanticScore:
    """ScanNet's rule: a missing or foreign prediction is a miss of the true class and nobody's false alarm.

    The means run over classes with a non-zero denominator (accuracy: classes with truth).
    """
    num_classes = confusion.shape[0]
    true_positive = np.diagonal(confusion[:, :num_classes]).copy()
    true_count = confusion.sum(1)
    union = true_count + confusion[:, :num_classes].sum(0) - true_positive
    iou = ratio(true_positive, union, float("nan"))
    accuracy = ratio(true_positive, true_count, float("nan"))
    total = int(confusion.sum())
    return SemanticScore(
        protocol=protocol,
        miou=_mean_of_known(iou),
        macc=_mean_of_known(accuracy),
        iou=iou,
        accuracy=accuracy,
        true_positive=true_positive,
        union=union,
        confusion=confusion,
        unpredicted_share=float(confusion[:, num_classes].sum()) / total if total else float("nan"),
    )


def topk_confusion(pred_topk: IntArray, true_labels: IntArray, num_classes: int, k: int) -> NDArray[np.int64]:
    """(K, K+1) counts by ScanNet++'s rule for vertices with several true labels and ranked guesses.

    A vertex is a hit at its first guess, among the best `k`, that is one of its labels, and is recorded as that
    label twice; without a hit it is recorded as (first label, first guess). Vertices without label are left out.

    Args:
        pred_topk: (P, >=k) guesses, best first, VOID where there is none.
        true_labels: (P, L) labels, VOID where there is none.
    """
    what = "counting ScanNet++ confusion"
    if pred_topk.ndim != 2 or true_labels.ndim != 2 or len(pred_topk) != len(true_labels) or pred_topk.shape[1] < k:
        raise DataError(
            f"{what}: expected guesses (P, >={k}) and labels (P, L), got {pred_topk.shape} and {true_labels.shape}"
        )
    require_range(f"{what}, prediction", pred_topk, VOID, num_classes)
    require_range(f"{what}, truth", true_labels, VOID, num_classes)
    labelled = (true_labels != VOID).any(1)
    guesses, labels = pred_topk[labelled, :k], true_labels[labelled]
    hits = ((guesses[:, :, None] == labels[:, None, :]) & (guesses != VOID)[:, :, None]).any(2)
    first_hit = guesses[np.arange(len(guesses)), hits.argmax(1)]
    first_label = labels[np.arange(len(labels)), (labels != VOID).argmax(1)]
    is_hit = hits.any(1)
    row = np.where(is_hit, first_hit, first_label)
    column = np.where(is_hit, first_hit, guesses[:, 0])
    return joint_histogram(row, np.where(column == VOID, num_classes, column), num_classes, num_classes + 1)


def filtered_miou(pred_label: IntArray, true_label: IntArray, num_labels: int, min_share: float = 0.005) -> float:
    """Panoptic Lifting's mIoU; labels in [0, num_labels), 0 = none, deleted where it is the truth.

    Labels below `min_share` of the remaining pixels in *both* maps do not count (its PQ drops them in *either*), and
    predicted label 0 is a label like others: frequent enough, it adds an IoU of 0 to the mean.
    """
    what = "scoring filtered mIoU"
    require_same_shape(what, prediction=pred_label, truth=true_label)
    require_range(f"{what}, prediction", pred_label, 0, num_labels)
    require_range(f"{what}, truth", true_label, 0, num_labels)
    labelled = true_label.ravel() != 0
    confusion = joint_histogram(true_label.ravel()[labelled], pred_label.ravel()[labelled], num_labels, num_labels)
    total = max(int(labelled.sum()), 1)
    true_count, pred_count = confusion.sum(1), confusion.sum(0)
    counted = (true_count / total >= min_share) | (pred_count / total >= min_share)
    counted &= true_count + pred_count > 0
    true_positive = np.diagonal(confusion)
    iou = ratio(true_positive, true_count + pred_count - true_positive, 0.0)
    return float(iou[counted].mean()) if counted.any() else float("nan")


def _mean_of_known(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
