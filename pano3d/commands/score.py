"""score: the metrics of the stage `evaluate`, of any model on any scene archives."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pano3d.commands.loading import find_model
from pano3d.data.archive import read_scene
from pano3d.data.label_spaces import label_space
from pano3d.evaluation import EvaluationConfig, evaluate_scenes, rounded_metrics
from pano3d.files import write_whole
from pano3d.metrics.scene_scores import (
    DECISIONS,
    GEOMETRY_METRICS,
    PANOPTIC_METRICS,
    aggregate_scenes,
    plain_scene,
)
from pano3d.model_files import read_description
from pano3d.types import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model folder, models:/NAME@ALIAS, must3r_tiny or pi3_tiny")
    parser.add_argument("scenes", type=Path, nargs="+", metavar="SCENE.zip", help="scene archives, or folders of them")
    parser.add_argument("-o", "--output", type=Path, help="metrics.json to write: totals and every scene")
    parser.add_argument("--views", type=int, default=8, help="frames per scene, evenly spread (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 = one per core (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the intervals' resampling (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Score every archive, print the totals with their intervals over scenes."""
    config = EvaluationConfig("given", args.views, args.workers, examples=0)
    paths = _archives(args.scenes)
    folder = find_model(args.model)
    labels = label_space(read_description(folder).config.label_space)
    for path in paths:  # a wrong archive fails now, not after the others were scored
        found = read_scene(path).label_space
        if found != labels.name:
            raise DataError(f"scoring {path}: it is labelled in {found}, the model predicts {labels.name}")
    with tqdm(total=len(paths), desc="scoring", unit="scene", disable=None) as progress:
        scores = [each.scores for each in evaluate_scenes(folder, paths, config, progress.update)]
    totals = aggregate_scenes(scores, np.array(labels.is_thing), args.seed, config.scores.resamples).values
    names = (*GEOMETRY_METRICS, *PANOPTIC_METRICS)
    metrics = rounded_metrics(totals, names)
    for name in names:
        value, low, high = (metrics[f"{name}{end}"] for end in ("", "_low", "_high"))
        print(f"{name:24} {'-' if value is None else f'{value:.4f}'}  [{low}, {high}]")
    print(f"{len(paths)} scenes, {args.views} views each; intervals over scenes")
    if args.output:
        content = {
            **metrics,
            "scenes": len(paths),
            "per_scene": [plain_scene(score) for score in scores],
            "decisions": dict(DECISIONS),
        }
        write_whole(args.output, f"{json.dumps(content, indent=1, sort_keys=True, allow_nan=False)}\n".encode())
    return 0


def _archives(given: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        found += sorted(path.glob("*.zip")) if path.is_dir() else [path]
    if not found:
        raise DataError(f"scoring: no scene archive in {', '.join(map(str, given))}")
    return found
