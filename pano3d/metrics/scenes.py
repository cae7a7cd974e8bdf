"""What scoring a scene needs: prediction and truth as plain arrays, their alignment, and labels carried to the surface.

Two ways to bring predicted labels to the evaluation surface, and both are reported, since their difference is the
cost of the geometry: by *predicted* geometry (nearest predicted point after alignment), and *posed*, projecting the
true surface into the views with true cameras and depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.geometry.alignment import (
    align_similarity,
    apply_transform,
    is_nearly_a_line,
    nearest_points,
    register_icp,
    scale_of,
)
from pano3d.metrics.counting import FloatArray, IntArray, densify, require_range, require_same_shape
from pano3d.types import VOID, DataError, DegenerateError

SceneAlignmentMethod = Literal["cameras", "points", "none"]
CAMERA_ALIGNMENT = (
    "Sim(3) by least squares on camera centres (on pixel-aligned points where the centres, true or predicted, spread"
    " across a line by less than a tenth of what they spread along it), then point-to-point ICP onto the surface"
)
"""What `align_scene` does by cameras, in words."""


@dataclass(frozen=True)
class ScenePrediction:
    """What a model says about the V views of a scene.

    segment_id: (V, H, W), consistent over views, 0 = none. class_id: (V, H, W) in [0, K), VOID where none.
    segment_score: id -> score in [0, 1], for every id that occurs.
    depth: (V, H, W) and points_world: (V, H, W, 3), any scale; values that are not finite count as not predicted.
    world_from_camera: (V, 4, 4).
    """

    segment_id: IntArray
    class_id: IntArray
    segment_score: Mapping[int, float]
    depth: FloatArray
    points_world: FloatArray
    world_from_camera: FloatArray


@dataclass(frozen=True)
class SceneTruth:
    """What is true about the same V views in the same order.

    segment_id: (V, H, W), 0 = unlabelled. segment_class: id -> class, VOID for one outside the label space.
    depth: (V, H, W) metres along the optical axis, 0 = missing. scan_from_camera: (V, 4, 4). intrinsics: (V, 3, 3).
    surface_points: (N, 3) evaluation points, metres, in `scan`. surface_segment: (N,), 0 = unlabelled.
    is_thing: (K,).
    """

    name: str
    segment_id: IntArray
    segment_class: Mapping[int, int]
    depth: FloatArray
    scan_from_camera: FloatArray
    intrinsics: FloatArray
    surface_points: FloatArray
    surface_segment: IntArray
    is_thing: NDArray[np.bool_]

    def class_of(self, segment_id: IntArray) -> NDArray[np.int64]:
        """Class per element, VOID where unlabelled.

        Raises:
            DataError: a segment is not in the table.
        """
        ids, index = densify(segment_id)
        unknown = [int(i) for i in ids if int(i) not in self.segment_class and i != 0]
        if unknown:
            raise DataError(f"scoring {self.name}: true segments {unknown[:5]} have no class in the scene's table")
        table = np.array([VOID if i == 0 else self.segment_class[int(i)] for i in ids], np.int64)
        return table[index] if ids.size else index


@dataclass(frozen=True)
class SceneAlignment:
    """How a prediction was carried into the truth's frame.

    scan_from_world: (4, 4) similarity. method: what it was estimated from, before ICP; "none" where nothing had a
    unique answer. fitness, inlier_rmse: of ICP: share of predicted points with a partner, and their distance, metres.
    """

    scan_from_world: NDArray[np.float64]
    method: SceneAlignmentMethod
    fitness: float
    inlier_rmse: float


def check_scene(prediction: ScenePrediction, truth: SceneTruth) -> None:
    """Raise `DataError` unless both describe the same views in one label space."""
    what = f"scoring {truth.name}"
    require_same_shape(
        what,
        predicted_segments=prediction.segment_id,
        predicted_classes=prediction.class_id,
        predicted_depth=prediction.depth,
        predicted_points=prediction.points_world[..., 0],
        true_segments=truth.segment_id,
        true_depth=truth.depth,
    )
    views = truth.segment_id.shape[0]
    if truth.segment_id.ndim != 3 or views == 0:
        raise DataError(f"{what}: expected maps (V, H, W) of at least one view, got {truth.segment_id.shape}")
    for name, poses, size in (
        ("predicted cameras", prediction.world_from_camera, 4),
        ("true cameras", truth.scan_from_camera, 4),
        ("intrinsics", truth.intrinsics, 3),
    ):
        if poses.shape != (views, size, size) or not np.isfinite(poses).all():
            raise DataError(f"{what}: expected {views} finite {name} of {size}x{size}, got {poses.shape}")
    require_range(f"{what}, predicted classes", prediction.class_id, VOID, truth.is_thing.size)
    require_range(f"{what}, true classes", np.array([*truth.segment_class.values(), VOID]), VOID, truth.is_thing.size)
    unscored = {int(i) for i in densify(prediction.segment_id)[0]} - {0} - set(prediction.segment_score)
    if unscored:
        raise DataError(f"{what}: predicted segments {sorted(unscored)[:5]} have no score")
    if len(truth.surface_points) != len(truth.surface_segment):
        raise DataError(
            f"{what}: {len(truth.surface_points)} surface points but {len(truth.surface_segment)} surface segments"
        )


def align_scene(
    prediction: ScenePrediction,
    truth: SceneTruth,
    method: Literal["cameras", "points"],
    icp_distance: float | None,
    max_points: int,
) -> SceneAlignment:
    """Similarity from camera centres (or from pixel-aligned points), then point-to-point ICP onto the surface.

    Camera centres on a line, or fewer than three, have no unique similarity, and nearly on a line, on either side, one
    that noise decides: then pixel-aligned points are taken, and the result says so. ICP sees at most `max_points`
    evenly chosen predicted points; `icp_distance` None leaves it out.
    """
    alignment: tuple[NDArray[np.float64], SceneAlignmentMethod] = np.eye(4), "none"
    usable = finite_pixels(prediction) & (truth.depth > 0)
    chosen = evenly(np.flatnonzero(usable), max_points)
    candidates: list[tuple[SceneAlignmentMethod, FloatArray, FloatArray]] = [
        ("points", prediction.points_world.reshape(-1, 3)[chosen], true_points(truth).reshape(-1, 3)[chosen])
    ]
    centers = prediction.world_from_camera[:, :3, 3], truth.scan_from_camera[:, :3, 3]
    if method == "cameras" and not any(is_nearly_a_line(each) for each in centers):
        candidates.insert(0, ("cameras", *centers))
    for name, source, target in candidates:
        try:
            alignment = align_similarity(source, target), name
        except DegenerateError:
            continue
        break
    scan_from_world, used = alignment
    source = prediction.points_world.reshape(-1, 3)[evenly(np.flatnonzero(finite_pixels(prediction)), max_points)]
    if used == "none" or icp_distance is None or not len(source) or not len(truth.surface_points):
        return SceneAlignment(scan_from_world, used, float("nan"), float("nan"))
    refined = register_icp(apply_transform(scan_from_world, source), truth.surface_points, icp_distance)
    return SceneAlignment(
        refined.target_from_source @ scan_from_world,
        used,
        refined.fitness,
        refined.inlier_rmse if refined.fitness > 0 else float("nan"),
    )


def nearest_labels(
    prediction: ScenePrediction, truth: SceneTruth, scan_from_world: NDArray[np.float64], limit: float, max_points: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Each surface point takes segment and class of the nearest predicted point closer than `limit` metres.

    Returns:
        segment (N,) 0 = none, class (N,) VOID = none, covered (N,).
    """
    chosen = evenly(np.flatnonzero(finite_pixels(prediction)), max_points)
    points = apply_transform(scan_from_world, prediction.points_world.reshape(-1, 3)[chosen])
    distance, index = nearest_points(truth.surface_points, points, limit)
    covered = distance < limit
    segment = np.zeros(len(covered), np.int64)
    class_id = np.full(len(covered), VOID, np.int64)
    segment[covered] = prediction.segment_id.ravel()[chosen[index[covered]]]
    class_id[covered] = prediction.class_id.ravel()[chosen[index[covered]]]
    return segment, class_id, covered


