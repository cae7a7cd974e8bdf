"""Depth errors after one of four alignments. Depth along the optical axis, metres; truth <= 0 is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pano3d.metrics.counting import BoolArray, FloatArray, require_same_shape

DepthAlignment = Literal["metric", "median", "scale_l1", "scale_shift"]


@dataclass(frozen=True)
class DepthScore:
    """Errors over all valid pixels; NaN without any.

    delta: share of pixels with max(p/g, g/p) below 1.25, 1.25^2, 1.25^3 (strictly). inlier_103: the same below 1.03.
    scale, shift: what the alignment applied to the prediction.
    """

    alignment: DepthAlignment
    abs_rel: float
    sq_rel: float
    rmse: float
    log_rmse: float
    delta: tuple[float, float, float]
    inlier_103: float
    valid_pixels: int
    scale: float
    shift: float


def align_depth(pred: FloatArray, true: FloatArray, alignment: DepthAlignment) -> tuple[float, float]:
    """(scale, shift) that carry valid predicted depths (P,) onto the true ones (P,).

    median: quotient of medians, of an even count the lower middle one. scale_l1: least absolute deviations by ten
    reweighted steps, at least 1e-3. scale_shift: least squares. A prediction
    whose median (or every value) is 0 keeps scale 1.
    """
    p, g = torch.from_numpy(pred.astype(np.float32)), torch.from_numpy(true.astype(np.float32))
    if alignment == "metric" or p.numel() == 0:
        return 1.0, 0.0
    if alignment == "median":
        predicted_median = float(p.median())  # torch's median is the lower middle one
        return (float(g.median()) / predicted_median if predicted_median else 1.0), 0.0
    if alignment == "scale_shift":
        design = np.stack([pred, np.ones_like(pred)], 1).astype(np.float64)
        (scale, shift), *_ = np.linalg.lstsq(design, true.astype(np.float64), rcond=None)
        return float(scale), float(shift)
    if not bool((p != 0).any()):
        return 1.0, 0.0
    # In single precision, as the public script: near a tie the steps wander, and the tenth depends on rounding.
    factor = g.mean() / p.mean()
    for _ in range(10):
        weight = 1 / ((factor * p - g).abs() + 1e-8)
        factor = (weight * p * g).sum() / (weight * p**2).sum()
    return max(float(factor), 1e-3), 0.0


def depth_score(
    pred: FloatArray,
    true: FloatArray,
    alignment: DepthAlignment,
    max_depth: float | None = None,
    mask: BoolArray | None = None,
) -> DepthScore:
    """Align over all valid pixels of the arrays (a whole video at once, unless called per frame), then score.

    Args:
        pred, true: any one shape, metres (prediction: up to what the alignment mends).
        max_depth: truth at or beyond it is not valid.
        mask: same shape; restricts the score, not the alignment, which sees every valid pixel.

    Raises:
        DataError: shapes differ.
    """
    require_same_shape("scoring depth", prediction=pred, truth=true, **({} if mask is None else {"mask": mask}))
    valid = true > 0
    if max_depth is not None:
        valid &= true < max_depth
    scale, shift = align_depth(pred[valid], true[valid], alignment)
    scored = valid if mask is None else valid & mask
    p, g = pred[scored].astype(np.float64) * scale + shift, true[scored].astype(np.float64)
    if p.size == 0:
        nan = float("nan")
        return DepthScore(alignment, nan, nan, nan, nan, (nan, nan, nan), nan, 0, scale, shift)
    error = p - g
    worst = _worst_ratio(p, g)
    log_error = np.log(np.maximum(p, 1e-5)) - np.log(g)
    return DepthScore(
        alignment=alignment,
        abs_rel=float((np.abs(error) / g).mean()),
        sq_rel=float((error**2 / g).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        log_rmse=float(np.sqrt((log_error**2).mean())),
        delta=(float((worst < 1.25).mean()), float((worst < 1.25**2).mean()), float((worst < 1.25**3).mean())),
        inlier_103=float((worst < 1.03).mean()),
        valid_pixels=p.size,
        scale=scale,
        shift=shift,
    )


def _worst_ratio(p: NDArray[np.float64], g: NDArray[np.float64]) -> NDArray[np.float64]:
    """max(p/g, g/p), infinite where the prediction is not positive: that is never an inlier."""
    positive = p > 0
    inverse = np.divide(g, p, out=np.full_like(g, np.inf), where=positive)
    return np.maximum(p / g, inverse)
