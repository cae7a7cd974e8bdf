"""The `evaluate` metrics: every scene is reduced to small counts, and scenes are aggregated with bootstrap intervals.

What each number means is in `DECISIONS`, to be printed with every table: the papers leave most of it open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.metrics.cameras import area_under_curve, error_histogram, pair_errors, trajectory_score
from pano3d.metrics.counting import IntArray, densify
from pano3d.metrics.depth import depth_score
from pano3d.metrics.instance_ap import (
    AP_THRESHOLDS,
    MIN_POINTS,
    Examples,
    average_precision,
    instance_examples,
    overlaps_from_labels,
)
from pano3d.metrics.panoptic_quality import (
    MIN_CLASS_SHARE,
    PanopticCounts,
    coco_counts,
    panoptic_quality,
    scene_counts,
)
from pano3d.metrics.scenes import (
    CAMERA_ALIGNMENT,
    SceneAlignmentMethod,
    ScenePrediction,
    SceneTruth,
    align_scene,
    check_scene,
    nearest_labels,
    posed_labels,
    prediction_scale,
)
from pano3d.metrics.semantic import confusion_matrix
from pano3d.types import ConfigError, DataError

DECISIONS: Mapping[str, str] = {
    "pq_scene": "policy `scene` over all views of a scene, classes under 0.5 % dropped; mean over scenes",
    "pq_scene_strict": "the same, but a true segment left unpredicted is a miss; mean over scenes",
    "pq_coco": "policy `coco`: segments per image, counts summed over all images, then mean over classes",
    "miou": "pixels of the views, one confusion matrix over all scenes; a missing class is a miss",
    "miou_3d": "surface points; label of the nearest predicted point within the distance limit, uncovered = wrong",
    "ap50_agnostic": "ScanNet rule with all classes made one, on surface points, labels by predicted geometry; true"
    " instances are things; every predicted segment is a candidate (one on walls or floor lies on void and is excused)",
    "ap50_agnostic_posed": "the same, labels by projecting the true surface with true cameras and depth",
    "abs_rel": "mean |d - g| / g after one median scale per scene; mean over scenes",
    "inlier_103": "share of pixels with max(d/g, g/d) < 1.03, same scale; mean over scenes",
    "*_per_view": "the same with one median scale per view; mean over views, then scenes",
    "rotation_auc30": "AUC@30 degrees of relative rotations, pairs of views pooled over scenes",
    "pose_auc30": "AUC@30 degrees of the larger of rotation and translation-direction error, pairs pooled",
    "coverage": "share of surface points with a predicted point within the distance limit; mean over scenes",
    "registration_rmse": "distance of ICP's pairs, metres; mean over scenes where ICP found any",
    "ate": "root mean square camera position error after Sim(3), metres; mean over scenes where it is defined",
    "alignment": f"{CAMERA_ALIGNMENT} within the distance limit",
    "interval": "percentile bootstrap over scenes, 95 %",
}
PANOPTIC_METRICS = (
    "pq_scene",
    "pq_scene_strict",
    "pq_coco",
    "miou",
    "miou_3d",
    "ap50_agnostic",
    "ap50_agnostic_posed",
    "ap25_agnostic",
    "unpredicted_share",
)
GEOMETRY_METRICS = (
    "abs_rel",
    "abs_rel_per_view",
    "inlier_103",
    "inlier_103_per_view",
    "rotation_auc30",
    "pose_auc30",
    "ate",
    "coverage",
    "registration_rmse",
)
_MAX_DEGREES = 30
_SCENE_MEANS = (
    "pq_scene",
    "pq_scene_strict",
    "unpredicted_share",
    "abs_rel",
    "abs_rel_per_view",
    "inlier_103",
    "inlier_103_per_view",
    "ate",
    "coverage",
    "registration_rmse",
)


@dataclass(frozen=True)
class SceneScoresConfig:
    """alignment: what the similarity is estimated from. distance_limit: metres, of ICP, coverage and label transfer.
    min_instance_points: smaller surface instances need not be found. max_points: predicted points used per scene.
    resamples: of the bootstrap."""

    alignment: Literal["cameras", "points"] = "cameras"
    distance_limit: float = 0.10
    min_instance_points: int = MIN_POINTS
    max_points: int = 400_000
    resamples: int = 1000

    def __post_init__(self) -> None:
        if self.distance_limit <= 0:
            raise ConfigError(f"distance_limit is {self.distance_limit} m; expected more than 0")
        for name in ("min_instance_points", "max_points", "resamples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")


@dataclass(frozen=True)
class ClassCounts:
    """Per class (K,): hits, true and predicted elements. Enough for IoU and accuracy, and may be added."""

    hits: NDArray[np.int64]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]


@dataclass(frozen=True)
class SceneScores:
    """One scene, reduced. `values`: scores of the scene itself (NaN = undefined); the rest is pooled over scenes.

    coco: counts (4, K): IoU sum, TP, FP, FN. pixels, surface: semantic counts. agnostic, agnostic_posed: examples at
    `AP_THRESHOLDS`. rotation_histogram, pose_histogram: pairs by degree, (31,).
    """

    name: str
    alignment: SceneAlignmentMethod
    values: dict[str, float]
    coco: NDArray[np.float64]
    pixels: ClassCounts
    surface: ClassCounts
    agnostic: list[Examples]
    agnostic_posed: list[Examples]
    rotation_histogram: NDArray[np.int64]
    pose_histogram: NDArray[np.int64]


@dataclass(frozen=True)
class DatasetScores:
    """Scores of a set of scenes. `values`: name -> number, with `_low` and `_high` of its interval; NaN = undefined.

    class_pq, class_iou, class_iou_3d: (K,) pooled over scenes, NaN for classes that do not occur.
    """

    values: dict[str, float]
    class_pq: NDArray[np.float64]
    class_iou: NDArray[np.float64]
    class_iou_3d: NDArray[np.float64]
    num_scenes: int
    seed: int
    resamples: int


def score_scene(prediction: ScenePrediction, truth: SceneTruth, config: SceneScoresConfig | None = None) -> SceneScores:
    """All `evaluate` metrics of one scene.

    Raises:
        DataError: prediction and truth do not describe the same views in one label space.
    """
    config = config or SceneScoresConfig()
    check_scene(prediction, truth)
    true_class = truth.class_of(truth.segment_id)
    maps = (prediction.class_id, prediction.segment_id, true_class, truth.segment_id, truth.is_thing)
    scene = panoptic_quality(scene_counts(*maps, MIN_CLASS_SHARE, "scene"), truth.is_thing)
    strict = panoptic_quality(scene_counts(*maps, MIN_CLASS_SHARE, "scene_strict"), truth.is_thing)

    alignment = align_scene(prediction, truth, config.alignment, config.distance_limit, min(config.max_points, 50_000))
    near_segment, near_class, covered = nearest_labels(
        prediction, truth, alignment.scan_from_world, config.distance_limit, config.max_points
    )
    posed_segment, _, _ = posed_labels(prediction, truth, config.distance_limit)
    errors = pair_errors(prediction.world_from_camera, truth.scan_from_camera)
    num_classes = truth.is_thing.size
    return SceneScores(
        name=truth.name,
        alignment=alignment.method,
        values={
            "pq_scene": scene.pq,
            "pq_scene_strict": strict.pq,
            "unpredicted_share": scene.unpredicted_share,
            **_depth_values(prediction, truth),
            "ate": trajectory_score(prediction.world_from_camera, truth.scan_from_camera, "sim3").ape_rmse,
            "coverage": float(covered.mean()) if covered.size else float("nan"),
            "registration_rmse": alignment.inlier_rmse,
            "registration_fitness": alignment.fitness,
            "scale": prediction_scale(alignment),
        },
        coco=_stack(coco_counts(*maps)),
        pixels=_class_counts(prediction.class_id, true_class, num_classes),
        surface=_class_counts(near_class, truth.class_of(truth.surface_segment), num_classes),
        agnostic=_agnostic(near_segment, prediction, truth, config.min_instance_points),
        agnostic_posed=_agnostic(posed_segment, prediction, truth, config.min_instance_points),
        rotation_histogram=error_histogram(errors.rotation_deg, _MAX_DEGREES),
        pose_histogram=error_histogram(np.maximum(errors.rotation_deg, errors.translation_deg), _MAX_DEGREES),
    )


def aggregate_scenes(
    scenes: Sequence[SceneScores], is_thing: NDArray[np.bool_], seed: int, resamples: int = 1000
) -> DatasetScores:
    """Scores of all scenes together, each with the 95 % percentile interval of a bootstrap over scenes.

    Args:
        is_thing: (K,). seed: of the resampling; the same seed gives the same intervals.

    Raises:
        DataError: there are no scenes, or their label spaces differ.
    """
    if not scenes:
        raise DataError("aggregating scores: no scenes were scored; check the split and its archives")
    if {scene.coco.shape[1] for scene in scenes} != {is_thing.size}:
        raise DataError("aggregating scores: scenes were scored in different label spaces")
    everything = np.arange(len(scenes))
    stacks = _Stacks.of(scenes)
    values = _pooled(stacks, everything)
    generator = np.random.default_rng(seed)
    samples = [_pooled(stacks, generator.integers(len(scenes), size=len(scenes))) for _ in range(resamples)]
    for name in list(values):
        drawn = np.array([sample[name] for sample in samples])
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.percentile(drawn, [2.5, 97.5]) if drawn.size else (float("nan"), float("nan"))
        values[f"{name}_low"], values[f"{name}_high"] = float(low), float(high)
    coco = stacks.coco.sum(0)
    return DatasetScores(
        values=values,
        class_pq=_class_pq(coco),
        class_iou=_class_iou(stacks.pixels.sum(0)),
        class_iou_3d=_class_iou(stacks.surface.sum(0)),
        num_scenes=len(scenes),
        seed=seed,
        resamples=resamples,
    )


def plain_scene(scene: SceneScores) -> dict[str, Any]:
    """The scores as JSON values (NaN as null), small enough to keep for every scene."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and np.isnan(value) else value

    converted: dict[str, Any] = plain(dataclasses.asdict(scene))
    return converted


