"""Labels and depth of a scan's mesh as a camera sees them, by ray casting: one ray a pixel, the first surface wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rendering:
    """depth (H W) float32 metres along the optical axis, 0 where no surface; segment_id (H W) uint16, 0 where none."""

    depth: NDArray[np.float32]
    segment_id: NDArray[np.uint16]


class MeshRenderer:
    """A mesh whose vertices carry segment ids.

    A pixel takes the id of the vertex nearest to where its ray meets the triangle (largest barycentric weight), so that
    ids are never blended and the same surface point has the same id in every view. What a nearer surface hides is not
    seen: unlabelled geometry hides labelled geometry too.
    """

    def __init__(self, vertices: NDArray[np.float32], faces: NDArray[np.int32], segment_id: NDArray[np.uint16]):
        """vertices (P 3) metres in `scan`; faces (F 3); segment_id (P,)."""
        import open3d

        tensor: Any = open3d.core.Tensor
        self._tensor = tensor
        # One thread: scenes are prepared side by side.
        self._scene = open3d.t.geometry.RaycastingScene(nthreads=1)
        if len(faces):
            self._scene.add_triangles(
                self._tensor(np.ascontiguousarray(vertices, np.float32)),
                self._tensor(np.ascontiguousarray(faces, np.uint32)),
            )
        self._corners = segment_id[faces].astype(np.uint16)
        self._first = np.append(self._corners[:, 0], np.uint16(0)) if len(faces) else np.zeros(1, np.uint16)
        self._is_mixed = np.append((self._corners != self._corners[:, :1]).any(axis=1), False) if len(faces) else None
        self._rays: NDArray[np.float32] = np.zeros((0, 0, 6), np.float32)

    def _cast(
        self, intrinsics: NDArray[np.float64], scan_from_camera: NDArray[np.float64], width: int, height: int
    ) -> Any:
        """Open3D's hits of one ray a pixel. Directions have length 1 along the axis, so that distance is depth."""
        if self._rays.shape[:2] != (height, width):
            self._rays = np.empty((height, width, 6), np.float32)
        # R K^-1 (x, y, 1) is a sum of what the column and what the row gives: one addition a number, where a matrix
        # product of a few columns would wake all of BLAS' threads for nothing.
        by_x, by_y, constant = (scan_from_camera[:3, :3] @ np.linalg.inv(intrinsics)).T
        columns = (np.arange(width)[:, None] * by_x).astype(np.float32)
        rows = (np.arange(height)[:, None] * by_y + constant).astype(np.float32)
        self._rays[..., :3] = scan_from_camera[:3, 3]
        np.add(rows[:, None], columns[None], out=self._rays[..., 3:])
        return self._scene.cast_rays(self._tensor(self._rays.reshape(-1, 6)), nthreads=1)

    def render(
        self,
        intrinsics: NDArray[np.float64],
        scan_from_camera: NDArray[np.float64],
        width: int,
        height: int,
        far: float = np.inf,
    ) -> Rendering:
        """One view.

        Args:
            intrinsics: (3 3) pixels, pixel centres at integers. scan_from_camera: (4 4).
            far: metres; surfaces beyond are not seen.
        """
        if self._is_mixed is None:
            return Rendering(np.zeros((height, width), np.float32), np.zeros((height, width), np.uint16))
        hits = self._cast(intrinsics, scan_from_camera, width, height)
        depth = hits["t_hit"].numpy()
        triangle = hits["primitive_ids"].numpy()
        seen = depth <= min(far, float(np.finfo(np.float32).max))
        triangle = np.where(seen, triangle, len(self._first) - 1)
        segment = self._first[triangle]
        mixed = np.flatnonzero(self._is_mixed[triangle])
        if len(mixed):
            second, third = hits["primitive_uvs"].numpy()[mixed].T
            corner = np.argmax([1 - second - third, second, third], axis=0)
            segment[mixed] = self._corners[triangle[mixed], corner]
        shape = (height, width)
        return Rendering(np.where(seen, depth, np.float32(0)).reshape(shape), segment.reshape(shape))


def drop_small(segment_id: NDArray[np.uint16], minimum_pixels: int) -> NDArray[np.uint16]:
    """Segments that cover fewer pixels of this view become void in it."""
    counts = np.bincount(segment_id.ravel(), minlength=65536)
    keep = counts >= minimum_pixels
    keep[0] = True
    return np.where(keep[segment_id], segment_id, 0).astype(np.uint16)
