"""A room ready for ray casting: one triangle soup with per-vertex and per-triangle attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.data.rooms.materials import KINDS, MaterialColumns
from pano3d.data.rooms.plan import RoomPlan
from pano3d.data.rooms.primitives import cross

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int32]
Rows = NDArray[np.int64] | slice


@dataclass(frozen=True)
class RoomGeometry:
    """Everything placed, in the scan frame.

    vertices, normals, local (N 3): position, shading normal, position in the object's own frame. triangles (T 3).
    Per triangle: material, object_index (position in the plan's list), face_axis (axis of the own frame closest to
    the face normal), face_normal (T 3).
    """

    vertices: FloatArray
    normals: FloatArray
    local: FloatArray
    triangles: IntArray
    material: IntArray
    object_index: IntArray
    face_axis: IntArray
    face_normal: FloatArray
    columns: MaterialColumns


def assemble(plan: RoomPlan) -> RoomGeometry:
    """Move every object to its place and join the meshes."""
    vertices, normals, local, triangles, material, owner, axis = [], [], [], [], [], [], []
    offset = 0
    for index, placed in enumerate(plan.objects):
        mesh = placed.mesh.arrays()
        pose = placed.scan_from_object
        vertices.append(_rotate(mesh.vertices, pose) + pose[:3, 3].astype(np.float32))
        normals.append(_rotate(mesh.normals, pose))
        local.append(mesh.vertices)
        triangles.append(mesh.triangles + offset)
        material.append(mesh.material)
        owner.append(np.full(len(mesh.triangles), index, np.int32))
        corner = mesh.vertices[mesh.triangles]
        axis.append(np.abs(cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])).argmax(1).astype(np.int32))
        offset += len(mesh.vertices)
    joined = np.concatenate(vertices)
    faces = np.concatenate(triangles)
    corner = joined[faces]
    normal = cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return RoomGeometry(
        joined,
        np.concatenate(normals),
        np.concatenate(local),
        faces,
        np.concatenate(material),
        np.concatenate(owner),
        np.concatenate(axis),
        normal.astype(np.float32),
        plan.style.table.columns(),
    )


def _rotate(points: FloatArray, pose: NDArray[np.float64]) -> FloatArray:
    # Written out: a matrix product may add in another order when BLAS uses other threads.
    r = pose[:3, :3].astype(np.float32)
    x, y, z = points.T
    return np.stack([r[k, 0] * x + r[k, 1] * y + r[k, 2] * z for k in range(3)], 1).astype(np.float32)


@dataclass(frozen=True)
class Hits:
    """Answers to N rays. t (N,) in units of the direction, inf on a miss; triangle (N,) int32, -1 on a miss; u, v
    barycentrics of corners 1 and 2."""

    t: FloatArray
    triangle: IntArray
    u: FloatArray
    v: FloatArray


class RayScene:
    """Ray casting on one thread: answers do not depend on the machine's core count."""

    def __init__(self, geometry: RoomGeometry, keep: NDArray[np.bool_] | None = None):
        import open3d as o3d

        # Open3D's stubs know tensors of Python lists only.
        core: Any = o3d.core
        self._tensor = core.Tensor.from_numpy  # shares the memory: rays are not copied again
        kept = np.arange(len(geometry.triangles)) if keep is None else np.flatnonzero(keep)
        self._original = np.append(kept, -1).astype(np.int32)
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(
            self._tensor(geometry.vertices), self._tensor(geometry.triangles[kept].astype(np.uint32))
        )

    def cast(self, origins: FloatArray, directions: FloatArray) -> Hits:
        rays = np.concatenate([np.broadcast_to(origins, directions.shape), directions], 1)
        answer = self._scene.cast_rays(self._tensor(rays), nthreads=1)
        uv = answer["primitive_uvs"].numpy()
        row: NDArray[np.uint32] = answer["primitive_ids"].numpy()
        # A miss comes as the largest number: clipping leads it to the -1 at the end.
        triangle: IntArray = self._original.take(row, mode="clip")
        return Hits(answer["t_hit"].numpy(), triangle, uv[:, 0], uv[:, 1])

    def is_blocked(self, origins: FloatArray, directions: FloatArray, far: float = float("inf")) -> NDArray[np.bool_]:
        """Whether something lies between `origin + 0` and `origin + far * direction`."""
        rays = np.concatenate([np.broadcast_to(origins, directions.shape), directions], 1)
        return self._scene.test_occlusions(self._tensor(rays), tnear=0.0, tfar=far, nthreads=1).numpy()

    def distance(self, points: FloatArray) -> FloatArray:
        """(N,) metres from points to the nearest surface."""
        return self._scene.compute_distance(self._tensor(points), nthreads=1).numpy()


def ray_scenes(geometry: RoomGeometry) -> tuple[RayScene, RayScene]:
    """`full`: what a camera meets first. `opaque`: without panes and lamp shades, for light and what lies behind."""
    is_clear = (geometry.columns.kind == KINDS.index("glass")) | (geometry.columns.emission > 1)
    return RayScene(geometry), RayScene(geometry, ~is_clear[geometry.material])