def scene_from_plain(value: Mapping[str, Any]) -> SceneScores:
    """The inverse of `plain_scene`."""

    def counts(entry: Mapping[str, Any]) -> ClassCounts:
        return ClassCounts(*(np.array(entry[name], np.int64) for name in ("hits", "true", "predicted")))

    return SceneScores(
        name=value["name"],
        alignment=value["alignment"],
        values={name: float("nan") if number is None else float(number) for name, number in value["values"].items()},
        coco=np.array(value["coco"], np.float64),
        pixels=counts(value["pixels"]),
        surface=counts(value["surface"]),
        agnostic=[Examples(**entry) for entry in value["agnostic"]],
        agnostic_posed=[Examples(**entry) for entry in value["agnostic_posed"]],
        rotation_histogram=np.array(value["rotation_histogram"], np.int64),
        pose_histogram=np.array(value["pose_histogram"], np.int64),
    )


@dataclass(frozen=True)
class _Stacks:
    """Scenes side by side: leading axis S, so that a resample is an index."""

    values: dict[str, NDArray[np.float64]]
    coco: NDArray[np.float64]
    pixels: NDArray[np.int64]
    surface: NDArray[np.int64]
    rotation: NDArray[np.int64]
    pose: NDArray[np.int64]
    agnostic: list[list[Examples]]
    agnostic_posed: list[list[Examples]]

    @staticmethod
    def of(scenes: Sequence[SceneScores]) -> _Stacks:
        def counts(each: ClassCounts) -> NDArray[np.int64]:
            return np.stack([each.hits, each.true, each.predicted])

        return _Stacks(
            values={name: np.array([scene.values[name] for scene in scenes]) for name in _SCENE_MEANS},
            coco=np.stack([scene.coco for scene in scenes]),
            pixels=np.stack([counts(scene.pixels) for scene in scenes]),
            surface=np.stack([counts(scene.surface) for scene in scenes]),
            rotation=np.stack([scene.rotation_histogram for scene in scenes]),
            pose=np.stack([scene.pose_histogram for scene in scenes]),
            agnostic=[scene.agnostic for scene in scenes],
            agnostic_posed=[scene.agnostic_posed for scene in scenes],
        )


