"""Labelled pixels -> labelled points, voxels or given vertices, by votes that are consistent over views.

A pixel's point takes the pixel's class and segment; what several pixels share takes the segment with the largest sum
of mask probabilities, the larger segment where sums are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pano3d.types import VOID, DataError, PanopticScene


@dataclass(frozen=True)
class LabelledPoints:
    """Points in frame `world` with what the scene says about them.

    segment_id: (P,) 0 = void. class_id: (P,) VOID where no segment. colors: (P 3).
    confidence: (P,) of the geometry, on the scene's native scale, mean over the pixels of a point.
    score: (P,) share of the votes that the segment won, times its mean mask probability; 0 where void.
    """

    points_world: Float[np.ndarray, "p 3"]
    colors: UInt8[np.ndarray, "p 3"]
    segment_id: Int[np.ndarray, " p"]
    class_id: Int[np.ndarray, " p"]
    confidence: Float[np.ndarray, " p"]
    score: Float[np.ndarray, " p"]


@dataclass(frozen=True)
class LabelledVertices:
    """Labels of given vertices, in their order.

    is_covered: a pixel's point came within reach, labelled or not.
    """

    segment_id: Int[np.ndarray, " n"]
    class_id: Int[np.ndarray, " n"]
    score: Float[np.ndarray, " n"]
    is_covered: Bool[np.ndarray, " n"]

    @property
    def coverage(self) -> float:
        """Share of vertices that received any vote."""
        return float(self.is_covered.mean()) if len(self.is_covered) else 0.0


def lift_points(scene: PanopticScene, minimum_confidence: float = -np.inf) -> LabelledPoints:
    """Every pixel's point with a finite position and a confidence above the minimum."""
    kept = _usable(scene, minimum_confidence)
    segment_id = scene.segment_id[kept]
    return LabelledPoints(
        points_world=scene.points_world[kept],
        colors=scene.colors[kept],
        segment_id=segment_id,
        class_id=scene.class_id[kept],
        confidence=scene.confidence[kept],
        score=np.where(segment_id > 0, scene.segment_score[kept], 0.0).astype(np.float32),
    )


def lift_voxels(
    scene: PanopticScene,
    voxel_size: float = 0.02,
    minimum_confidence: float = -np.inf,
    minimum_voxels: int = 0,
) -> LabelledPoints:
    """One point per occupied voxel: mean position and colour of its pixels, segment by votes.

    Args:
        voxel_size: in units of `world`.
        minimum_voxels: segments with fewer voxels become void.

    Raises:
        DataError: the voxel size is not positive.
    """
    if not voxel_size > 0:
        raise DataError(f"lifting to voxels: expected a positive voxel size, got {voxel_size}")
    points = lift_points(scene, minimum_confidence)
    if not len(points.points_world):
        return points
    cell = _cells(np.floor(points.points_world.astype(np.float64) / voxel_size))
    count = int(cell.max()) + 1
    segment_id, score = _vote(cell, points.segment_id, points.score, count)
    segment_id = _without_small(segment_id, minimum_voxels)
    return LabelledPoints(
        points_world=_mean(cell, points.points_world, count).astype(np.float32),
        colors=np.rint(_mean(cell, points.colors, count)).astype(np.uint8),
        segment_id=segment_id,
        class_id=_class_of(scene, segment_id),
        confidence=_mean(cell, points.confidence[:, None], count)[:, 0].astype(np.float32),
        score=np.where(segment_id > 0, score, 0.0).astype(np.float32),
    )


