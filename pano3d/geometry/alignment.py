"""Aligning reconstructions: similarity from paired points (Umeyama), rigid refinement of unpaired ones (ICP), normals.

Everything in float64 numpy: these run once per scene, and their answers enter every table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pano3d.types import DataError, DegenerateError

Points = NDArray[np.floating]
_ROUNDING = 1e-12  # of squared lengths: what is left across a line in single precision
NEARLY_A_LINE = 0.1


def is_nearly_a_line(points: Points) -> bool:
    """Whether points (P, 3) spread across their main direction less than a tenth of what they spread along it.

    Noise of that size, which predicted cameras have, then decides how a similarity turns them about that direction.
    """
    if len(points) < 3:
        return True
    along, across, _ = np.linalg.svd(points - points.mean(0), compute_uv=False)
    return bool(across < NEARLY_A_LINE * along)


def align_similarity(
    source: Points, target: Points, with_scale: bool = True, allow_degenerate: bool = False
) -> NDArray[np.float64]:
    """Similarity (or rigid) transform that best carries `source` points onto `target` points, least squares.

    Never a mirror image: a reflected source gets the best rotation there is.

    Args:
        source, target: (P, 3) the same points in two frames.
        with_scale: False fixes the scale at 1.
        allow_degenerate: return one of the best transforms instead of raising when they are not unique.

    Returns:
        target_from_source: (4, 4) float64; its 3x3 block is scale * rotation.

    Raises:
        DataError: shapes differ or values are not finite.
        DegenerateError: fewer than three points, or all on one line (either side), so that rotation is not unique.

    Source: Umeyama 1991, eqs. 34-43.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise DataError(f"aligning points: expected two arrays (P, 3), got {source.shape} and {target.shape}")
    x, y = source.astype(np.float64), target.astype(np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("aligning points: coordinates are not finite; mask invalid points before aligning")
    if len(x) == 0:
        raise DegenerateError("aligning points: no points")
    if len(x) < 3 and not allow_degenerate:
        raise DegenerateError(f"aligning points: {len(x)} of them fix no rotation; give three or more")
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred_x, centred_y = x - mean_x, y - mean_y
    covariance = centred_y.T @ centred_x / len(x)  # eq. 38
    u, spread, vt = np.linalg.svd(covariance)
    if not allow_degenerate and spread[1] <= max(np.finfo(np.float64).eps, _ROUNDING * spread[0]):
        raise DegenerateError(
            f"aligning {len(x)} points: they lie on one line or coincide, so the rotation is not unique; "
            "use more views, or views that do not move along a line"
        )
    sign = np.ones(3)
    sign[2] = np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0  # eq. 43
    rotation = u @ np.diag(sign) @ vt  # eq. 40
    variance = (centred_x**2).sum() / len(x)
    scale = float(spread @ sign / variance) if with_scale and variance > 0 else 1.0  # eq. 42
    target_from_source = np.eye(4)
    target_from_source[:3, :3] = scale * rotation
    target_from_source[:3, 3] = mean_y - scale * rotation @ mean_x  # eq. 41
    return target_from_source


def apply_transform(target_from_source: NDArray[np.float64], points: Points) -> NDArray[np.float64]:
    """Points (..., 3) carried from `source` to `target`."""
    moved: NDArray[np.float64] = points @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    return moved


def scale_of(target_from_source: NDArray[np.float64]) -> float:
    """Scale of a similarity (4, 4): the cube root of its 3x3 block's determinant."""
    return float(np.cbrt(np.linalg.det(target_from_source[:3, :3])))


def move_cameras(
    target_from_source: NDArray[np.float64], source_from_camera: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Camera poses (V, 4, 4) expressed in `target`; rotations stay rotations although a similarity scales."""
    target_from_camera = target_from_source @ source_from_camera.astype(np.float64)
    target_from_camera[:, :3, :3] /= scale_of(target_from_source)
    return target_from_camera


def nearest_points(
    source: Points, target: Points, max_distance: float = np.inf
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance (P,) and index (P,) of the nearest target point (N, 3) of each source point (P, 3).

    Without a target within `max_distance`, also if there is no target at all: infinity and -1.

    Raises:
        DataError: coordinates are not finite.
    """
    from scipy.spatial import cKDTree

    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise DataError("searching nearest points: coordinates are not finite; mask invalid points before")
    if len(target) == 0 or len(source) == 0:
        return np.full(len(source), np.inf), np.full(len(source), -1, np.int64)
    found = cKDTree(target).query(source, distance_upper_bound=max_distance)
    distance, index = np.asarray(found[0], np.float64), np.asarray(found[1], np.int64)
    return distance, np.where(np.isfinite(distance), index, -1)


@dataclass(frozen=True)
class Registration:
    """Result of ICP. `fitness`: share of source points with a partner; `inlier_rmse`: their distance, metres."""

    target_from_source: NDArray[np.float64]
    fitness: float
    inlier_rmse: float


def register_icp(
    source: Points, target: Points, max_distance: float, max_iterations: int = 30, tolerance: float = 1e-6
) -> Registration:
    """Point-to-point ICP from identity: pair each source point with its nearest target point, align rigidly, repeat.

    Stops when fitness and RMSE both change by less than `tolerance`, the rule of Open3D.

    Args:
        source: (P, 3). target: (N, 3). max_distance: pairs farther apart are ignored, metres.

    Raises:
        DataError: a cloud is empty or not finite.

    Source: Besl and McKay 1992.
    """
    if len(source) == 0 or len(target) == 0:
        raise DataError(f"registering clouds: expected points on both sides, got {len(source)} and {len(target)}")
    moved, transform = source.astype(np.float64), np.eye(4)
    pairs = _pair(moved, target, max_distance)
    for _ in range(max_iterations):
        if not pairs.paired.any():
            break
        step = align_similarity(
            moved[pairs.paired], target[pairs.index[pairs.paired]], with_scale=False, allow_degenerate=True
        )
        transform, moved, previous = step @ transform, apply_transform(step, moved), pairs
        pairs = _pair(moved, target, max_distance)
        if abs(previous.fitness - pairs.fitness) < tolerance and abs(previous.rmse - pairs.rmse) < tolerance:
            break
    return Registration(transform, pairs.fitness, pairs.rmse)


@dataclass(frozen=True)
class _Pairs:
    paired: NDArray[np.bool_]
    index: NDArray[np.int64]
    fitness: float
    rmse: float


def _pair(source: Points, target: Points, max_distance: float) -> _Pairs:
    distance, index = nearest_points(source, target, max_distance)
    paired = index >= 0
    rmse = float(np.sqrt((distance[paired] ** 2).mean())) if paired.any() else 0.0
    return _Pairs(paired, index, float(paired.mean()), rmse)


def estimate_normals(points: Points, neighbours: int = 30) -> NDArray[np.float64]:
    """(P, 3) unit normals of free sign: the least-spread direction of each point's nearest neighbours (itself one)."""
    from scipy.spatial import cKDTree

    count = min(neighbours, len(points))
    if count < 3:
        raise DegenerateError(f"estimating normals: need at least 3 points, got {len(points)}")
    cloud = points.astype(np.float64)
    tree = cKDTree(cloud)
    normals = np.empty_like(cloud)
    for start in range(0, len(cloud), 65536):  # bounds memory, not the result
        index = np.asarray(tree.query(cloud[start : start + 65536], k=count)[1])
        patch = cloud[index] - cloud[index].mean(1, keepdims=True)
        _, vectors = np.linalg.eigh(np.einsum("pki,pkj->pij", patch, patch))
        normals[start : start + 65536] = vectors[:, :, 0]
    return normals
