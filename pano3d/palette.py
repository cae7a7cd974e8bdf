"""The colour of a segment, the same in every picture, file and viewer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VOID_COLOR = (40, 40, 44)
"""Of pixels without segment or class."""


def segment_colors(segment_id: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(..., 3): a colour per id that neighbours in number do not share.

    Hues step by the golden ratio, lightness by thirds.
    """
    ids = segment_id.astype(np.int64)
    hue = (ids * 0.61803398875) % 1
    value, saturation = 0.95 - 0.2 * (ids % 3) / 2, 0.45 + 0.35 * (ids // 3 % 2)
    sector = (hue[..., None] * 6 + np.array([0, 4, 2])) % 6
    ramp = np.clip(np.abs(sector - 3) - 1, 0, 1)
    rgb = 255 * value[..., None] * (1 - saturation[..., None] * (1 - ramp))
    return np.where(ids[..., None] == 0, VOID_COLOR, np.rint(rgb)).astype(np.uint8)
