"""Scores of scenes made by hand, and the folder an evaluate stage would leave with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pano3d.metrics.instance_ap import AP_THRESHOLDS, Examples
from pano3d.metrics.scene_scores import ClassCounts, SceneScores, aggregate_scenes, plain_scene

CLASSES = 2
PROTOCOL = {"decisions": {"pq_scene": "mean"}, "evaluation": {"split": "validation", "views": 4, "workers": 1}}


def scene(name: str, pq: float, abs_rel: float = 0.2, hits: int = 50) -> SceneScores:
    """A scene with these scores; everything pooled over scenes follows from `hits` of 100."""
    counts = ClassCounts(*(np.full(CLASSES, each, np.int64) for each in (hits, 100, 100)))
    examples = [Examples(score=[0.9], is_hit=[True], misses=1, has_truth=True) for _ in AP_THRESHOLDS]
    degrees = np.zeros(31, np.int64)
    degrees[5] = 10
    values = dict.fromkeys(("pq_scene_strict", "unpredicted_share", "ate", "coverage", "registration_rmse"), 0.5)
    depth = {"abs_rel": abs_rel, "abs_rel_per_view": abs_rel, "inlier_103": 0.3, "inlier_103_per_view": 0.3}
    return SceneScores(
        name=name,
        alignment="cameras",
        values={"pq_scene": pq, **depth, **values},
        coco=np.array([[0.7] * CLASSES, [1.0] * CLASSES, [0.5] * CLASSES, [0.5] * CLASSES]),
        pixels=counts,
        surface=counts,
        agnostic=examples,
        agnostic_posed=examples,
        rotation_histogram=degrees,
        pose_histogram=degrees,
    )


def scenes(gain: float = 0.0, count: int = 12, **named: Any) -> list[SceneScores]:
    """Scenes of very different difficulty, each `gain` better in PQ than with no gain."""
    return [scene(f"room-{index:02}", 0.1 + 0.06 * index + gain, **named) for index in range(count)]


def pooled(each: list[SceneScores]) -> dict[str, float]:
    return aggregate_scenes(each, np.zeros(CLASSES, bool), 0, 0).values


def write_scores(folder: Path, each: list[SceneScores], protocol: dict[str, Any] | None = None) -> Path:
    """What the evaluate stage leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenes.json").write_text(json.dumps({"joint": [plain_scene(one) for one in each]}))
    (folder / "protocol.json").write_text(json.dumps(protocol or PROTOCOL))
    (folder / "classes.json").write_text(json.dumps([{"name": "wall", "pq": 0.5}, {"name": "floor", "pq": 0.4}]))
    return folder
