"""Point-map errors: accuracy, completeness, normal consistency, completion ratio, F-score. Distances in metres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pano3d.geometry.alignment import nearest_points
from pano3d.metrics.counting import FloatArray


@dataclass(frozen=True)
class PointScore:
    """One cloud against another.

    accuracy, completeness: mean distance predicted -> nearest true point, and true -> nearest predicted; chamfer:
    their mean.
    nc1, nc2: mean absolute cosine of normals from the predicted and the true side, NaN without normals; nc: their mean.
    completion_ratio: share of true points with a predicted one strictly closer than 0.05 m.
    """

    accuracy: float
    accuracy_median: float
    completeness: float
    completeness_median: float
    chamfer: float
    nc1: float
    nc1_median: float
    nc2: float
    nc2_median: float
    nc: float
    completion_ratio: float
    num_pred: int
    num_true: int


@dataclass(frozen=True)
class FScore:
    """Shares of predicted and of true points strictly closer than `threshold` metres, and their harmonic mean."""

    threshold: float
    precision: float
    recall: float
    fscore: float


def point_score(
    pred: FloatArray,
    true: FloatArray,
    pred_normals: FloatArray | None = None,
    true_normals: FloatArray | None = None,
    completion_threshold: float = 0.05,
) -> PointScore:
    """Score a predicted cloud (P, 3) that is already aligned against the true cloud (N, 3); all NaN if one is empty.

    Normals (P, 3) and (N, 3) are unit vectors whose sign is free.
    """
    nan = float("nan")
    if len(pred) == 0 or len(true) == 0:
        return PointScore(nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, len(pred), len(true))
    to_true, true_index = nearest_points(pred, true)
    to_pred, pred_index = nearest_points(true, pred)
    cosine_pred = cosine_true = np.array([nan])
    if pred_normals is not None and true_normals is not None:
        cosine_pred = np.abs((pred_normals * true_normals[true_index]).sum(1))
        cosine_true = np.abs((true_normals * pred_normals[pred_index]).sum(1))
    accuracy, completeness = float(to_true.mean()), float(to_pred.mean())
    nc1, nc2 = float(cosine_pred.mean()), float(cosine_true.mean())
    return PointScore(
        accuracy=accuracy,
        accuracy_median=float(np.median(to_true)),
        completeness=completeness,
        completeness_median=float(np.median(to_pred)),
        chamfer=(accuracy + completeness) / 2,
        nc1=nc1,
        nc1_median=float(np.median(cosine_pred)),
        nc2=nc2,
        nc2_median=float(np.median(cosine_true)),
        nc=(nc1 + nc2) / 2,
        completion_ratio=float((to_pred < completion_threshold).mean()),
        num_pred=len(pred),
        num_true=len(true),
    )


def f_scores(pred: FloatArray, true: FloatArray, thresholds: Sequence[float]) -> list[FScore]:
    """F-score at each threshold in metres; 0 if precision and recall are both 0, NaN if a cloud is empty."""
    if len(pred) == 0 or len(true) == 0:
        return [FScore(threshold, float("nan"), float("nan"), float("nan")) for threshold in thresholds]
    to_true, _ = nearest_points(pred, true)
    to_pred, _ = nearest_points(true, pred)
    scores = []
    for threshold in thresholds:
        precision, recall = float((to_true < threshold).mean()), float((to_pred < threshold).mean())
        total = precision + recall
        scores.append(FScore(threshold, precision, recall, 2 * precision * recall / total if total else 0.0))
    return scores


def median_norm_scale(pred: FloatArray, true: FloatArray) -> float:
    """Scale by which predicted points (P, 3) match the true ones (N, 3), both in the first camera's frame."""
    if len(pred) == 0 or len(true) == 0:
        return float("nan")
    predicted = float(np.median(np.linalg.norm(pred, axis=1)))
    return float(np.median(np.linalg.norm(true, axis=1))) / predicted if predicted else float("nan")
