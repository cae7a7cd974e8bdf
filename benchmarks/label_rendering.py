"""Rays per second of label rendering (`MeshRenderer.render`) beside Open3D's bare `cast_rays` of the same rays.

    python -m benchmarks.label_rendering [--width 640] [--height 480] [--views 40] [--spacing 0.025] [--repeats 3]

A furnished room of about ScanNet's number of triangles, whose vertices carry the ids of some thirty objects; cameras
turn in it. Ours makes the rays of each view, casts them, and gives depth and ids; the bare cast is handed its rays. One
thread each, taking turns; processor seconds of this process, so that other work does not count. The time should stay
within 1.3 of the bare cast's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import open3d
from numpy.typing import NDArray

from benchmarks.cases import ON_CPU, Case, Work, require
from pano3d.data.mesh_rendering import MeshRenderer

ALLOWED = 1.3
WIDTH, HEIGHT, SPACING = 640, 480, 0.025

Depths = list[NDArray[np.float32]]


@dataclass(frozen=True)
class LabelledMesh:
    """vertices (P 3), faces (F 3), segment_id (P,)."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    segment_id: NDArray[np.uint16]


def cases(full: bool) -> list[Case]:
    """The bare cast stands where others have a twin: a ratio of 0.77 or more is within what is allowed."""
    views = 40 if full else 10
    name = f"labels and depth {WIDTH}x{HEIGHT}"
    return [Case(name, partial(prepare, views), unit="view", clock="cpu", devices=ON_CPU, counts=False)]


def prepare(views: int, device: str) -> Work:
    ours, bare = both_ways(furnished_room(SPACING), views, WIDTH, HEIGHT)

    def check(ours: Depths, bare: Depths) -> None:
        share = agreement(ours, bare)
        require(share > 0.9999, f"{100 * share:.3f} % of the depths are those of the bare cast; expected 99.99")

    return Work(ours, check, bare, units=views, figures=lambda: {"million rays per call": views * WIDTH * HEIGHT / 1e6})


def furnished_room(spacing: float) -> LabelledMesh:
    """Floor, ceiling, walls and thirty boxes, as uneven grids of vertices `spacing` apart, metres."""
    generator = np.random.default_rng(0)
    boxes: list[tuple[tuple[float, float], ...]] = [((0.0, 6.0), (0.0, 5.0), (0.0, 2.5))]
    for _ in range(30):
        low, size = generator.uniform((0.2, 0.2, 0.0), (5.0, 4.2, 0.3)), generator.uniform(0.2, 0.8, 3)
        boxes.append(tuple((float(a), float(a + b)) for a, b in zip(low, size, strict=True)))
    vertices, faces, ids, start = [], [], [], 0
    for number, box in enumerate(boxes):
        for axis in range(3):
            for side in range(2):
                a, b = (other for other in range(3) if other != axis)
                u, v = (np.arange(box[one][0], box[one][1] + spacing / 2, spacing) for one in (a, b))
                if min(len(u), len(v)) < 2:
                    continue
                grid = np.zeros((len(u), len(v), 3))
                grid[..., a], grid[..., b], grid[..., axis] = u[:, None], v[None], box[axis][side]
                grid += generator.normal(0, spacing / 10, grid.shape)
                index = start + np.arange(len(u) * len(v)).reshape(len(u), len(v))
                quads = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
                faces += [quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]
                vertices.append(grid.reshape(-1, 3))
                # The shell's six sides are six objects; a stripe of each side belongs to nobody.
                own = np.full(index.size, 1 + number if number else 40 + 2 * axis + side, np.uint16)
                own[: len(own) // 10] = 0
                ids.append(own)
                start += index.size
    return LabelledMesh(
        np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.int32), np.concatenate(ids)
    )


def camera_poses(views: int) -> list[NDArray[np.float64]]:
    """scan_from_camera of upright cameras in the middle of the room, turning once."""
    poses = []
    for turn in np.linspace(0, 2 * np.pi, views, endpoint=False):
        forward = np.array([np.cos(turn), np.sin(turn), -0.25])
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = 3.0, 2.5, 1.5
        poses.append(pose)
    return poses


def both_ways(
    mesh: LabelledMesh, views: int, width: int, height: int
) -> tuple[Callable[[], Depths], Callable[[], Depths]]:
    """Depth and labels of all views, and the bare cast of their rays; both give the depths."""
    tensor: Any = open3d.core.Tensor
    bare_scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    bare_scene.add_triangles(tensor(mesh.vertices), tensor(mesh.faces.astype(np.uint32)))
    renderer = MeshRenderer(mesh.vertices, mesh.faces, mesh.segment_id)
    focal = 0.9 * width
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    y, x = np.mgrid[0:height, 0:width]
    camera_rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ np.linalg.inv(intrinsics).T
    poses, rays = camera_poses(views), []
    for pose in poses:
        directions = camera_rays @ pose[:3, :3].T
        origins = np.broadcast_to(pose[:3, 3], directions.shape)
        rays.append(tensor(np.concatenate([origins, directions], 1).astype(np.float32)))

    def ours() -> Depths:
        return [renderer.render(intrinsics, pose, width, height).depth for pose in poses]

    def bare() -> Depths:
        return [bare_scene.cast_rays(each, nthreads=1)["t_hit"].numpy().reshape(height, width) for each in rays]

    return ours, bare


def agreement(ours: Depths, bare: Depths) -> float:
    """Share of the rays to which both give the same depth; no hit is 0 in ours, infinite in the bare cast's."""
    same = [np.isclose(np.where(np.isfinite(b), b, 0), a, atol=1e-4) for a, b in zip(ours, bare, strict=True)]
    return float(np.mean(same))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--height", type=int, default=HEIGHT)
    parser.add_argument("--views", type=int, default=40)
    parser.add_argument("--spacing", type=float, default=SPACING, help="metres between vertices")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    mesh = furnished_room(chosen.spacing)
    ways = both_ways(mesh, chosen.views, chosen.width, chosen.height)
    agree = agreement(*(way() for way in ways))  # the trees are built at the first ray
    seconds = [0.0, 0.0]
    for _ in range(chosen.repeats):
        for number, way in enumerate(ways):
            start = time.process_time()
            way()
            seconds[number] += time.process_time() - start
    ours, bare = (chosen.repeats * chosen.views * chosen.width * chosen.height / each / 1e6 for each in seconds)
    print(f"{len(mesh.faces)} triangles, {chosen.views} views of {chosen.width}x{chosen.height}, one thread")
    print(
        f"labels and depth {ours:.2f} million rays/s, bare cast_rays {bare:.2f}; {bare / ours:.2f} times its time "
        f"(allowed {ALLOWED}); {100 * agree:.3f} % of the depths agree"
    )


if __name__ == "__main__":
    main()
