"""A geometrically true scene for tests: a box on the floor of an empty room, cast analytically."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pano3d.data.archive import Frame, SceneContent, SceneSegment, Surface

ROOM = np.array([[0.0, 0.0, 0.0], [4.0, 3.0, 2.5]])
BOX = np.array([[2.4, 1.0, 0.0], [3.2, 2.0, 0.7]])
WALL, FLOOR, BOX_ID = 1, 2, 3


def look_at(eye: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """scan_from_camera of an upright OpenCV camera; z of `scan` points up."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, eye
    return pose


def cast(
    intrinsics: NDArray[np.float64], pose: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.uint16]]:
    """Depth in metres and segment id of each pixel."""
    y, x = np.mgrid[0:height, 0:width]
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(intrinsics).T @ pose[:3, :3].T
    eye = pose[:3, 3]
    far = np.where(rays > 0, (ROOM[1] - eye) / rays, (ROOM[0] - eye) / rays)
    depth, axis = far.min(axis=-1), far.argmin(axis=-1)
    segment = np.where((axis == 2) & (rays[..., 2] < 0), FLOOR, WALL)
    near, away = (BOX[0] - eye) / rays, (BOX[1] - eye) / rays
    entry, leave = np.minimum(near, away).max(axis=-1), np.maximum(near, away).min(axis=-1)
    hit = (entry > 0) & (entry <= leave)
    return np.where(hit, entry, depth), np.where(hit, BOX_ID, segment).astype(np.uint16)


def make_box_room(
    name: str = "room0000", views: int = 4, seed: int = 0, height: int = 48, width: int = 64
) -> SceneContent:
    """Views along a short walk; `seed` (below 150) tints the colours, so that no two scenes share a picture."""
    intrinsics = np.array([[0.8 * width, 0, (width - 1) / 2], [0, 0.8 * width, (height - 1) / 2], [0, 0, 1]])
    frames = []
    for index in range(views):
        eye = np.array([0.5 + 0.15 * index, 0.6 + 0.005 * seed, 1.4])
        pose = look_at(eye, np.array([3.0, 1.6, 0.5]))
        depth, segment = cast(intrinsics, pose, height, width)
        points = (depth[..., None] * np.array([1.0, 0.7, 0.4]) * 60 + seed).astype(np.uint8)
        millimetres = np.rint(depth * 1000).astype(np.uint16)
        sensed = millimetres.copy()
        sensed[: height // 8] = 0
        frames.append(
            Frame(
                name=f"{index:06d}",
                color=points,
                depth_mm=sensed,
                segment_id=segment,
                intrinsics=intrinsics,
                scan_from_camera=pose,
                depth_exact_mm=millimetres,
                ambiguous=np.zeros((height, width), bool),
                shadow=np.zeros((height, width), bool),
            )
        )
    generator = np.random.default_rng(seed)
    xyz = generator.uniform(ROOM[0], ROOM[1], (200, 3)).astype(np.float32)
    xyz[:, 2] = 0
    return SceneContent(
        name=name,
        dataset="boxes",
        label_space="scannet20",
        frames=frames,
        segments=[
            SceneSegment(WALL, "wall", "wall", False),
            SceneSegment(FLOOR, "floor", "floor", False),
            SceneSegment(BOX_ID, "table", "table", True),
            SceneSegment(9, None, "lamp", True),
        ],
        surface=Surface(xyz, np.full(200, FLOOR, np.uint16)),
        overlap=overlap_of(frames),
        license="Apache-2.0",
        provenance={"seed": seed},
    )


def overlap_of(frames: list[Frame]) -> NDArray[np.float16]:
    """(V V) share of the pixels of view i seen in view j, by a plain loop over nearest pixels."""
    overlap = np.ones((len(frames), len(frames)))
    for i, first in enumerate(frames):
        for j, second in enumerate(frames):
            height, width = first.segment_id.shape
            y, x = np.mgrid[0:height, 0:width]
            assert first.depth_exact_mm is not None
            assert second.depth_exact_mm is not None
            depth = first.depth_exact_mm / 1000
            camera = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(first.intrinsics).T * depth[..., None]
            scan = camera @ first.scan_from_camera[:3, :3].T + first.scan_from_camera[:3, 3]
            other = np.linalg.inv(second.scan_from_camera)
            pixels = (scan @ other[:3, :3].T + other[:3, 3]) @ second.intrinsics.T
            u, v = np.rint(pixels[..., 0] / pixels[..., 2]), np.rint(pixels[..., 1] / pixels[..., 2])
            inside = (pixels[..., 2] > 0) & (u >= 0) & (v >= 0) & (u < width) & (v < height)
            column, row = u[inside].astype(int), v[inside].astype(int)
            reached = second.depth_exact_mm[row, column] / 1000
            overlap[i, j] = (np.abs(reached / pixels[..., 2][inside] - 1) < 0.05).sum() / inside.size
    return overlap.astype(np.float16)
