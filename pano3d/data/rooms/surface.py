"""What the cameras saw together: overlap of views and evaluation points on seen surfaces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pano3d.data.rooms.cameras import Camera
from pano3d.data.rooms.primitives import cross
from pano3d.data.rooms.scene import RoomGeometry

FloatArray = NDArray[np.floating]

_DEPTH_TOLERANCE = 0.03
_OVERLAP_GRID = 24  # pixels of a view tested per row, for the overlap


def _seen(points: NDArray[np.float64], cameras: Sequence[Camera], depths: FloatArray) -> NDArray[np.bool_]:
    """(V N) which (N 3) scan points lie on the surface that each camera sees; depths (V H W) metres. The cameras share
    their intrinsics."""
    poses = np.stack([camera.scan_from_camera for camera in cameras])[..., None]
    a, b, c = (points[:, k] - poses[:, k, 3] for k in range(3))
    x, y, z = (a * poses[:, 0, k] + b * poses[:, 1, k] + c * poses[:, 2, k] for k in range(3))
    k = cameras[0].intrinsics
    height, width = depths.shape[1:]
    safe = np.maximum(z, 1e-6)
    column = np.rint(k[0, 0] * x / safe + k[0, 2])
    row = np.rint(k[1, 1] * y / safe + k[1, 2])
    result = (z > 0.05) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    view, point = np.nonzero(result)
    safe = safe[view, point]
    surface = depths[view, row[view, point].astype(int), column[view, point].astype(int)]
    # A pixel covers a patch: on slanted surfaces its centre may lie behind or before the point.
    patch = 1.5 * safe / k[0, 0]
    result[view, point] = np.abs(surface - safe) < _DEPTH_TOLERANCE * safe + patch
    return result


def measure_overlap(cameras: list[Camera], depths: list[FloatArray]) -> NDArray[np.float16]:
    """(V V) share of the pixels of view i seen in view j, on a grid of pixels with a surface."""
    count = len(cameras)
    overlap = np.eye(count)
    stacked = np.stack(depths)
    for i, (camera, depth) in enumerate(zip(cameras, depths, strict=True)):
        step = max(1, camera.width // _OVERLAP_GRID)
        v, u = np.mgrid[step // 2 : camera.height : step, step // 2 : camera.width : step]
        z = depth[v, u].astype(np.float64)
        keep = np.isfinite(z)
        u, v, z = u[keep], v[keep], z[keep]
        k = camera.intrinsics
        points = np.stack([(u - k[0, 2]) / k[0, 0] * z, (v - k[1, 2]) / k[1, 1] * z, z], 1)
        r, t = camera.scan_from_camera[:3, :3], camera.scan_from_camera[:3, 3]
        points = (
            np.stack([points[:, 0] * r[a, 0] + points[:, 1] * r[a, 1] + points[:, 2] * r[a, 2] for a in range(3)], 1)
            + t
        )
        if len(points):
            others = np.arange(count) != i
            overlap[i, others] = _seen(points, cameras, stacked).mean(1)[others]
    return overlap.astype(np.float16)


def sample_surface(
    geometry: RoomGeometry,
    seen_triangles: NDArray[np.int64],
    cameras: list[Camera],
    depths: list[FloatArray],
    spacing: float,
    generator: Generator,
) -> tuple[FloatArray, NDArray[np.int32]]:
    """Points about `spacing` metres apart on surfaces that at least one camera saw.

    Returns:
        xyz (P 3) in the scan frame and the object index (P,).
    """
    corners = geometry.vertices[geometry.triangles[seen_triangles]].astype(np.float64)
    area = np.linalg.norm(cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    # Round up or down at random, so that small faces get their share.
    wanted = np.floor(area / spacing**2 + generator.random(len(area))).astype(int)
    face = np.repeat(np.arange(len(area)), wanted)
    a, b = generator.random((2, len(face)))
    fold = a + b > 1
    a, b = np.where(fold, 1 - a, a)[:, None], np.where(fold, 1 - b, b)[:, None]
    corner = corners[face]
    points = corner[:, 0] + a * (corner[:, 1] - corner[:, 0]) + b * (corner[:, 2] - corner[:, 0])
    visible = np.zeros(len(points), bool)
    for camera, depth in zip(cameras, depths, strict=True):
        open_rows = np.flatnonzero(~visible)
        visible[open_rows] = _seen(points[open_rows], [camera], depth[None])[0]
    return points[visible].astype(np.float32), geometry.object_index[seen_triangles][face[visible]]