def lift_vertices(
    scene: PanopticScene,
    vertices: Float[np.ndarray, "n 3"],
    reach: float,
    minimum_confidence: float = -np.inf,
    minimum_vertices: int = 0,
) -> LabelledVertices:
    """Labels of given vertices (frame `world`): every pixel votes for the vertex nearest to its point.

    A vertex nobody votes for takes the votes of the nearest pixel's point; beyond `reach` of any it stays uncovered.

    Args:
        reach: largest distance between a point and its vertex, in units of `world`.
        minimum_vertices: segments with fewer vertices become void (100 in the ScanNet AP rule).

    Raises:
        DataError: the reach is not positive.
    """
    if not reach > 0:
        raise DataError(f"lifting to vertices: expected a positive reach, got {reach}")
    points = lift_points(scene, minimum_confidence)
    count = len(vertices)
    if not count or not len(points.points_world):
        void = np.zeros(count, np.int32)
        none = np.zeros(count, bool)
        return LabelledVertices(void, np.full(count, VOID, np.int32), np.zeros(count, np.float32), none)
    nearest, near = _nearest(vertices, points.points_world, reach)
    segment_id, score = _vote(nearest[near], points.segment_id[near], points.score[near], count)
    covered = np.bincount(nearest[near], minlength=count) > 0
    bare = np.flatnonzero(~covered)
    source, found = _nearest(points.points_world, vertices[bare], reach)
    segment_id[bare[found]] = points.segment_id[source[found]]
    score[bare[found]] = points.score[source[found]]
    covered[bare[found]] = True
    segment_id = _without_small(segment_id, minimum_vertices)
    score = np.where(segment_id > 0, score, 0.0).astype(np.float32)
    return LabelledVertices(segment_id, _class_of(scene, segment_id), score, covered)


def _usable(scene: PanopticScene, minimum_confidence: float) -> NDArray[np.bool_]:
    finite = np.isfinite(scene.points_world).all(axis=-1)
    return np.asarray(finite & (scene.confidence >= minimum_confidence))


def _nearest(
    targets: NDArray[np.floating], points: NDArray[np.floating], reach: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Index of the target nearest to each point, and whether it lies within reach."""
    distance, index = cKDTree(targets).query(points, distance_upper_bound=reach)
    return np.asarray(index, np.int64), np.isfinite(distance)


def _cells(corners: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the distinct row that each row is; column by column, so that far outliers cannot overflow."""
    cell = np.zeros(len(corners), np.int64)
    for column in corners.T:
        values, rank = np.unique(column, return_inverse=True)
        cell = np.unique(cell * len(values) + rank, return_inverse=True)[1].astype(np.int64)
    return cell


def _vote(
    cell: NDArray[np.int64], segment_id: NDArray[np.int32], weight: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Winning segment of every cell, and its votes divided by the number of pixels there. Void does not vote."""
    winner: NDArray[np.int32] = np.zeros(count, np.int32)
    score: NDArray[np.float32] = np.zeros(count, np.float32)
    voters = np.bincount(cell, minlength=count)
    labelled = segment_id > 0
    if not labelled.any():
        return winner, score
    size = np.bincount(segment_id[labelled])
    pairs, pair = np.unique(cell[labelled] * len(size) + segment_id[labelled], return_inverse=True)
    votes = np.bincount(pair.reshape(-1), weights=weight[labelled])
    pair_cell, pair_segment = pairs // len(size), pairs % len(size)
    # The last of each cell wins: most votes, then the larger segment, then the smaller id.
    order = np.lexsort((-pair_segment, size[pair_segment], votes, pair_cell))
    winner[pair_cell[order]] = pair_segment[order]
    score[pair_cell[order]] = votes[order]
    return winner, (score / np.maximum(voters, 1)).astype(np.float32)


def _mean(cell: NDArray[np.int64], values: NDArray[np.generic], count: int) -> NDArray[np.float64]:
    voters = np.bincount(cell, minlength=count)
    sums = [np.bincount(cell, weights=values[:, column], minlength=count) for column in range(values.shape[1])]
    return np.stack(sums, axis=1) / voters[:, None]


def _without_small(segment_id: NDArray[np.int32], minimum: int) -> NDArray[np.int32]:
    size = np.bincount(segment_id)
    return np.where(size[segment_id] >= minimum, segment_id, 0).astype(np.int32)


def _class_of(scene: PanopticScene, segment_id: NDArray[np.int32]) -> NDArray[np.int32]:
    table = np.full(max([segment.id for segment in scene.segments], default=0) + 1, VOID, np.int32)
    for segment in scene.segments:
        table[segment.id] = segment.class_id
    return table[segment_id]