def _pooled(stacks: _Stacks, index: NDArray[np.int64]) -> dict[str, float]:
    """Every number of the set of scenes `index`, which may repeat scenes."""
    at_50, at_25 = AP_THRESHOLDS.index(0.5), AP_THRESHOLDS.index(0.25)
    return {
        **{name: _mean_of_known(column[index]) for name, column in stacks.values.items()},
        "pq_coco": _mean_of_known(_class_pq(stacks.coco[index].sum(0))),
        "miou": _mean_of_known(_class_iou(stacks.pixels[index].sum(0))),
        "miou_3d": _mean_of_known(_class_iou(stacks.surface[index].sum(0))),
        "ap50_agnostic": average_precision([stacks.agnostic[i][at_50] for i in index]),
        "ap25_agnostic": average_precision([stacks.agnostic[i][at_25] for i in index]),
        "ap50_agnostic_posed": average_precision([stacks.agnostic_posed[i][at_50] for i in index]),
        "rotation_auc30": area_under_curve(stacks.rotation[index].sum(0)),
        "pose_auc30": area_under_curve(stacks.pose[index].sum(0)),
    }


def _depth_values(prediction: ScenePrediction, truth: SceneTruth) -> dict[str, float]:
    depth = np.where(np.isfinite(prediction.depth), prediction.depth, 0)  # not predicted: an error of 100 %
    scene = depth_score(depth, truth.depth, "median")
    views = [depth_score(p, g, "median") for p, g in zip(depth, truth.depth)]
    return {
        "abs_rel": scene.abs_rel,
        "inlier_103": scene.inlier_103,
        "abs_rel_per_view": _mean_of_known(np.array([view.abs_rel for view in views])),
        "inlier_103_per_view": _mean_of_known(np.array([view.inlier_103 for view in views])),
    }


