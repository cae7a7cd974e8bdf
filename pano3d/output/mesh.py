"""A scene as GLB: one node per object, named, in its colour shaded by the photos, and one for what has no label."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from pano3d.files import write_whole
from pano3d.palette import segment_colors
from pano3d.types import PanopticScene

DEPTH_STEP = 0.15
"""Neighbouring pixels whose depths differ by more than this share do not lie on one surface."""


def write_glb(scene: PanopticScene, is_kept: Bool[np.ndarray, "v h w"], path: Path) -> None:
    """Triangles between neighbouring pixels of one view and one segment; y up, as glTF wants it.

    Args:
        is_kept: pixels that are sure enough; those without a finite point or in front of no camera are left out too.
    """
    import trimesh

    usable = is_kept & np.isfinite(scene.points_world).all(-1) & (scene.depth > 0)
    triangles = grid_triangles(scene, usable)
    points, photos = scene.points_world.reshape(-1, 3), scene.colors.reshape(-1, 3)
    owner = scene.segment_id.ravel()[triangles[:, 0]]
    world = trimesh.Scene()
    gltf_from_world = np.diag([1.0, -1.0, -1.0, 1.0])
    named = [(0, "unlabelled"), *((segment.id, f"{segment.class_name} {segment.id}") for segment in scene.segments)]
    for segment_id, name in named:
        own = triangles[owner == segment_id]
        if not len(own):
            continue
        used, index = np.unique(own, return_inverse=True)
        shade = photos[used].mean(1, keepdims=True) / 255
        color = photos[used] if segment_id == 0 else segment_colors(np.array(segment_id)) * (0.35 + 0.65 * shade)
        rgba = np.concatenate([color, np.full((len(used), 1), 255)], axis=1).round().astype(np.uint8)
        mesh = trimesh.Trimesh(points[used], index.reshape(-1, 3), vertex_colors=rgba, process=False)
        world.add_geometry(mesh, node_name=name, geom_name=name, transform=gltf_from_world)
    write_whole(path, bytes(world.export(file_type="glb")) if world.geometry else _empty_glb())


def _empty_glb() -> bytes:
    """A valid file without a mesh, which trimesh does not write: no pixel was sure enough."""
    content = json.dumps({"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"name": "empty"}]}).encode()
    content += b" " * (-len(content) % 4)
    chunk = struct.pack("<II", len(content), 0x4E4F534A) + content
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunk)) + chunk


def grid_triangles(scene: PanopticScene, usable: NDArray[np.bool_]) -> Int[np.ndarray, "n 3"]:
    """Flat pixel numbers of two triangles per 2x2 block whose corners are usable, of one segment and close in depth."""
    views, height, width = scene.segment_id.shape
    number = np.arange(views * height * width).reshape(views, height, width)

    def corners(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.stack([values[:, :-1, :-1], values[:, :-1, 1:], values[:, 1:, :-1], values[:, 1:, 1:]])

    ids, depth = corners(scene.segment_id), corners(np.where(usable, scene.depth, 1))
    whole = corners(usable).all(0) & (ids == ids[:1]).all(0) & (depth.max(0) < depth.min(0) * (1 + DEPTH_STEP))
    top_left, top_right, bottom_left, bottom_right = corners(number)[:, whole]
    # Anticlockwise as the camera sees them, once y points up.
    upper = np.stack([top_left, bottom_left, top_right], axis=1)
    lower = np.stack([top_right, bottom_left, bottom_right], axis=1)
    return np.concatenate([upper, lower])
