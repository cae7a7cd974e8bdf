"""How confidence changes when segmentation is trained along: joint model against the frozen baseline (and a control).

There is no public reference for these numbers; this file is the definition. Confidences of two models are never
compared raw: each map is replaced by its rank among all pixels of the scene (0 = least sure, 1 = surest), so that the
mean of a map is 1/2 whatever its scale, and a change says where sureness *moved*. Within one backbone only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.geometry.alignment import align_similarity, apply_transform
from pano3d.metrics.counting import BoolArray, FloatArray, IntArray, require_same_shape
from pano3d.types import ConfidenceKind, DataError, DegenerateError

SILHOUETTE_WIDTH = 2
"""Pixels on each side of a border between segments that count as silhouette."""
CENTRE_SHARE = 0.1
"""Share of a segment's pixels in a view, farthest from its border, that count as its centre."""
REMOVED = np.linspace(0, 0.95, 20)
"""Shares of least confident pixels removed along a sparsification curve."""


@dataclass(frozen=True)
class ConfidenceScene:
    """One scene's numbers; NaN = undefined (an empty region, no error known).

    values: `rank_<region>_<model>`: mean rank; `normalised_<region>_<model>`: mean confidence in [0, 1];
        `change_<region>`: mean of joint minus frozen rank; `change_<region>_over_control`: of joint minus control;
        `raised_<region>`: share of pixels with a higher rank than frozen; `pixels_<region>`: share of all pixels;
        `ause_<model>`, `spearman_<model>`, `spearman_<model>_inside`, `..._outside` of ambiguous pixels: confidence
        against point error, a good confidence has an AUSE near 0 and a Spearman correlation near -1.
    curves: model -> mean error of what is left, relative to all, at `REMOVED`; `oracle_<model>` removes by true error.
    """

    name: str
    values: dict[str, float]
    curves: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class ConfidenceComparison:
    """Means over scenes with `_low` and `_high` of a 95 % bootstrap over scenes, and mean curves."""

    values: dict[str, float]
    curves: dict[str, NDArray[np.float64]]
    num_scenes: int


def confidence_rank(confidence: FloatArray) -> NDArray[np.float64]:
    """Rank among all pixels in [0, 1], same shape; ties share their mean rank.

    Raises:
        DataError: a value is not finite.
    """
    from scipy.stats import rankdata

    if not np.isfinite(confidence).all():
        raise DataError("ranking confidence: expected finite values everywhere; the model's output is damaged")
    if confidence.size < 2:
        return np.full(confidence.shape, 0.5)
    ranks: NDArray[np.float64] = (rankdata(confidence).reshape(confidence.shape) - 1) / (confidence.size - 1)
    return ranks


def normalised_confidence(confidence: FloatArray, kind: ConfidenceKind) -> NDArray[np.float64]:
    """Confidence in [0, 1): the logistic of the raw output for both backbones, as 1 + exp(raw) gives 1 - 1/c."""
    from scipy.special import expit

    if kind == "conf_logits":
        return np.asarray(expit(confidence.astype(np.float64)))
    if (confidence < 1).any():
        raise DataError("normalising confidence: expected 1 + exp(raw) >= 1; is `confidence_kind` right?")
    return np.asarray(1 - 1 / confidence.astype(np.float64))


def border_distance(segment_id: IntArray) -> NDArray[np.float64]:
    """(V, H, W) pixels to the nearest pixel that touches another segment, 0 on those; the image edge is no border.

    In a view with one segment only there is no border: infinity.
    """
    from scipy.ndimage import distance_transform_edt

    border = np.zeros(segment_id.shape, np.bool_)
    across, down = segment_id[:, :, 1:] != segment_id[:, :, :-1], segment_id[:, 1:] != segment_id[:, :-1]
    border[:, :, 1:] |= across
    border[:, :, :-1] |= across
    border[:, 1:] |= down
    border[:, :-1] |= down
    distance = np.full(segment_id.shape, np.inf)
    for view, edge in enumerate(border):
        if edge.any():
            distance[view] = distance_transform_edt(~edge)
    return distance