def _agnostic(
    segment: NDArray[np.int64], prediction: ScenePrediction, truth: SceneTruth, min_points: int
) -> list[Examples]:
    """Class-agnostic examples of surface labels (N,) at every threshold."""
    surface_class = truth.class_of(truth.surface_segment)
    thing = np.append(truth.is_thing, False)[surface_class]  # VOID = -1 reads the appended entry
    instance = np.where(thing, truth.surface_segment, 0)
    ids, index = densify(np.append(0, segment))
    scores = np.array([prediction.segment_score[int(i)] for i in ids[1:]], np.float64)
    one_class = np.zeros(scores.size, np.int64)
    overlaps = overlaps_from_labels(index[1:], one_class, scores, instance, np.zeros_like(instance))
    return [row[0] for row in instance_examples(overlaps, 1, AP_THRESHOLDS, min_points)]


def _class_counts(pred_class: IntArray, true_class: IntArray, num_classes: int) -> ClassCounts:
    confusion = confusion_matrix(pred_class, true_class, num_classes)
    return ClassCounts(np.diagonal(confusion).copy(), confusion.sum(1), confusion[:, :num_classes].sum(0))


def _class_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K,) from (3, K) hits, true, predicted; NaN where the class does not occur."""
    hits, true, predicted = counts
    return _quotient(hits, true + predicted - hits)


def _class_pq(coco: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) from (4, K) IoU sum, TP, FP, FN; NaN where the class does not occur."""
    iou_sum, true_positive, false_positive, false_negative = coco
    return _quotient(iou_sum, true_positive + 0.5 * false_positive + 0.5 * false_negative)


def _quotient(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _stack(counts: PanopticCounts) -> NDArray[np.float64]:
    return np.stack(
        [counts.iou_sum, counts.true_positive, counts.false_positive, counts.false_negative], axis=0
    ).astype(np.float64)


def _mean_of_known(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