def posed_labels(
    prediction: ScenePrediction, truth: SceneTruth, depth_tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Each surface point takes the segment that most views show at its true projection.

    A view sees a point if it projects into the image (nearest pixel) and the true depth there agrees to
    `depth_tolerance` metres. Ties go to the smaller id; views without a prediction there do not vote. The class is
    the segment's most frequent one.

    Returns:
        as `nearest_labels`; covered = seen by a view that predicts something there.
    """
    count, (views, height, width) = len(truth.surface_points), truth.segment_id.shape
    ids, dense = densify(prediction.segment_id)
    votes = np.zeros(0, np.int64)
    for view in range(views):
        camera = apply_transform(np.linalg.inv(truth.scan_from_camera[view]), truth.surface_points)
        depth = camera[:, 2]
        pixel = np.full((count, 2), -1, np.int64)
        in_front = depth > 1e-6
        image = camera[in_front] @ truth.intrinsics[view].astype(np.float64).T
        pixel[in_front] = np.rint(np.clip(image[:, :2] / image[:, 2:], -1, max(height, width)))
        x, y = pixel.T
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        point = np.flatnonzero(seen)
        measured = truth.depth[view, y[point], x[point]]
        point = point[(measured > 0) & (np.abs(measured - depth[point]) < depth_tolerance)]
        voted = dense[view, y[point], x[point]]
        point, voted = point[ids[voted] != 0], voted[ids[voted] != 0]
        votes = np.append(votes, point * ids.size + voted)
    ballot, num_votes = np.unique(votes, return_counts=True)
    point, voted = np.divmod(ballot, max(ids.size, 1))
    order = np.lexsort((voted, -num_votes, point))
    first = order[np.unique(point[order], return_index=True)[1]]
    segment = np.zeros(count, np.int64)
    segment[point[first]] = ids[voted[first]]
    return segment, segment_classes(prediction, segment), segment != 0


def segment_classes(prediction: ScenePrediction, segment: NDArray[np.int64]) -> NDArray[np.int64]:
    """Most frequent predicted class of each element's segment, VOID for segment 0."""
    ids, dense = densify(prediction.segment_id)
    num_columns = int(prediction.class_id.max(initial=VOID)) + 2
    joint = dense.ravel() * num_columns + prediction.class_id.ravel().astype(np.int64) + 1
    table = np.bincount(joint, minlength=ids.size * num_columns).reshape(ids.size, num_columns)
    class_of = {int(i): int(row.argmax()) - 1 for i, row in zip(ids, table) if i != 0}
    distinct, index = densify(segment)
    return np.array([class_of.get(int(i), VOID) for i in distinct], np.int64)[index]


def true_points(truth: SceneTruth) -> NDArray[np.float64]:
    """(V, H, W, 3) points of the true depth in `scan`; meaningless where depth is missing."""
    _, height, width = truth.depth.shape
    y, x = np.mgrid[:height, :width]
    pixel = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float64)
    rays = np.einsum("vij,hwj->vhwi", np.linalg.inv(truth.intrinsics.astype(np.float64)), pixel)
    camera = rays * truth.depth[..., None]
    rotation, center = truth.scan_from_camera[:, :3, :3], truth.scan_from_camera[:, :3, 3]
    points: NDArray[np.float64] = np.einsum("vij,vhwj->vhwi", rotation, camera) + center[:, None, None]
    return points


def finite_pixels(prediction: ScenePrediction) -> NDArray[np.bool_]:
    """(V, H, W) where a point was predicted."""
    return np.asarray(np.isfinite(prediction.points_world).all(-1))


def evenly(index: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` of the indices, evenly spaced: deterministic, and the same for every model on a scene."""
    if len(index) <= limit:
        return index
    return index[np.linspace(0, len(index) - 1, limit).astype(np.int64)]


def prediction_scale(alignment: SceneAlignment) -> float:
    """Metres per unit of `world`."""
    return scale_of(alignment.scan_from_world)
