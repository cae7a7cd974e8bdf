"""Colours of pictures: classes, confidence ranks, depth. All (..., 3) uint8, the same in every figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pano3d.palette import VOID_COLOR

CHANGE_LIMIT = 0.5
"""Rank change at which the difference scale saturates, the same in every figure."""


def class_colors(class_id: NDArray[np.integer], palette: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    """The label space's palette; VOID is dark."""
    table = np.array([*palette, VOID_COLOR], np.uint8)  # VOID = -1 reads the last entry
    return table[class_id]


def scale_colors(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values in [0, 1] from dark violet (0) to yellow (1), evenly light; not finite is dark grey."""
    return _mapped(values, "viridis", 0.0, 1.0)


def change_colors(change: NDArray[np.floating], limit: float = CHANGE_LIMIT) -> NDArray[np.uint8]:
    """Signed rank change from blue (less sure) over white to red (surer)."""
    return _mapped(change, "RdBu_r", -limit, limit)


def depth_colors(depth: NDArray[np.floating], near: float, far: float) -> NDArray[np.uint8]:
    """Depth from yellow (near) to dark (far); missing (0) is dark grey."""
    return _mapped(np.where(depth > 0, -depth, np.nan), "magma", -far, -near)


def _mapped(values: NDArray[np.floating], name: str, low: float, high: float) -> NDArray[np.uint8]:
    import matplotlib as mpl

    known = np.isfinite(values)
    unit = np.clip((np.where(known, values, low) - low) / max(high - low, 1e-9), 0, 1)
    rgb = np.rint(255 * np.asarray(mpl.colormaps[name](unit))[..., :3])
    return np.where(known[..., None], rgb, VOID_COLOR).astype(np.uint8)
