"""Triangle meshes of furniture, assembled from boxes, cushions, lathes, tubes and sheets in an object's own frame.

The own frame of a piece: x to its right, y to its front, z up, metres; the footprint is centred on the origin and
the piece stands on z = 0. A vertex keeps that position for solid textures, wherever the piece is placed later.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
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


@lru_cache(maxsize=1024)
def _box_grid(
    cells: tuple[int, int, int],
) -> tuple[FloatArray, NDArray[np.bool_], FloatArray, NDArray[np.int32]]:
    """Steps from the low corner, which coordinates are exactly the high corner's, normals (N 3), and triangles (T 3)
    of a box whose edges are cut into `cells`."""
    steps, is_high, normals, triangles = [], [], [], []
    count = 0
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        shape = (2, cells[v] + 1, cells[u] + 1, 3)
        grid = _grid_triangles(*shape[1:3])
        step, top, normal = np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, np.float32)
        step[..., u] = np.arange(shape[2])
        step[..., v] = np.arange(shape[1])[:, None]
        top[1, ..., axis] = True
        normal[0, ..., axis], normal[1, ..., axis] = -1, 1
        half = shape[1] * shape[2]
        steps.append(step.reshape(-1, 3))
        is_high.append(top.reshape(-1, 3))
        normals.append(normal.reshape(-1, 3))
        triangles += [grid[:, ::-1] + count, grid + (count + half)]
        count += 2 * half
    return np.concatenate(steps), np.concatenate(is_high), np.concatenate(normals), np.concatenate(triangles)


@cache
def _rounded_cube(steps: int) -> tuple[FloatArray, FloatArray, NDArray[np.int32]]:
    """Place on the inner box in [-1, 1], normals (N 3) and triangles (T 3) of a cube with rounded edges."""
    middle = np.linspace(-1, 1, steps)
    # Two narrow strips at each border carry the rounding.
    ramp = np.concatenate([[-1.3, -1.12], middle, [1.12, 1.3]])
    grid = _grid_triangles(len(ramp), len(ramp))
    inners: list[FloatArray] = []
    normals, triangles = [], []
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
            triangles.append((grid if sign > 0 else grid[:, ::-1]) + len(flat) * len(inners))
            inners.append(inner)
            normals.append(normal)
    return np.concatenate(inners), np.concatenate(normals), np.concatenate(triangles)


def _slope(points: FloatArray) -> FloatArray:
    """Central differences along the first axis, one-sided at the ends."""
    ahead = points[1:] - points[:-1]
    return np.concatenate([ahead[:1], (points[2:] - points[:-2]) / 2, ahead[-1:]])


class ObjectMesh:
    """A mesh under construction. `cell` bounds the edge length of flat faces, since light is kept per vertex."""

    def __init__(self, cell: float = 0.18):
        self.cell = cell
        self._vertices: list[FloatArray] = []
        self._normals: list[FloatArray] = []
        self._triangles: list[NDArray[np.int32]] = []
        self._material: list[NDArray[np.int32]] = []
        self._count = 0
        self._bounds: list[tuple[FloatArray, FloatArray]] = []

    def add(self, vertices: NDArray[Any], normals: NDArray[Any], triangles: NDArray[np.int32], material: int) -> None:
        """Append a part. Triangles without area (poles of lathes) are dropped, and all are turned to their normals."""
        # Coordinate by coordinate: numpy is slow at sums over three numbers.
        first, second, third = triangles.T
        corner = vertices.take(first, axis=0)
        x, y, z = cross(vertices.take(second, axis=0) - corner, vertices.take(third, axis=0) - corner).T
        a, b, c = (normals.take(first, axis=0) + normals.take(second, axis=0) + normals.take(third, axis=0)).T
        is_reversed = x * a + y * b + z * c < 0
        has_area = (np.abs(x) > 1e-10) | (np.abs(y) > 1e-10) | (np.abs(z) > 1e-10)
        triangles = np.where(is_reversed[:, None], triangles[:, ::-1], triangles)[has_area]
        self._append(vertices, normals, triangles, material)

    def _append(
        self, vertices: NDArray[Any], normals: NDArray[Any], triangles: NDArray[np.int32], material: int
    ) -> None:
        self._vertices.append(vertices.astype(np.float32))
        self._normals.append(normals.astype(np.float32))
        self._triangles.append((triangles + self._count).astype(np.int32))
        self._material.append(np.full(len(triangles), material, np.int32))
        self._count += len(vertices)

    def stretch(self, x: float, y: float, z: float) -> None:
        """Scale what has been added along the axes; normals stay perpendicular."""
        scale = np.array([x, y, z], np.float32)
        self._vertices = [part * scale for part in self._vertices]
        self._normals = [part / scale for part in self._normals]
        self._normals = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9) for part in self._normals]
        self._bounds = []

    def arrays(self) -> MeshArrays:
        return MeshArrays(
            np.concatenate(self._vertices),
            np.concatenate(self._normals),
            np.concatenate(self._triangles),
            np.concatenate(self._material),
        )

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest corner of what has been added."""
        self._bounds += [(part.min(0), part.max(0)) for part in self._vertices[len(self._bounds) :]]
        lowest, highest = zip(*self._bounds)
        return np.min(lowest, axis=0), np.max(highest, axis=0)

    def box(self, x: Interval, y: Interval, z: Interval, material: int, cell: float | None = None) -> None:
        """An axis-aligned box with flat faces."""
        low = np.array([x[0], y[0], z[0]], np.float64)
        high = np.array([x[1], y[1], z[1]], np.float64)
        cells = np.clip(np.ceil((high - low) / (cell or self.cell)), 1, _MAX_CELLS).astype(int)
        steps, is_high, normals, triangles = _box_grid((int(cells[0]), int(cells[1]), int(cells[2])))
        self._append(np.where(is_high, high, low + (high - low) * steps / cells), normals, triangles, material)

    def cushion(
        self, x: Interval, y: Interval, z: Interval, material: int, radius: float = 0.05, steps: int = 5
    ) -> None:
        """A box with rounded edges: a subdivided cube clamped to an inner box plus radius times the normal."""
        low = np.array([x[0], y[0], z[0]])
        high = np.array([x[1], y[1], z[1]])
        radius = min(radius, float((high - low).min()) / 2 * 0.98)
        centre, half = (low + high) / 2, (high - low) / 2 - radius
        inner, normal, triangles = _rounded_cube(steps)
        self.add(centre + inner * half + normal * radius, normal, triangles, material)

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
        strips = [points] if smooth else [points[start : start + 2] for start in range(len(points) - 1)]
        angle = np.linspace(0, 2 * np.pi, segments + 1)
        circle = np.stack([np.cos(angle), np.sin(angle)], 1)
        vertices, normals, triangles = [], [], []
        count = 0
        for strip in strips:
            tangent = _slope(strip)
            normal = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
            normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
            ring = np.empty((2, len(strip), segments + 1, 3))
            ring[0, ..., :2] = strip[:, None, :1] * circle[None] * np.array(stretch) + np.array(centre)
            ring[0, ..., 2] = strip[:, None, 1]
            ring[1, ..., :2] = normal[:, None, :1] * circle[None] / np.array(stretch)
            ring[1, ..., 2] = normal[:, None, 1]
            ring[1] /= np.maximum(np.linalg.norm(ring[1], axis=-1, keepdims=True), 1e-9)
            vertices.append(ring[0].reshape(-1, 3))
            normals.append(ring[1].reshape(-1, 3))
            triangles.append(_grid_triangles(len(strip), segments + 1) + count)
            count += len(vertices[-1])
        self.add(np.concatenate(vertices), np.concatenate(normals), np.concatenate(triangles), material)

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
        tangent = _slope(line)
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
