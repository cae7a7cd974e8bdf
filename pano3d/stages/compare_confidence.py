"""compare_confidence: what joint training does to the confidence map, against the frozen baseline and the control."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pano3d import config, tracking
from pano3d.data.preparation import split_paths
from pano3d.data.sampling import spread_views
from pano3d.evaluation import SceneViews, load_reconstructor, load_views, truth_of
from pano3d.metrics.confidence import (
    ConfidenceScene,
    aggregate_confidence,
    aligned_point_error,
    compare_scene,
    confidence_rank,
    object_centres,
    silhouettes,
)
from pano3d.metrics.scenes import SceneTruth, true_points
from pano3d.model_files import holds_model
from pano3d.panoptic.scene import SceneConfig
from pano3d.types import ConfigError, PanopticScene
from pano3d.viz.confidence import ConfidenceFrame, confidence_figure, sparsification_figure


@dataclass(frozen=True)
class CompareConfidenceConfig:
    """split, views: which scenes and how many frames of each. figures: scenes that get a picture of
    `frames_per_figure` frames. resamples: of the bootstrap over scenes."""

    split: str
    views: int
    figures: int
    frames_per_figure: int
    resamples: int

    def __post_init__(self) -> None:
        if min(self.views, self.frames_per_figure, self.resamples) < 1 or self.figures < 0:
            raise ConfigError("compare_confidence: views, frames_per_figure and resamples must be 1 or more")


def run(params: Path, data: Path, start: Path, model: Path, control: Path, output: Path, results: Path) -> None:
    """Compare confidence maps.

    Args:
        start, model, control: folders of the geometry-initialised (frozen) model, of the joint one and of the
            geometry_only control, which may be empty.
        output: figures and the per-scene numbers.
        results: metrics.json with means and intervals over scenes.
    """
    settings = config.read(params)
    stage = config.load(params, CompareConfidenceConfig, "compare_confidence")
    folders = {"frozen": start, "joint": model}
    if holds_model(control):
        folders["control"] = control
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = {name: load_reconstructor(folder, SceneConfig(), device) for name, folder in folders.items()}
    backbone = settings["backbone"]["name"]
    paths = split_paths(data, stage.split)
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    scenes: list[ConfidenceScene] = []
    with tracking.run("compare_confidence", settings, device=str(device)) as recorder:
        for number, path in enumerate(tqdm(paths, desc=f"confidence {backbone}", unit="scene", mininterval=2.0)):
            views = load_views(path, stage.views, models["joint"].image_width, models["joint"].image_height)
            predicted = {name: one.reconstruct(views.colors) for name, one in models.items()}
            scenes.append(_compare(views, truth_of(views, models["joint"].labels.name), predicted))
            if number < stage.figures:
                picture = _figure(views, predicted, stage.frames_per_figure, f"{backbone}, {views.archive.name}")
                (output / f"{views.archive.name}.png").write_bytes(picture)
        comparison = aggregate_confidence(scenes, int(settings["seed"]), stage.resamples)
        (output / "sparsification.png").write_bytes(sparsification_figure(comparison.curves, backbone))
        _write_json(output / "scenes.json", {scene.name: _rounded(scene.values) for scene in scenes})
        results.mkdir(parents=True, exist_ok=True)
        metrics = _rounded(comparison.values) | {"scenes": comparison.num_scenes}
        _write_json(results / "metrics.json", metrics)
        recorder.log_metrics(metrics)
        recorder.log_artifact(output, "confidence")


def _compare(views: SceneViews, truth: SceneTruth, predicted: Mapping[str, PanopticScene]) -> ConfidenceScene:
    """One scene by region, with the point error of every model."""
    valid = truth.depth > 0
    points = true_points(truth)
    regions: dict[str, NDArray[np.bool_]] = {
        "silhouettes": silhouettes(truth.segment_id),
        "centres": object_centres(truth.segment_id),
    }
    for layer in ("ambiguous", "shadow"):
        masks = [getattr(frame, layer) for frame in views.frames]
        if all(mask is not None for mask in masks):
            regions[layer] = np.stack(masks)
    return compare_scene(
        truth.name,
        confidence={name: scene.confidence for name, scene in predicted.items()},
        kind=predicted["joint"].confidence_kind,
        error={name: aligned_point_error(scene.points_world, points, valid) for name, scene in predicted.items()},
        regions=regions,
    )


def _figure(views: SceneViews, predicted: Mapping[str, PanopticScene], count: int, heading: str) -> bytes:
    ranks = {name: confidence_rank(scene.confidence) for name, scene in predicted.items()}
    chosen = spread_views(len(views.frames), count)
    return confidence_figure(
        [
            ConfidenceFrame(
                f"frame {views.frames[v].name}", views.frames[v].color, {name: rank[v] for name, rank in ranks.items()}
            )
            for v in chosen
        ],
        heading,
    )


def _rounded(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: round(float(value), 4) if math.isfinite(value) else None for name, value in sorted(values.items())}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
