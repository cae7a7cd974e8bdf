"""Rays per second of label rendering (`MeshRenderer.render`) beside Open3D's bare `cast_rays` of the same rays.

    python -m benchmarks.label_rendering [--width 640] [--height 480] [--views 40] [--spacing 0.025]

A furnished room of about ScanNet's number of triangles, whose vertices carry the ids of some thirty objects; cameras
turn in it. Ours makes the rays of each view, casts them, and gives depth and ids; the bare cast is handed its rays. One
thread each, taking turns view by view; processor seconds of this process, so that other work does not count. The time
should stay within 1.3 of the bare cast's.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import open3d
from numpy.typing import NDArray

from pano3d.data.mesh_rendering import MeshRenderer

ALLOWED = 1.3


@dataclass(frozen=True)
class LabelledMesh:
    """vertices (P 3), faces (F 3), segment_id (P,)."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    segment_id: NDArray[np.uint16]


@dataclass(frozen=True)
class Rates:
    """rays: cast by each. ours, bare: processor seconds; agree: share of rays to which both give the same depth."""

    rays: int
    ours: float
    bare: float
    agree: float

    @property
    def ratio(self) -> float:
        return self.ours / self.bare


def furnished_room(spacing: float) -> LabelledMesh:
    """Floor, ceiling, walls and thirty boxes, as uneven grids of vertices `spacing` apart, metres."""
    generator = np.random.default_rng(0)
    boxes = [((0.0, 6.0), (0.0, 5.0), (0.0, 2.5))]
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


def rays_per_second(mesh: LabelledMesh, views: int, width: int, height: int) -> Rates:
    """Both, in turn, over the same views."""
    tensor: Any = open3d.core.Tensor
    bare_scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    bare_scene.add_triangles(tensor(mesh.vertices), tensor(mesh.faces.astype(np.uint32)))
    renderer = MeshRenderer(mesh.vertices, mesh.faces, mesh.segment_id)
    focal = 0.9 * width
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    y, x = np.mgrid[0:height, 0:width]
    camera_rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ np.linalg.inv(intrinsics).T
    poses = camera_poses(views)
    renderer.render(intrinsics, poses[0], width, height)  # both scenes build their trees at the first ray
    bare_scene.cast_rays(tensor(np.zeros((1, 6), np.float32)), nthreads=1)
    ours, bare, same = 0.0, 0.0, 0
    for pose in poses:
        directions = camera_rays @ pose[:3, :3].T
        rays = tensor(
            np.concatenate([np.broadcast_to(pose[:3, 3], directions.shape), directions], 1).astype(np.float32)
        )
        start = time.process_time()
        hits = bare_scene.cast_rays(rays, nthreads=1)
        middle = time.process_time()
        rendering = renderer.render(intrinsics, pose, width, height)
        ours, bare = ours + time.process_time() - middle, bare + middle - start
        depth = hits["t_hit"].numpy().reshape(height, width)
        same += int(np.isclose(np.where(np.isfinite(depth), depth, 0), rendering.depth, atol=1e-4).sum())
    return Rates(views * width * height, ours, bare, same / (views * width * height))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--views", type=int, default=40)
    parser.add_argument("--spacing", type=float, default=0.025, help="metres between vertices")
    chosen = parser.parse_args()
    mesh = furnished_room(chosen.spacing)
    rates = rays_per_second(mesh, chosen.views, chosen.width, chosen.height)
    print(f"{len(mesh.faces)} triangles, {chosen.views} views of {chosen.width}x{chosen.height}, one thread")
    print(
        f"labels and depth {rates.rays / rates.ours / 1e6:.2f} million rays/s, bare cast_rays "
        f"{rates.rays / rates.bare / 1e6:.2f}; {rates.ratio:.2f} times its time (allowed {ALLOWED}); "
        f"{100 * rates.agree:.3f} % of the depths agree"
    )


if __name__ == "__main__":
    main()
