"""A model against scene archives: predict, compare with the truth, reduce each scene to its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pano3d.data.archive import Frame, SceneArchive, read_scene
from pano3d.data.frames import fit_frame
from pano3d.data.label_spaces import label_space
from pano3d.data.sampling import spread_views
from pano3d.metrics.scene_scores import SceneScores, SceneScoresConfig, score_scene
from pano3d.metrics.scenes import ScenePrediction, SceneTruth
from pano3d.model_files import read_model
from pano3d.panoptic.scene import SceneConfig
from pano3d.reconstruction import Precision, Reconstructor
from pano3d.types import VOID, ConfigError, DataError, PanopticScene


@dataclass(frozen=True)
class EvaluationConfig:
    """split: scenes to score. views: frames per scene, spread evenly (all, where it has fewer). workers: processes,
    0 = one per core. examples: scenes whose predictions are kept for pictures. scene: how masks become segments."""

    split: str
    views: int
    workers: int
    examples: int
    scene: SceneConfig = field(default_factory=SceneConfig)
    scores: SceneScoresConfig = field(default_factory=SceneScoresConfig)

    def __post_init__(self) -> None:
        if self.views < 1 or self.workers < 0 or self.examples < 0:
            raise ConfigError("evaluation: views must be 1 or more, workers and examples 0 or more")


@dataclass(frozen=True)
class SceneViews:
    """The frames of a scene that are evaluated, at the network's size."""

    archive: SceneArchive
    frames: list[Frame]

    @property
    def colors(self) -> NDArray[np.uint8]:
        return np.stack([frame.color for frame in self.frames])


def load_views(path: Path, count: int, width: int, height: int) -> SceneViews:
    """`count` evenly spread frames of an archive, brought to the network's size."""
    archive = read_scene(path)
    chosen = spread_views(len(archive), count)
    return SceneViews(archive, [fit_frame(archive.frame(int(view)), width, height) for view in chosen])


def truth_of(views: SceneViews, label_space_name: str) -> SceneTruth:
    """What is true about the views: exact depth where the archive has it, the sensor's elsewhere.

    Raises:
        DataError: the archive is labelled in another label space.
    """
    archive = views.archive
    if archive.label_space != label_space_name:
        raise DataError(
            f"scoring {archive.name}: it is labelled in {archive.label_space}, the model predicts {label_space_name}"
        )
    labels = label_space(label_space_name)
    class_of = {name: index for index, name in enumerate(labels.names)}
    depth = [frame.depth_mm if frame.depth_exact_mm is None else frame.depth_exact_mm for frame in views.frames]
    return SceneTruth(
        name=archive.name,
        segment_id=np.stack([frame.segment_id for frame in views.frames]).astype(np.int64),
        segment_class={s.id: class_of.get(s.class_name, VOID) if s.class_name else VOID for s in archive.segments},
        depth=np.stack(depth).astype(np.float64) / 1000.0,
        scan_from_camera=np.stack([frame.scan_from_camera for frame in views.frames]),
        intrinsics=np.stack([frame.intrinsics for frame in views.frames]),
        surface_points=archive.surface.xyz.astype(np.float64),
        surface_segment=archive.surface.segment_id.astype(np.int64),
        is_thing=np.array(labels.is_thing),
    )


def prediction_of(scene: PanopticScene) -> ScenePrediction:
    """The part of a reconstruction that is scored."""
    return ScenePrediction(
        segment_id=scene.segment_id.astype(np.int64),
        class_id=scene.class_id.astype(np.int64),
        segment_score={segment.id: segment.score for segment in scene.segments},
        depth=scene.depth,
        points_world=scene.points_world,
        world_from_camera=scene.world_from_camera,
    )


def load_reconstructor(
    folder: Path, scene_config: SceneConfig, device: torch.device, precision: Precision = "float32"
) -> Reconstructor:
    """The model in a folder written by a training stage, ready to reconstruct."""
    model, description = read_model(folder)
    backbone = description.config.backbone
    labels = label_space(description.config.label_space)
    size = (backbone.image_width, backbone.image_height)
    return Reconstructor(model, labels, *size, scene_config, device, precision)


def evaluate_scenes(
    folder: Path, paths: Sequence[Path], config: EvaluationConfig, on_done: Callable[[int], object]
) -> list[SceneScores]:
    """Score the model in `folder` on every archive, scenes side by side, in the order of `paths`.

    Args:
        on_done: called with 1 after each scene.
    """
    scores = []
    threads = max(1, (torch.get_num_threads()) // max(config.workers, 1))
    with ProcessPoolExecutor(
        config.workers or torch.get_num_threads(),
        mp_context=get_context("forkserver"),
        initializer=_load_worker,
        initargs=(folder, config, threads if config.workers else 1),
    ) as executor:
        for score in executor.map(partial(_score_in_worker, config=config), paths):
            scores.append(score)
            on_done(1)
    return scores


def evaluate_scene(
    reconstructor: Reconstructor, path: Path, config: EvaluationConfig
) -> tuple[SceneScores, PanopticScene, SceneViews]:
    """Predict and score one archive."""
    views = load_views(path, config.views, reconstructor.image_width, reconstructor.image_height)
    scene = reconstructor.reconstruct(views.colors)
    truth = truth_of(views, reconstructor.labels.name)
    return score_scene(prediction_of(scene), truth, config.scores), scene, views


def rounded_metrics(values: Mapping[str, float], names: Sequence[str]) -> dict[str, float | None]:
    """Values and intervals to four digits, null for undefined: metrics.json holds no NaN and no noise of last bits."""
    chosen = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    return {name: round(values[name], 4) if math.isfinite(values[name]) else None for name in chosen}


_worker: list[Reconstructor] = []


def _load_worker(folder: Path, config: EvaluationConfig, threads: int) -> None:
    """Once per process: the network is read there, not sent."""
    torch.set_num_threads(threads)
    _worker.append(load_reconstructor(folder, config.scene, torch.device("cpu")))


def _score_in_worker(path: Path, config: EvaluationConfig) -> SceneScores:
    return evaluate_scene(_worker[0], path, config)[0]
