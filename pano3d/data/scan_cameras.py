"""Cameras of scans: images brought to the archive's size, and sensor depth brought into the colour camera."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Size = tuple[int, int]


def fitted_size(size: Size, max_side: int) -> Size:
    """(width, height) with the longer side at most `max_side`; never enlarged."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resized_intrinsics(intrinsics: FloatArray, source: Size, target: Size) -> FloatArray:
    """(3 3) of an image resized from `source` to `target`. Pixel centres are integers, so it is edges that scale."""
    scaled = np.asarray(intrinsics, np.float64)[:3, :3].copy()
    for axis in range(2):
        scale = target[axis] / source[axis]
        scaled[axis] *= scale
        scaled[axis, 2] = (intrinsics[axis, 2] + 0.5) * scale - 0.5
    return scaled


def nearest_pixels(source: Size, target: Size) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows (H 1) and columns (1 W) of `source` whose pixels lie nearest the pixels of `target`."""
    columns, rows = (
        np.minimum(((np.arange(target[axis]) + 0.5) * source[axis] / target[axis]).astype(np.intp), source[axis] - 1)
        for axis in range(2)
    )
    return rows[:, None], columns[None]


def depth_in_camera(
    depth: NDArray[Any],
    depth_intrinsics: FloatArray,
    camera_from_depth: FloatArray,
    intrinsics: FloatArray,
    size: Size,
    unit: float = 1.0,
) -> FloatArray:
    """Sensor depth (h w), 0 missing, as another camera sees it: (H W) metres of `size` = (W, H), 0 missing.

    unit: metres of 1 in `depth`.

    Values are never averaged. Where both cameras share centre and axes, as in ScanNet, each pixel takes the nearest
    sample of its ray; otherwise samples are carried over as points, the nearest of those that fall on a pixel wins, and
    pixels between them stay missing.
    """
    width, height = size
    if np.allclose(camera_from_depth, np.eye(4), atol=1e-6):
        columns = _line(intrinsics, depth_intrinsics, 0, width)
        rows = _line(intrinsics, depth_intrinsics, 1, height)
        known_x, known_y = (columns >= 0) & (columns < depth.shape[1]), (rows >= 0) & (rows < depth.shape[0])
        target = np.zeros((height, width))
        # Both are runs of neighbours: taken row by row, and converted once, where they land.
        samples = depth.take(rows[known_y], axis=0).take(columns[known_x], axis=1)
        target[np.ix_(known_y, known_x)] = samples
        target *= unit
        return target
    v, u = np.nonzero(depth > 0)
    z = depth[v, u] * unit
    k = depth_intrinsics
    points = np.stack([(u - k[0, 2]) / k[0, 0] * z, (v - k[1, 2]) / k[1, 1] * z, z])
    points = camera_from_depth[:3, :3] @ points + camera_from_depth[:3, 3:]
    points = points[:, points[2] > 0]
    x = np.rint(intrinsics[0, 0] * points[0] / points[2] + intrinsics[0, 2])
    y = np.rint(intrinsics[1, 1] * points[1] / points[2] + intrinsics[1, 2])
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    nearest = np.full((height, width), np.inf)
    np.minimum.at(nearest, (y[inside].astype(np.intp), x[inside].astype(np.intp)), points[2, inside])
    return np.where(np.isfinite(nearest), nearest, 0.0)


def _line(intrinsics: FloatArray, other: FloatArray, axis: int, count: int) -> NDArray[np.intp]:
    """Pixel of the other camera nearest the ray of each of `count` pixels along one axis."""
    ray = (np.arange(count) - intrinsics[axis, 2]) / intrinsics[axis, axis]
    return np.rint(other[axis, axis] * ray + other[axis, 2]).astype(np.intp)


def measure_overlap(
    depth_mm: NDArray[np.uint16], intrinsics: FloatArray, scan_from_camera: FloatArray, grid: int = 24
) -> NDArray[np.float16]:
    """(V V) share of view i's valid depth pixels that land in view j where it has a depth within 5 % of theirs.

    Args:
        depth_mm: (V H W), 0 missing. intrinsics: (V 3 3). scan_from_camera: (V 4 4), metres.
        grid: about this many pixels per row and column of a view are tested.
    """
    count, height, width = depth_mm.shape
    rows, columns = (
        np.unique(np.linspace(0, size - 1, min(size, grid)).round()).astype(int) for size in (height, width)
    )
    v, u = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    rotation, position = scan_from_camera[:, :3, :3], scan_from_camera[:, :3, 3]
    views = np.arange(count)[:, None]
    overlap = np.eye(count)
    for i in range(count):
        z = depth_mm[i, v, u] / 1000.0
        x, y, z = (axis[z > 0] for axis in (u, v, z))
        if not len(z):
            continue
        k = intrinsics[i]
        rays = np.stack([(x - k[0, 2]) / k[0, 0] * z, (y - k[1, 2]) / k[1, 1] * z, z], axis=1)
        points = rays @ rotation[i].T + position[i]
        # Transposed rotations applied from the right: camera_j = R_j^T (p - t_j).
        seen_from = (points[None] - position[:, None]) @ rotation
        ahead = np.maximum(seen_from[..., 2], 1e-6)
        column = np.rint(intrinsics[:, None, 0, 0] * seen_from[..., 0] / ahead + intrinsics[:, None, 0, 2])
        row = np.rint(intrinsics[:, None, 1, 1] * seen_from[..., 1] / ahead + intrinsics[:, None, 1, 2])
        inside = (seen_from[..., 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        safe_row, safe_column = np.where(inside, row, 0).astype(np.intp), np.where(inside, column, 0).astype(np.intp)
        there = depth_mm[views, safe_row, safe_column] / 1000.0
        overlap[i] = (inside & (there > 0) & (np.abs(there - ahead) < 0.05 * ahead)).mean(axis=1)
        overlap[i, i] = 1.0
    return overlap.astype(np.float16)
