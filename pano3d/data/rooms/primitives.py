"""Triangle meshes of furniture, assembled from boxes, cushions, lathes, tubes and sheets in an object's own frame.

The own frame of a piece: x to its right, y to its front, z up, metres; the footprint is centred on the origin and
the piece stands on z = 0. A vertex keeps that position for solid textures, wherever the piece is placed later.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
Interval = tuple[float | int, float | int]

_MAX_CELLS = 48


@dataclass(frozen=True)
class MeshArrays:
    """vertices, normals (N 3); triangles (T 3); material (T,) int32."""

    vertices: FloatArray
    normals: FloatArray
    triangles: NDArray[np.int32]
    material: NDArray[np.int32]


def cross(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Cross product of (... 3) and (... 3), bit for bit numpy's, without its checks: rooms take thousands of them."""
    result = np.empty(np.broadcast_shapes(a.shape, b.shape), np.result_type(a, b))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        result[..., i] = a[..., j] * b[..., k] - a[..., k] * b[..., j]
    return result


@cache
def _grid_triangles(rows: int, columns: int) -> NDArray[np.int32]:
    """Two triangles per cell of a (rows x columns) vertex grid, counter-clockwise in (column, row)."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None]).ravel()
    first = np.stack([corner, corner + 1, corner + columns + 1], 1)
    second = np.stack([corner, corner + columns + 1, corner + columns], 1)
    return np.concatenate([first, second]).astype(np.int32)


class ObjectMesh:
    """A mesh under construction. `cell` bounds the edge length of flat faces, since light is kept per vertex."""

    def __init__(self, cell: float = 0.18):
        self.cell = cell
        self._vertices: list[FloatArray] = []
        self._normals: list[FloatArray] = []
        self._triangles: list[NDArray[np.int32]] = []
        self._material: list[NDArray[np.int32]] = []
        self._count = 0

    def add(self, vertices: NDArray[Any], normals: NDArray[Any], triangles: NDArray[np.int32], material: int) -> None:
        """Append a part. Triangles without area (poles of lathes) are dropped, and all are turned to their normals."""
        corners = vertices[triangles]
        area = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        is_reversed = (area * normals[triangles].sum(1)).sum(1) < 0
        triangles = np.where(is_reversed[:, None], triangles[:, ::-1], triangles)[np.abs(area).max(1) > 1e-10]
        self._append(vertices, normals, triangles, material)

    def _append(
        self, vertices: NDArray[Any], normals: NDArray[Any], triangles: NDArray[np.int32], material: int
    ) -> None:
        self._vertices.append(vertices.astype(np.float32))
        self._normals.append(normals.astype(np.float32))
        self._triangles.append((triangles + self._count).astype(np.int32))
        self._material.append(np.full(len(triangles), material, np.int32))
        self._count += len(vertices)

    def arrays(self) -> MeshArrays:
        return MeshArrays(
            np.concatenate(self._vertices),
            np.concatenate(self._normals),
            np.concatenate(self._triangles),
            np.concatenate(self._material),
        )

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest corner of what has been added."""
        vertices = np.concatenate(self._vertices)
        return vertices.min(0), vertices.max(0)

    def box(self, x: Interval, y: Interval, z: Interval, material: int, cell: float | None = None) -> None:
        """An axis-aligned box with flat faces."""
        low = np.array([x[0], y[0], z[0]], np.float64)
        high = np.array([x[1], y[1], z[1]], np.float64)
        cells = np.clip(np.ceil((high - low) / (cell or self.cell)), 1, _MAX_CELLS).astype(int)
        vertices, normals, triangles = [], [], []
        count = 0
        for axis in range(3):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            across = low[u] + (high[u] - low[u]) * np.arange(cells[u] + 1) / cells[u]
            along = low[v] + (high[v] - low[v]) * np.arange(cells[v] + 1) / cells[v]
            grid = _grid_triangles(len(along), len(across))
            points = np.empty((2, len(along), len(across), 3))
            points[0, ..., axis], points[1, ..., axis] = low[axis], high[axis]
            points[..., u] = across
            points[..., v] = along[:, None]
            normal = np.zeros(points.shape)
            normal[0, ..., axis], normal[1, ..., axis] = -1, 1
            half = len(along) * len(across)
            vertices.append(points.reshape(-1, 3))
            normals.append(normal.reshape(-1, 3))
            triangles += [grid[:, ::-1] + count, grid + (count + half)]
            count += 2 * half
        self._append(np.concatenate(vertices), np.concatenate(normals), np.concatenate(triangles), material)

    def cushion(
        self, x: Interval, y: Interval, z: Interval, material: int, radius: float = 0.05, steps: int = 5
    ) -> None:
        """A box with rounded edges: a subdivided cube clamped to an inner box plus radius times the normal."""
        low = np.array([x[0], y[0], z[0]])
        high = np.array([x[1], y[1], z[1]])
        radius = min(radius, float((high - low).min()) / 2 * 0.98)
        middle = np.linspace(-1, 1, steps)
        # Two narrow strips at each border carry the rounding.
        ramp = np.concatenate([[-1.3, -1.12], middle, [1.12, 1.3]])
        centre, half = (low + high) / 2, (high - low) / 2 - radius
        for axis in range(3):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            for sign in (-1.0, 1.0):
                cube = np.empty((len(ramp), len(ramp), 3))
                cube[..., axis] = sign * 1.3
                cube[..., u] = ramp[None]
                cube[..., v] = ramp[:, None]
                flat = cube.reshape(-1, 3)
                inner = np.clip(flat, -1, 1)
                normal = flat - inner
                normal /= np.linalg.norm(normal, axis=1, keepdims=True)
                triangles = _grid_triangles(len(ramp), len(ramp))
                self.add(
                    centre + inner * half + normal * radius,
                    normal,
                    triangles if sign > 0 else triangles[:, ::-1],
                    material,
                )

    def lathe(
        self,
        profile: list[Interval],
        material: int,
        centre: Interval = (0.0, 0.0),
        segments: int = 20,
        stretch: Interval = (1.0, 1.0),
        smooth: bool = True,
    ) -> None:
        """A surface of revolution about z: (radius, height) pairs outside to the right of the way up."""
        points = np.array(profile, np.float64)
        if smooth:
            self._lathe_strip(points, material, centre, segments, stretch)
            return
        for start in range(len(points) - 1):
            self._lathe_strip(points[start : start + 2], material, centre, segments, stretch)

    def _lathe_strip(
        self,
        points: NDArray[Any],
        material: int,
        centre: Interval,
        segments: int,
        stretch: Interval,
    ) -> None:
        angle = np.linspace(0, 2 * np.pi, segments + 1)
        tangent = np.gradient(points, axis=0)
        normal = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        circle = np.stack([np.cos(angle), np.sin(angle)], 1)
        shape = (len(points), segments + 1, 3)
        vertices, normals = np.empty(shape), np.empty(shape)
        vertices[..., :2] = points[:, None, :1] * circle[None] * np.array(stretch) + np.array(centre)
        vertices[..., 2] = points[:, None, 1]
        normals[..., :2] = normal[:, None, :1] * circle[None] / np.array(stretch)
        normals[..., 2] = normal[:, None, 1]
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        self.add(vertices.reshape(-1, 3), normals.reshape(-1, 3), _grid_triangles(*shape[:2]), material)

    def cylinder(
        self,
        centre: Interval,
        radius: float,
        z: Interval,
        material: int,
        segments: int = 14,
        top: float | None = None,
    ) -> None:
        """A closed upright cylinder, or a cone to radius `top`."""
        upper = radius if top is None else top
        profile = [(0.0, z[0]), (radius, z[0]), (upper, z[1]), (0.0, z[1])]
        self.lathe(profile, material, centre, segments, smooth=False)

    def tube(
        self,
        points: list[tuple[float | int, float | int, float | int]],
        radius: float,
        material: int,
        segments: int = 6,
    ) -> None:
        """A pipe along a polyline."""
        line = np.array(points, np.float64)
        tangent = np.gradient(line, axis=0)
        tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
        helper = np.where(np.abs(tangent[:, 2:]) < 0.9, np.array([[0.0, 0, 1]]), np.array([[1.0, 0, 0]]))
        side = cross(tangent, helper)
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        other = cross(tangent, side)
        angle = np.linspace(0, 2 * np.pi, segments + 1)
        normal = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * other[:, None]
        vertices = line[:, None] + radius * normal
        self.add(vertices.reshape(-1, 3), normal.reshape(-1, 3), _grid_triangles(len(line), segments + 1), material)

    def sheet(self, points: NDArray[Any], material: int, thickness: float = 0.008) -> None:
        """A thin cloth through a (rows, columns, 3) grid, seen and lit from both sides."""
        rows, columns = points.shape[:2]
        normal = cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        triangles = _grid_triangles(rows, columns)
        for sign in (1.0, -1.0):
            vertices = points + sign * normal * thickness / 2
            faces = triangles if sign > 0 else triangles[:, ::-1]
            self.add(vertices.reshape(-1, 3), (sign * normal).reshape(-1, 3), faces, material)

    def pane(self, x: Interval, y: float, z: Interval, material: int) -> None:
        """One upright quad facing the front (+y): glass and mirrors."""
        points = np.array([[x[0], y, z[0]], [x[1], y, z[0]], [x[1], y, z[1]], [x[0], y, z[1]]])
        triangles = np.array([[0, 2, 1], [0, 3, 2]], np.int32)
        self.add(points, np.tile([0.0, 1.0, 0.0], (4, 1)), triangles, material)

    def legs(self, x: Interval, y: Interval, z: Interval, width: float, material: int, is_round: bool = False) -> None:
        """Four legs at the corners of a rectangle."""
        for cx in (x[0] + width / 2, x[1] - width / 2):
            for cy in (y[0] + width / 2, y[1] - width / 2):
                if is_round:
                    self.cylinder((cx, cy), width / 2, z, material, 8, top=width / 2 * 1.2)
                else:
                    self.box((cx - width / 2, cx + width / 2), (cy - width / 2, cy + width / 2), z, material)
