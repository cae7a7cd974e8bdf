"""Which views of a scene go into one sample: a set connected by measured overlap, as MUSt3R trains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pano3d.types import DataError


def sample_connected_views(
    overlap: NDArray[np.float16], count: int, generator: np.random.Generator, minimum_overlap: float = 0.2
) -> NDArray[np.int64]:
    """Draw `count` distinct views in which each one after the first overlaps an earlier one.

    Start anywhere, then add views uniformly from the union of the neighbours of those chosen so far. Where a
    scene's graph falls into pieces, the best connected remaining view is taken; where it has fewer views than
    asked for, views repeat.

    Args:
        overlap: (V, V) share of pixels of view i seen in view j; two views are neighbours if both directions'
            smaller share reaches `minimum_overlap`.
        count: views wanted, at least 1.

    Raises:
        DataError: the scene has no views.

    Source: MUSt3R's view sampling with a precomputed pair graph.
    """
    total = len(overlap)
    if total == 0 or count < 1:
        raise DataError(f"sampling {count} views from a scene with {total}: both must be at least 1")
    mutual = np.minimum(overlap, overlap.T).astype(np.float32)
    chosen = [int(generator.integers(total))]
    reachable = mutual[chosen[0]].copy()
    reachable[chosen[0]] = -1.0
    while len(chosen) < min(count, total):
        candidates = np.flatnonzero(reachable >= minimum_overlap)
        view = int(generator.choice(candidates)) if len(candidates) else int(np.argmax(reachable))
        chosen.append(view)
        reachable = np.maximum(reachable, mutual[view])
        reachable[chosen] = -1.0
    repeats = [chosen[i % total] for i in range(total, count)]
    return np.array(chosen + repeats, np.int64)


def spread_views(total: int, count: int) -> NDArray[np.int64]:
    """`count` views spread evenly over a sequence of `total` (all of them where there are fewer): for evaluation."""
    if total == 0 or count < 1:
        raise DataError(f"choosing {count} views from a scene with {total}: both must be at least 1")
    return np.unique(np.round(np.linspace(0, total - 1, min(count, total))).astype(np.int64))
