"""How much of a view the keyframes have already seen: what makes a frame of a stream a keyframe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial import cKDTree

_POLAR_BINS = 2
_FAR = 1e6


@dataclass(frozen=True)
class SeenPoints:
    """Confident points of one view, subsampled, with the direction each was seen from.

    points_world: (P 3). direction_bin: (P,) which of the 8 direction bins the ray from the camera falls into.
    depth: (P,) along the view's optical axis.
    """

    points_world: NDArray[np.float64]
    direction_bin: NDArray[np.int64]
    depth: NDArray[np.float64]


def seen_points(
    points_world: Float[np.ndarray, "h w 3"],
    points_camera: Float[np.ndarray, "h w 3"],
    confidence: Float[np.ndarray, "h w"],
    world_from_camera: Float[np.ndarray, "4 4"],
    *,
    subsample: int,
    minimum_confidence: float,
) -> SeenPoints:
    """Every `subsample`-th pixel in both axes whose confidence (native scale, >= 1) exceeds the minimum."""
    step = (slice(None, None, subsample), slice(None, None, subsample))
    depth = points_camera[step][..., 2]
    is_good = (confidence[step] > minimum_confidence) & np.isfinite(points_world[step]).all(-1) & (depth > 0)
    points = points_world[step][is_good].astype(np.float64)
    ray = points - world_from_camera[:3, 3]
    ray /= np.maximum(np.linalg.norm(ray, axis=-1, keepdims=True), 1e-12)
    polar = np.arccos(np.clip(ray[:, 2], -1, 1)) / np.pi  # 0 .. 1
    azimuth = np.arctan2(ray[:, 1], ray[:, 0]) / np.pi  # -1 .. 1
    polar_bin = np.clip((polar * _POLAR_BINS).astype(np.int64), 0, _POLAR_BINS - 1)
    azimuth_bin = np.clip(((azimuth + 1) * _POLAR_BINS).astype(np.int64), 0, 2 * _POLAR_BINS - 1)
    return SeenPoints(points, polar_bin * 2 * _POLAR_BINS + azimuth_bin, depth[is_good].astype(np.float64))


class SeenMap:
    """Points that keyframes have seen, searchable by position and viewing direction."""

    def __init__(self) -> None:
        self._views: dict[int, SeenPoints] = {}
        self._trees: dict[int, cKDTree] = {}

    def add(self, number: int, seen: SeenPoints) -> None:
        """Remember what keyframe `number` saw."""
        self._views[number] = seen
        self._trees.clear()

    def drop(self, number: int) -> None:
        """Forget a keyframe."""
        self._views.pop(number, None)
        self._trees.clear()

    def novelty(self, seen: SeenPoints, percentile: float) -> float:
        """Distance from the view's points to the nearest point seen from a similar direction, over the point's depth.

        The `percentile` over points; 0 = everything is known, also where the view has no confident point to judge by.
        """
        if seen.depth.size == 0:
            return 0.0
        if not self._trees:
            self._build()
        distance = np.full(seen.depth.shape, _FAR)
        for index, tree in self._trees.items():
            here = seen.direction_bin == index
            if here.any():
                distance[here] = tree.query(seen.points_world[here])[0]
        return float(np.percentile(distance / seen.depth, percentile))

    def _build(self) -> None:
        if not self._views:
            return
        points = np.concatenate([seen.points_world for seen in self._views.values()])
        bins = np.concatenate([seen.direction_bin for seen in self._views.values()])
        self._trees = {int(index): cKDTree(points[bins == index]) for index in np.unique(bins)}
