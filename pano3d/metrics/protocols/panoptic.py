"""PQ protocols: `pq_scene` (Panoptic Lifting), `scannetpp_pq` (PanSt3R on ScanNet++) and `pq_3d` (surface points)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.metrics.counting import BoolArray, IntArray, require_same_shape
from pano3d.metrics.panoptic_quality import PanopticPolicy, PanopticQuality, panoptic_quality, scene_counts
from pano3d.metrics.scenes import (
    CAMERA_ALIGNMENT,
    ScenePrediction,
    SceneTruth,
    align_scene,
    check_scene,
    nearest_labels,
)
from pano3d.types import ConfigError, DataError


@dataclass(frozen=True)
class PqConfig:
    """name: of the protocol, printed with the number. label_space: the class table. min_class_share: rarer classes are
    dropped, 0 keeps all. resize: height and width that labels are resized to (nearest) before scoring, None keeps them.
    test_views: what the protocol scores, in words. distance_limit: metres of label transfer, for points only."""

    name: Literal["pq_scene", "scannetpp_pq", "pq_3d"]
    label_space: str
    policy: Literal["scene", "scene_strict"]
    min_class_share: float
    resize: tuple[int, int] | None
    test_views: str
    distance_limit: float | None

    def __post_init__(self) -> None:
        if not 0 <= self.min_class_share < 1:
            raise ConfigError(f"{self.name}: min_class_share is {self.min_class_share}; expected a share in [0, 1)")
        if self.resize is not None and min(self.resize) < 1:
            raise ConfigError(f"{self.name}: resize is {self.resize}; expected a height and a width of 1 or more")
        if (self.name == "pq_3d") != (self.distance_limit is not None):
            raise ConfigError(f"{self.name}: distance_limit belongs to pq_3d and only there")


@dataclass(frozen=True)
class PqResult:
    """Means over scenes; `scenes` holds each. unpredicted_share: labelled elements without prediction."""

    protocol: str
    policy: PanopticPolicy
    pq: float
    sq: float
    rq: float
    pq_things: float
    pq_stuff: float
    unpredicted_share: float
    scenes: tuple[PanopticQuality, ...]


def decisions(config: PqConfig) -> list[str]:
    """The protocol in words."""
    lines = [
        f"{config.name}: policy `{config.policy}`, classes of {config.label_space}, mean over scenes",
        f"published test views: {config.test_views}",
        f"classes under {100 * config.min_class_share:g} % of the pixels in truth or prediction are dropped"
        if config.min_class_share
        else "no class is dropped for being rare",
        "stuff is one segment per class and scene; unlabelled truth is deleted first",
    ]
    if config.resize is not None:
        lines.append(f"labels resized (nearest) to {config.resize[0]}x{config.resize[1]}")
    if config.distance_limit is not None:
        lines.append(
            f"surface points take the label of the nearest predicted point within {config.distance_limit} m, else void;"
            f" alignment: {CAMERA_ALIGNMENT} within the same distance"
        )
    return lines


def score_views(
    pred_class: IntArray,
    pred_instance: IntArray,
    true_class: IntArray,
    true_instance: IntArray,
    is_thing: BoolArray,
    config: PqConfig,
) -> PanopticQuality:
    """One scene by `pq_scene` or `scannetpp_pq`: label maps (V, H, W) of the test views, ids consistent over views."""
    require_same_shape(
        f"scoring {config.name}",
        predicted_classes=pred_class,
        predicted_instances=pred_instance,
        true_classes=true_class,
        true_instances=true_instance,
    )
    if config.distance_limit is not None or pred_class.ndim != 3:
        raise DataError(f"scoring {config.name}: expected label maps (V, H, W), got {pred_class.shape}")
    counts = scene_counts(
        _resized(pred_class, config.resize),
        _resized(pred_instance, config.resize),
        _resized(true_class, config.resize),
        _resized(true_instance, config.resize),
        is_thing,
        config.min_class_share,
        config.policy,
    )
    return panoptic_quality(counts, is_thing)


def score_surface(prediction: ScenePrediction, truth: SceneTruth, config: PqConfig) -> PanopticQuality:
    """One scene by `pq_3d`: the policy on surface points that took labels from the nearest predicted point."""
    if config.distance_limit is None:
        raise DataError(f"scoring {config.name}: it scores label maps of views, not surface points")
    check_scene(prediction, truth)
    alignment = align_scene(prediction, truth, "cameras", config.distance_limit, 50_000)
    segment, class_id, _ = nearest_labels(
        prediction, truth, alignment.scan_from_world, config.distance_limit, prediction.depth.size
    )
    true_class = truth.class_of(truth.surface_segment)
    counts = scene_counts(
        class_id,
        segment,
        true_class,
        truth.surface_segment.astype(np.int64),
        truth.is_thing,
        config.min_class_share,
        config.policy,
    )
    return panoptic_quality(counts, truth.is_thing)


def mean_over_scenes(scenes: Sequence[PanopticQuality], config: PqConfig) -> PqResult:
    """The dataset's number: a mean over scenes where it is defined.

    Raises:
        DataError: there are no scenes.
    """
    if not scenes:
        raise DataError(f"averaging {config.name}: no scenes were scored")

    def mean(name: str) -> float:
        values = np.array([getattr(scene, name) for scene in scenes], np.float64)
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    return PqResult(
        protocol=config.name,
        policy=config.policy,
        pq=mean("pq"),
        sq=mean("sq"),
        rq=mean("rq"),
        pq_things=mean("pq_things"),
        pq_stuff=mean("pq_stuff"),
        unpredicted_share=mean("unpredicted_share"),
        scenes=tuple(scenes),
    )


def _resized(labels: IntArray, size: tuple[int, int] | None) -> NDArray[np.int64]:
    """(V, H, W) labels at `size` by nearest neighbour; the pixel under each new centre."""
    if size is None:
        return labels.astype(np.int64)
    _, height, width = labels.shape
    rows = np.minimum(((np.arange(size[0]) + 0.5) * height / size[0]).astype(np.int64), height - 1)
    columns = np.minimum(((np.arange(size[1]) + 0.5) * width / size[1]).astype(np.int64), width - 1)
    return labels[:, rows[:, None], columns].astype(np.int64)
