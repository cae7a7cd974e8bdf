"""From samples to what is reported: medians with quartiles, and growth as an exponent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """median, and the quartiles on both sides of it."""

    median: float
    low: float
    high: float
    count: int


def spread_of(samples: Sequence[float]) -> Spread:
    low, median, high = np.percentile(np.asarray(samples, np.float64), [25, 50, 75])
    return Spread(float(median), float(low), float(high), len(samples))


@dataclass(frozen=True)
class Exponent:
    """k of value = c * size**k, by least squares on logarithms over all sizes, and its standard error; `tail`: between
    the last two sizes, where fixed costs weigh least."""

    value: float
    error: float
    tail: float


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> Exponent:
    """How `values` grow with `sizes`.

    Raises:
        ValueError: fewer than three sizes, or sizes or values that have no logarithm.
    """
    if len(sizes) < 3 or len(sizes) != len(values):
        raise ValueError(f"fitting an exponent: {len(sizes)} sizes and {len(values)} values; expected three or more")
    if min(sizes) <= 0 or min(values) <= 0 or len(set(sizes)) < 2:
        raise ValueError(f"fitting an exponent: expected different, positive sizes and values, got {sizes}, {values}")
    x, y = np.log(np.asarray(sizes, np.float64)), np.log(np.asarray(values, np.float64))
    centred = x - x.mean()
    value = float(centred @ (y - y.mean()) / (centred @ centred))
    residual = y - y.mean() - value * centred
    error = float(np.sqrt(residual @ residual / (len(x) - 2) / (centred @ centred)))
    return Exponent(value, error, float((y[-1] - y[-2]) / (x[-1] - x[-2])))
