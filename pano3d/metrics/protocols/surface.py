"""`unite_3d` (Pano3D's first table) and `posed_transfer`: labels on surface points, two ways, mIoU and instance AP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.metrics.counting import densify
from pano3d.metrics.instance_ap import Examples, InstanceAP, instance_ap, instance_examples, overlaps_from_labels
from pano3d.metrics.scenes import (
    CAMERA_ALIGNMENT,
    ScenePrediction,
    SceneTruth,
    align_scene,
    check_scene,
    nearest_labels,
    posed_labels,
    segment_classes,
)
from pano3d.metrics.semantic import SemanticScore, confusion_matrix, semantic_score
from pano3d.types import ConfigError, DataError


@dataclass(frozen=True)
class SurfaceConfig:
    """name: unite_3d takes labels from predicted geometry, posed_transfer projects the true surface with true cameras.

    distance_limit: metres; of alignment and transfer, or of the depth test. class_agnostic: one class for AP.
    min_instance_points: ScanNet's smallest instance.
    """

    name: Literal["unite_3d", "posed_transfer"]
    label_space: str
    distance_limit: float
    class_agnostic: bool
    min_instance_points: int

    def __post_init__(self) -> None:
        if self.distance_limit <= 0 or self.min_instance_points < 1:
            raise ConfigError(f"{self.name}: distance_limit and min_instance_points must be positive")


@dataclass(frozen=True)
class SurfaceScene:
    """One scene, to be pooled: confusion (K, K+1), AP examples, share of surface points with a label source."""

    confusion: NDArray[np.int64]
    examples: list[list[Examples]]
    coverage: float


@dataclass(frozen=True)
class SurfaceResult:
    """Pooled over scenes. `ap`: class-agnostic where the protocol says so."""

    protocol: str
    semantic: SemanticScore
    ap: InstanceAP
    coverage: float
    num_scenes: int


def decisions(config: SurfaceConfig) -> list[str]:
    """The protocol in words; the published texts leave alignment, limit and uncovered points open."""
    transfer = (
        f"labels of the nearest predicted point within {config.distance_limit} m; alignment: {CAMERA_ALIGNMENT} within"
        " the same distance"
        if config.name == "unite_3d"
        else f"true surface projected into every view with true cameras, seen where the true depth agrees to"
        f" {config.distance_limit} m; the segment most views show wins"
    )
    return [
        f"{config.name}: evaluation points of the true surface, classes of {config.label_space}",
        transfer,
        "points without a label are wrong, not left out; one confusion matrix over all scenes",
        f"AP by ScanNet's rule, {'class-agnostic' if config.class_agnostic else 'per class'},"
        f" instances of at least {config.min_instance_points} points, score of the segment",
    ]


def score(prediction: ScenePrediction, truth: SceneTruth, config: SurfaceConfig) -> SurfaceScene:
    """One scene by `unite_3d` or `posed_transfer`."""
    check_scene(prediction, truth)
    if config.name == "unite_3d":
        alignment = align_scene(prediction, truth, "cameras", config.distance_limit, 50_000)
        segment, class_id, covered = nearest_labels(
            prediction, truth, alignment.scan_from_world, config.distance_limit, prediction.depth.size
        )
    else:
        segment, class_id, covered = posed_labels(prediction, truth, config.distance_limit)
    num_classes = truth.is_thing.size
    true_class = truth.class_of(truth.surface_segment)
    thing = np.append(truth.is_thing, False)[true_class]
    instance = np.where(thing, truth.surface_segment, 0)
    ids, index = densify(np.append(0, segment))
    scores = np.array([prediction.segment_score[int(i)] for i in ids[1:]], np.float64)
    classes = segment_classes(prediction, ids)[1:]
    if config.class_agnostic:
        classes, true_class, num_ap = np.zeros_like(classes), np.zeros_like(true_class), 1
        semantic_truth = truth.class_of(truth.surface_segment)
    else:
        semantic_truth, num_ap = true_class, num_classes
    overlaps = overlaps_from_labels(index[1:], classes, scores, instance, true_class)
    return SurfaceScene(
        confusion=confusion_matrix(class_id, semantic_truth, num_classes),
        examples=instance_examples(overlaps, num_ap, min_points=config.min_instance_points),
        coverage=float(covered.mean()) if covered.size else float("nan"),
    )


def pool(scenes: Sequence[SurfaceScene], config: SurfaceConfig) -> SurfaceResult:
    """The dataset's numbers.

    Raises:
        DataError: there are no scenes.
    """
    if not scenes:
        raise DataError(f"pooling {config.name}: no scenes were scored")
    confusion = np.sum([scene.confusion for scene in scenes], axis=0)
    return SurfaceResult(
        protocol=config.name,
        semantic=semantic_score(confusion, config.name),
        ap=instance_ap([scene.examples for scene in scenes], len(scenes[0].examples[0]), config.name),
        coverage=float(np.mean([scene.coverage for scene in scenes])),
        num_scenes=len(scenes),
    )
