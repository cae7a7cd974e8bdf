"""The image size that released Pi3 weights expect."""

from __future__ import annotations

import math

from pano3d.types import DataError

PIXEL_LIMIT = 255_000


def pi3_image_size(width: int, height: int, pixel_limit: int = PIXEL_LIMIT, multiple: int = 14) -> tuple[int, int]:
    """(width, height) to resize photos to: multiples of `multiple`, about `pixel_limit` pixels and never more.

    Small photos are enlarged. All photos of a call take the size of the first one.

    Raises:
        DataError: a side is not positive, or the photo is too narrow to keep one patch across.
    """
    if width < 1 or height < 1:
        raise DataError(f"choosing an image size: expected positive sides, got {width} x {height}")
    scale = math.sqrt(pixel_limit / (width * height))
    columns, rows = round(width * scale / multiple), round(height * scale / multiple)
    while columns * multiple * rows * multiple > pixel_limit:
        if columns / rows > width / height:
            columns -= 1
        else:
            rows -= 1
    if columns < 1 or rows < 1:
        raise DataError(
            f"choosing an image size: {width} x {height} leaves less than one {multiple} pixel patch; crop the photo"
        )
    return columns * multiple, rows * multiple
