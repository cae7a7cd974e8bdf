"""Two rooms joined by a doorway, made of axis-parallel rectangles: exact pictures by arithmetic, and a scan mesh.

The pictures are cast without Open3D and without the mesh, so that they can judge what is rendered from the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Patch:
    """A rectangle: constant on `axis`, between low and high (3,) elsewhere."""

    axis: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    thing: int


@dataclass(frozen=True)
class Thing:
    """One object of the building; label None: nobody annotated it."""

    label: str | None
    color: tuple[int, int, int]


THINGS = [
    Thing("floor", (150, 110, 70)),
    Thing("ceiling", (235, 235, 235)),
    Thing("wall", (200, 190, 170)),
    Thing("wall", (170, 190, 200)),
    Thing("door", (120, 70, 30)),
    Thing("chair", (200, 40, 40)),
    Thing("office chair", (40, 40, 200)),
    Thing("table", (90, 140, 60)),
    Thing("bed", (220, 160, 210)),
    Thing("pillow", (250, 250, 160)),
    Thing(None, (20, 220, 220)),
]
BED, PILLOW = 8, 9


def _wall(axis: int, at: float, across: tuple[float, float], z: tuple[float, float], thing: int) -> Patch:
    low, high = np.zeros(3), np.zeros(3)
    low[axis] = high[axis] = at
    other = 1 - axis
    low[other], high[other] = across
    low[2], high[2] = z
    return Patch(axis, low, high, thing)


def _slab(x: tuple[float, float], y: tuple[float, float], z: float, thing: int) -> Patch:
    return Patch(2, np.array([x[0], y[0], z]), np.array([x[1], y[1], z]), thing)


def _box(box: Box, thing: int) -> list[Patch]:
    """Top and four sides: undersides were never scanned."""
    x, y, z = box
    sides = [_wall(0, at, y, z, thing) for at in x] + [_wall(1, at, x, z, thing) for at in y]
    return [_slab(x, y, z[1], thing), *sides]


def building(shift: float = 0.0) -> list[Patch]:
    """6 x 3 x 2.4 m; `shift` moves the furniture, so that scenes differ."""
    full = (0.0, 2.4)
    patches = [_slab((0, 6), (0, 3), 0.0, 0), _slab((0, 6), (0, 3), 2.4, 1)]
    patches += [_wall(1, 0, (0, 6), full, 2), _wall(1, 3, (0, 6), full, 2), _wall(0, 0, (0, 3), full, 2)]
    patches += [_wall(0, 6, (0, 3), full, 2)]
    # The wall between the rooms: a doorway from y = 1.1 to 2.0.
    patches += [_wall(0, 3.0, (0, 1.1), full, 3), _wall(0, 3.0, (2.0, 3), full, 3)]
    patches += [_wall(0, 3.0, (1.1, 2.0), (2.0, 2.4), 3)]
    patches += [_wall(1, 2.06, (3.02, 3.8), (0.02, 2.0), 4)]
    patches += _box(((0.9 + shift, 1.3 + shift), (0.5, 0.9), (0.0, 0.5)), 5)
    patches += _box(((1.0 + shift, 1.4 + shift), (2.2, 2.6), (0.0, 0.6)), 6)
    patches += _box(((1.7, 2.5), (0.9, 1.9), (0.0, 0.72)), 7)
    patches += _box(((4.4 - shift, 5.8 - shift), (0.4, 2.2), (0.0, 0.45)), 8)
    patches += _box(((5.3 - shift, 5.7 - shift), (0.7, 1.4), (0.45, 0.6)), 9)
    patches += _box(((4.6, 4.9), (2.5, 2.8), (0.0, 0.9)), 10)
    return patches


def look_at(eye: tuple[float, float, float], target: tuple[float, float, float]) -> NDArray[np.float64]:
    """scan_from_camera of an upright OpenCV camera."""
    position = np.array(eye)
    forward = np.array(target) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, position
    return pose


def cast(
    patches: list[Patch], pose: NDArray[np.float64], rays: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Depth along the optical axis (inf where nothing) and patch (-1) of camera rays (... 3) whose last entry is 1."""
    directions, eye = rays @ pose[:3, :3].T, pose[:3, 3]
    depth, nearest = np.full(rays.shape[:-1], np.inf), np.full(rays.shape[:-1], -1)
    for number, patch in enumerate(patches):
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (patch.low[patch.axis] - eye[patch.axis]) / directions[..., patch.axis]
            hit = eye + t[..., None] * directions
        others = [axis for axis in range(3) if axis != patch.axis]
        inside = (t > 1e-6) & (t < depth)
        for axis in others:
            inside &= (hit[..., axis] >= patch.low[axis]) & (hit[..., axis] <= patch.high[axis])
        depth[inside], nearest[inside] = t[inside], number
    return depth, nearest


