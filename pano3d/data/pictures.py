"""Encoded pictures, decoded, or known not to be any."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def decode_picture(data: bytes, flags: int) -> NDArray[Any] | None:
    """(H W) or (H W 3) in OpenCV's order of channels, by its IMREAD flags; None where the bytes are no picture, or
    claim a size that OpenCV refuses."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None
