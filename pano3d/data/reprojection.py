"""Do two depth images of one scene describe the same surfaces? A wrong pose, unit or intrinsic shows here first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# At most this many pixels per pair, on a regular grid: enough for a share, and the cost no longer grows with the image.
_MAX_PIXELS = 4_000
# Four neighbours further apart than this straddle a depth edge, where no one surface can be compared.
_EDGE_RATIO = 1.1
# Two depths this close belong to the same surface when counting what both views see.
_SEEN_RATIO = 0.05


@dataclass(frozen=True)
class DepthView:
    """depth (H W) metres, 0 missing; segment_id (H W), 0 void; ambiguous (H W) glass, mirrors: not compared."""

    depth: NDArray[np.float32]
    segment_id: NDArray[np.uint16]
    ambiguous: NDArray[np.bool_] | None
    intrinsics: NDArray[np.float64]
    scan_from_camera: NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """compared: pixels where both views see the same segment, in the worse direction; disagreeing: share of them that
    the other view sees through by more than the tolerance (NaN where none); seen: share of the first view's pixels
    that the second sees too; seen_back: the other way round."""

    compared: int
    disagreeing: float
    seen: float
    seen_back: float


def compare_depth(first: DepthView, second: DepthView, tolerance: float) -> Agreement:
    """Lift the depth of each view and project it into the other.

    A pixel is compared where its four neighbours in the other view all carry its segment, are not ambiguous and lie on
    one surface. It disagrees where all four see farther than the point, through a surface that should have stopped
    them. One nearer depth may be another part of the segment that hides the point (another wall of the room, an arm of
    the chair), or the near side of a surface so slanted that many pixels of one view fall between two of the other.

    Args:
        tolerance: relative difference of depth that still agrees.
    """
    there, seen = _project_onto(first, second, tolerance)
    back, seen_back = _project_onto(second, first, tolerance)
    # A wrong pose shows in one direction only when it moves the surface along the line of sight: the worse one counts.
    off = max((there, back), key=lambda one: (float(one.mean()) if len(one) else -1.0, len(one)))
    return Agreement(len(off), float(off.mean()) if len(off) else float("nan"), seen, seen_back)


def _project_onto(first: DepthView, second: DepthView, tolerance: float) -> tuple[NDArray[np.bool_], float]:
    """Whether `second` sees through each compared pixel of `first`, and the share of `first` that `second` sees."""
    height, width = first.depth.shape
    step = max(1, round(np.sqrt(height * width / _MAX_PIXELS)))
    y, x = (grid.ravel() for grid in np.mgrid[0:height:step, 0:width:step])
    z = first.depth[y, x].astype(np.float64)
    usable = z > 0
    if first.ambiguous is not None:
        usable &= ~first.ambiguous[y, x]
    x, y, z = x[usable], y[usable], z[usable]
    if not len(z):
        return np.zeros(0, np.bool_), 0.0
    segment = first.segment_id[y, x]
    u, v, z = _project(first, second, x, y, z)
    height, width = second.depth.shape
    inside = (z > 0) & (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1)
    u, v, z, segment = u[inside], v[inside], z[inside], segment[inside]
    nearest = second.depth[np.rint(v).astype(np.intp), np.rint(u).astype(np.intp)]
    seen = float((np.abs(nearest - z) <= _SEEN_RATIO * z).sum() / len(inside))
    around, comparable = _nearest_around(second, u, v, segment)
    off = around[comparable] > (1 + tolerance) * z[comparable]
    return off, seen


def _project(
    first: DepthView, second: DepthView, x: NDArray[np.intp], y: NDArray[np.intp], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pixels (x, y) of `first` at depth z -> (u, v, depth) in `second`."""
    second_from_first = np.linalg.solve(second.scan_from_camera, first.scan_from_camera)
    turned = second.intrinsics @ second_from_first[:3, :3] @ np.linalg.inv(first.intrinsics)
    pixels = turned @ np.stack([x * z, y * z, z]) + second.intrinsics @ second_from_first[:3, 3:]
    depth = pixels[2]
    in_front = np.where(depth > 0, depth, np.nan)
    return pixels[0] / in_front, pixels[1] / in_front, depth


def _nearest_around(
    view: DepthView, u: NDArray[np.float64], v: NDArray[np.float64], segment: NDArray[np.uint16]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Nearest depth of the four pixels of `view` around (u, v), and where they can be compared with `segment`."""
    height, width = view.depth.shape
    left = np.minimum(np.floor(u), max(width - 2, 0)).astype(np.intp)
    top = np.minimum(np.floor(v), max(height - 2, 0)).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    corners = [(top, left), (top, right), (bottom, left), (bottom, right)]
    depths = np.stack([view.depth[corner] for corner in corners]).astype(np.float64)
    nearest, farthest = depths.min(axis=0), depths.max(axis=0)
    comparable = (segment > 0) & (nearest > 0) & (farthest <= _EDGE_RATIO * nearest)
    for corner in corners:
        comparable &= view.segment_id[corner] == segment
        if view.ambiguous is not None:
            comparable &= ~view.ambiguous[corner]
    return nearest, comparable