def silhouettes(segment_id: IntArray, width: int = SILHOUETTE_WIDTH) -> BoolArray:
    """(V, H, W) pixels within `width` of a border between segments, on either side."""
    return border_distance(segment_id) < width


def object_centres(segment_id: IntArray, share: float = CENTRE_SHARE) -> BoolArray:
    """(V, H, W) the `share` of each segment's pixels in a view that lie farthest from its border (at least one pixel).

    Unlabelled pixels (0) have no centre; neither has a segment without a border in the view.
    """
    distance = border_distance(segment_id)
    views = np.broadcast_to(np.arange(len(segment_id))[:, None, None], segment_id.shape)
    usable = (segment_id > 0) & np.isfinite(distance)
    pixel = np.flatnonzero(usable)
    keys = (views.ravel()[pixel], segment_id.ravel()[pixel].astype(np.int64))
    order = np.lexsort((-distance.ravel()[pixel], keys[1], keys[0]))
    view, segment = keys[0][order], keys[1][order]
    first = np.flatnonzero(np.append(True, (view[1:] != view[:-1]) | (segment[1:] != segment[:-1]))[: len(order)])
    size = np.diff(np.append(first, len(order)))
    position = np.arange(len(order)) - np.repeat(first, size)
    centre = np.zeros(segment_id.size, np.bool_)
    centre[pixel[order[position < np.repeat(np.ceil(share * size), size)]]] = True
    return centre.reshape(segment_id.shape)


def aligned_point_error(points: FloatArray, true: FloatArray, valid: BoolArray) -> NDArray[np.float64]:
    """(V, H, W) distance to the true point of the same pixel, metres, after Sim(3) on all valid pixels; NaN elsewhere.

    Args:
        points, true: (V, H, W, 3) in any world and in `scan`. valid: (V, H, W) where the truth is known.
    """
    require_same_shape("measuring point errors", prediction=points, truth=true)
    usable = valid & np.isfinite(points).all(-1)
    error = np.full(valid.shape, np.nan)
    try:
        true_from_pred = align_similarity(points[usable], true[usable])
    except DegenerateError:
        return error
    error[usable] = np.linalg.norm(apply_transform(true_from_pred, points[usable]) - true[usable], axis=-1)
    return error


def sparsification(score: FloatArray, error: FloatArray) -> NDArray[np.float64]:
    """Mean error of the pixels left after removing the lowest `score` first, divided by the mean of all, at `REMOVED`.

    Args:
        score, error: (P,). Pixels of equal score are removed in random order on average. NaN if all errors are 0.
    """
    if error.size == 0 or not error.mean() > 0:
        return np.full(REMOVED.size, np.nan)
    distinct, group = np.unique(score, return_inverse=True)
    count = np.bincount(group, minlength=distinct.size)
    expected = (np.bincount(group, weights=error, minlength=distinct.size) / count)[group]
    surest_first = expected[np.argsort(-score, kind="stable")]
    kept = np.maximum(np.round((1 - REMOVED) * error.size).astype(np.int64), 1)
    return np.asarray(np.cumsum(surest_first)[kept - 1] / kept / error.mean())


