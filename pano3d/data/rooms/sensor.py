"""What a structured-light sensor makes of exact depth: holes, shadows beside edges, noise that grows with distance."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, minimum_filter, zoom

from pano3d.data.rooms.textures import hash_unit

FloatArray = NDArray[np.floating]

MAX_RANGE = 8.0
_GRAZING = 0.12


def to_millimetres(depth: FloatArray) -> NDArray[np.uint16]:
    """Depth in metres, inf or beyond the 16 bits becoming 0."""
    millimetres = np.where(np.isfinite(depth), depth, 0) * np.float32(1000)
    return np.where(millimetres < 65535, np.rint(millimetres), 0).astype(np.uint16)


def sense_depth(
    exact: FloatArray,
    behind: FloatArray,
    is_pane: NDArray[np.bool_],
    is_mirror: NDArray[np.bool_],
    is_dark_gloss: NDArray[np.bool_],
    facing: FloatArray,
    generator: Generator,
) -> NDArray[np.uint16]:
    """Sensor depth of one frame.

    Args:
        exact: (H W) metres to the first surface, pane and mirror included.
        behind: (H W) metres to what lies behind a pane, or to the virtual picture in a mirror; inf elsewhere or in
            the open.
        is_pane, is_mirror, is_dark_gloss: (H W) kinds of surface that cheat the sensor.
        facing: (H W) |cosine| between ray and normal.
        generator: of the frame; the same number of draws whatever the picture shows.

    Returns:
        (H W) uint16 millimetres, 0 missing.
    """
    height, width = exact.shape
    mood = generator.random(3)
    coarse = generator.standard_normal((6, 8))
    blotch = zoom(coarse, (height / 6, width / 8), order=1, mode="nearest", grid_mode=True)[:height, :width]
    grain = generator.standard_normal((height, width))
    depth = exact.copy()
    # Panes: mostly nothing, sometimes the pane, sometimes what lies behind it.
    through = np.where(behind < MAX_RANGE, behind, 0)
    if mood[0] < 0.6:
        depth = np.where(is_pane, np.where(blotch > 1.0, through, 0), depth)
    elif mood[0] < 0.85:
        depth = np.where(is_pane, through, depth)
    depth = np.where(is_mirror, through if mood[1] < 0.6 else 0, depth)
    lost = facing < _GRAZING
    lost |= is_dark_gloss & (blotch > (-0.3 if mood[2] < 0.5 else 0.6))
    # The projector sits beside the camera: a strip left of each near edge stays dark.
    shift = max(1, round(width * 0.012))
    nearest = minimum_filter(exact, size=(1, 2 * shift + 1))
    lost |= (exact - nearest) > (0.04 + 0.03 * exact)
    lost |= ~np.isfinite(exact)
    safe = np.where(np.isfinite(depth), depth, 0)
    sigma = 0.0012 + 0.0019 * np.square(np.maximum(safe - 0.4, 0))
    # Neighbours share their error, as windows of a matcher do.
    error = gaussian_filter(grain, 0.6, mode="nearest") * 1.9
    lost |= (safe <= 0.25) | (safe > MAX_RANGE) | (hash_unit_noise(height, width, int(mood[2] * 65535)) < 0.01)
    return np.where(lost, 0, to_millimetres((safe + sigma * error).astype(np.float32))).astype(np.uint16)


def hash_unit_noise(height: int, width: int, seed: int) -> FloatArray:
    """(H W) uniform numbers in [0, 1) that depend on the pixel and the seed alone."""
    i, j = np.meshgrid(np.arange(height, dtype=np.int32), np.arange(width, dtype=np.int32), indexing="ij")
    return hash_unit(i, j, seed)