def pinhole_rays(intrinsics: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """(H W 3) rays of pixel centres at integers."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    k = intrinsics
    return np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], axis=-1)


def paint(
    patches: list[Patch], pose: NDArray[np.float64], rays: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]:
    """RGB (H W 3), depth (H W) and thing (H W), -1 where nothing. A soft pattern on surfaces keeps JPEG honest."""
    depth, nearest = cast(patches, pose, rays)
    things = np.array([patch.thing for patch in patches] + [-1])[nearest]
    colors = np.array([thing.color for thing in THINGS] + [(0, 0, 0)], np.float64)[things]
    points = pose[:3, 3] + np.where(np.isfinite(depth), depth, 0)[..., None] * (rays @ pose[:3, :3].T)
    pattern = 1 + 0.15 * np.sin(7 * points).sum(axis=-1)
    return np.clip(colors * pattern[..., None], 0, 255).astype(np.uint8), depth, things


@dataclass(frozen=True)
class BuildingMesh:
    """vertices (P 3) float32, faces (F 3), colors (P 3), and the patch and thing of each vertex (P,)."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colors: NDArray[np.uint8]
    patch: NDArray[np.int64]
    thing: NDArray[np.int64]


def mesh_of(patches: list[Patch], spacing: float = 0.15) -> BuildingMesh:
    """Every patch its own grid of vertices."""
    vertices, faces, owners = [], [], []
    start = 0
    for number, patch in enumerate(patches):
        a, b = (axis for axis in range(3) if axis != patch.axis)
        counts = [max(2, int(np.ceil((patch.high[axis] - patch.low[axis]) / spacing)) + 1) for axis in (a, b)]
        u, v = (np.linspace(patch.low[axis], patch.high[axis], n) for axis, n in zip((a, b), counts, strict=True))
        grid = np.zeros((counts[0], counts[1], 3))
        grid[..., a], grid[..., b], grid[..., patch.axis] = u[:, None], v[None], patch.low[patch.axis]
        index = start + np.arange(counts[0] * counts[1]).reshape(counts)
        corners = [index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]]
        quads = np.stack(corners, axis=-1).reshape(-1, 4)
        faces += [quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]
        vertices.append(grid.reshape(-1, 3))
        owners.append(np.full(index.size, number))
        start += index.size
    patch = np.concatenate(owners)
    thing = np.array([one.thing for one in patches])[patch]
    colors = np.array([one.color for one in THINGS], np.uint8)[thing]
    points = np.concatenate(vertices).astype(np.float32)
    return BuildingMesh(points, np.concatenate(faces).astype(np.int32), colors, patch, thing)


POSES = [
    look_at((0.4, 0.4, 1.5), (2.2, 1.9, 0.5)),
    look_at((0.5, 1.5, 1.5), (2.4, 1.4, 0.6)),
    look_at((0.6, 2.5, 1.5), (1.9, 0.7, 0.5)),
    look_at((2.7, 2.5, 1.6), (0.9, 0.7, 0.4)),
    look_at((3.3, 0.4, 1.5), (5.3, 1.7, 0.4)),
    look_at((3.5, 0.6, 1.6), (5.5, 1.2, 0.5)),
    look_at((3.4, 1.4, 1.6), (5.2, 1.3, 0.3)),
    look_at((5.5, 2.7, 1.6), (4.3, 0.8, 0.4)),
]
"""Ways to look into both rooms; neighbours overlap."""