def ause(score: FloatArray, error: FloatArray) -> float:
    """Area between the sparsification curve of `score` and the oracle's, over removed shares 0 to 0.95; 0 is best."""
    return float(np.trapezoid(sparsification(score, error) - sparsification(-error, error), REMOVED))


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Rank correlation in [-1, 1]; NaN for fewer than two values or a constant."""
    if a.size < 2:
        return float("nan")
    x, y = confidence_rank(a) - 0.5, confidence_rank(b) - 0.5
    norm = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / norm if norm > 0 else float("nan")


def compare_scene(
    name: str,
    confidence: Mapping[str, FloatArray],
    kind: ConfidenceKind,
    error: Mapping[str, FloatArray],
    regions: Mapping[str, BoolArray],
) -> ConfidenceScene:
    """One scene's comparison.

    Args:
        confidence: (V, H, W) on the native scale, under "frozen", "joint" and, where it was trained, "control".
        error: (V, H, W) point error of the same models, metres, NaN where unknown.
        regions: (V, H, W) masks; "ambiguous" also splits the correlation with error into inside and outside.

    Raises:
        DataError: a model is missing, shapes differ or a confidence is not finite.
    """
    missing = {"frozen", "joint"} - set(confidence)
    if missing or set(error) != set(confidence):
        raise DataError(
            f"comparing confidence on {name}: expected confidence and error of frozen and joint (and control),"
            f" got {sorted(confidence)} and {sorted(error)}"
        )
    maps: dict[str, NDArray[Any]] = {f"confidence_{key}": value for key, value in confidence.items()}
    maps |= {f"error_{key}": value for key, value in error.items()} | {f"region_{key}": m for key, m in regions.items()}
    require_same_shape(f"comparing confidence on {name}", **maps)
    rank = {model: confidence_rank(value) for model, value in confidence.items()}
    normalised = {model: normalised_confidence(value, kind) for model, value in confidence.items()}
    values: dict[str, float] = {}
    for region, mask in regions.items():
        values[f"pixels_{region}"] = float(mask.mean()) if mask.size else float("nan")
        for model in confidence:
            values[f"rank_{region}_{model}"] = _mean(rank[model][mask])
            values[f"normalised_{region}_{model}"] = _mean(normalised[model][mask])
        change = rank["joint"][mask] - rank["frozen"][mask]
        values[f"change_{region}"] = _mean(change)
        values[f"raised_{region}"] = _mean(change > 0)
        if "control" in rank:
            values[f"change_{region}_over_control"] = _mean(rank["joint"][mask] - rank["control"][mask])
    curves: dict[str, NDArray[np.float64]] = {}
    for model, measured in error.items():
        known = np.isfinite(measured)
        score, miss = rank[model][known], measured[known].astype(np.float64)
        curves[model], curves[f"oracle_{model}"] = sparsification(score, miss), sparsification(-miss, miss)
        values[f"ause_{model}"] = ause(score, miss)
        values[f"spearman_{model}"] = spearman(score, miss)
        if "ambiguous" in regions:
            for part, mask in (("inside", regions["ambiguous"]), ("outside", ~regions["ambiguous"])):
                values[f"spearman_{model}_{part}"] = spearman(rank[model][known & mask], measured[known & mask])
    return ConfidenceScene(name, values, curves)


def aggregate_confidence(scenes: Sequence[ConfidenceScene], seed: int, resamples: int = 1000) -> ConfidenceComparison:
    """Means over the scenes where a number is defined, each with its bootstrap interval over scenes.

    Raises:
        DataError: there are no scenes, or they were compared with different models or regions.
    """
    if not scenes:
        raise DataError("aggregating confidence: no scenes were compared; check the split and its archives")
    names = list(scenes[0].values)
    if any(set(scene.values) != set(names) or set(scene.curves) != set(scenes[0].curves) for scene in scenes):
        raise DataError("aggregating confidence: scenes were compared with different models or regions")
    table = np.array([[scene.values[name] for name in names] for scene in scenes])
    drawn = np.random.default_rng(seed).integers(len(scenes), size=(resamples, len(scenes)))
    values: dict[str, float] = {}
    for name, column in zip(names, table.T):
        values[name] = _mean(column)
        known = ~np.isnan(column)
        count = known[drawn].sum(1)
        means = np.where(known, column, 0)[drawn].sum(1)[count > 0] / count[count > 0]
        low, high = np.percentile(means, [2.5, 97.5]) if means.size else (np.nan, np.nan)
        values[f"{name}_low"], values[f"{name}_high"] = float(low), float(high)
    curves = {
        name: np.array([_mean(point) for point in np.stack([scene.curves[name] for scene in scenes], axis=1)])
        for name in scenes[0].curves
    }
    return ConfidenceComparison(values, curves, len(scenes))


def _mean(values: NDArray[np.floating] | BoolArray) -> float:
    numbers = values.astype(np.float64)
    known = numbers[~np.isnan(numbers)]
    return float(known.mean()) if known.size else float("nan")
