"""Small report data that exercise every part of the page."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from pano3d.data.label_spaces import label_space
from pano3d.metrics.confidence import aggregate_confidence, border_distance, compare_scene, confidence_rank, silhouettes
from pano3d.metrics.scene_scores import DECISIONS, aggregate_scenes, score_scene
from pano3d.metrics.scenes import SceneTruth, true_points
from pano3d.types import VOID
from pano3d.viz.cloud import SceneCloud, list_segments
from pano3d.viz.colors import class_colors
from pano3d.viz.confidence import ConfidenceFrame, confidence_figure
from pano3d.viz.contact_sheet import contact_sheet, dataset_columns, encode_png, prediction_columns
from pano3d.viz.report_data import (
    BackboneReport,
    ClassRow,
    Curve,
    Measure,
    Picture,
    ReportData,
    SceneRow,
    measures,
)
from tests.metrics.scenes import CLASSES, IS_THING, perfect_prediction, true_scene

PALETTE = label_space("scannet20").palette


def colors_of(truth: SceneTruth) -> np.ndarray:
    """Something like photographs: class colours shaded by depth, with noise."""
    shade = 1.1 - truth.depth[..., None] / 12
    noise = np.random.default_rng(0).normal(0, 6, (*truth.depth.shape, 3))
    base = class_colors(truth.class_of(truth.segment_id), PALETTE)
    return np.clip(base * shade + noise, 0, 255).astype(np.uint8)


def backbone(name: str, control: bool, size: int = 1) -> BackboneReport:
    truth = true_scene(views=3, height=48 * size, width=64 * size)
    colors = colors_of(truth)
    perfect = perfect_prediction(truth, 0.5)
    rng = np.random.default_rng(1)
    scenes = []
    for cut in (0.0, 0.15, 0.3):
        lost = np.arange(truth.depth.size).reshape(truth.depth.shape) < cut * truth.depth.size
        noise = np.exp(rng.normal(0, 0.02 + 0.1 * cut, truth.depth.shape)).astype(np.float32)
        scenes.append(
            score_scene(
                dataclasses.replace(
                    perfect,
                    segment_id=np.where(lost, 0, perfect.segment_id),
                    class_id=np.where(lost, VOID, perfect.class_id),
                    depth=perfect.depth * noise,
                    points_world=perfect.points_world + rng.normal(0, 0.01 + 0.05 * cut, perfect.points_world.shape),
                ),
                truth,
            )
        )
    dataset = aggregate_scenes(scenes, IS_THING, 0, 100)
    joint = measures(dataset.values)
    start = {k: Measure(m.value * 1.3, m.low * 1.2, m.high * 1.5) for k, m in joint.items() if k == "abs_rel"}
    start |= {k: Measure(m.value * 0.9, m.low * 0.8, m.high) for k, m in joint.items() if k != "abs_rel"}
    frozen = rng.normal(0, 0.5, truth.depth.shape) - truth.depth
    silhouette = silhouettes(truth.segment_id)
    maps = {"frozen": frozen, "joint": frozen + np.minimum(border_distance(truth.segment_id), 15) / 10}
    maps |= {"control": frozen + rng.normal(0, 0.1, frozen.shape)} if control else {}
    error = {model: np.exp(-value / 4 + rng.normal(0, 0.3, value.shape)) for model, value in maps.items()}
    regions = {"silhouette": silhouette, "ambiguous": truth.segment_id == 5}
    confidence = aggregate_confidence([compare_scene("room", maps, "conf_logits", error, regions)], 0, 50)
    ranks = {model: confidence_rank(value) for model, value in maps.items()}
    seen = np.flatnonzero(truth.depth.ravel() > 0)
    of_class = truth.class_of(truth.segment_id).ravel()[seen]
    index, listed = list_segments(truth.segment_id.ravel()[seen], of_class, label_space("scannet20").names, PALETTE)
    steps = list(range(0, 400, 5))
    return BackboneReport(
        name=name,
        preset=f"{name}_tiny",
        license="Apache-2.0",
        start="fresh weights",
        geometry_init=start,
        joint=joint,
        control=start if control else None,
        classes=[
            ClassRow(c, bool(t), *map(float, numbers))
            for c, t, *numbers in zip(CLASSES, IS_THING, dataset.class_pq, dataset.class_iou, dataset.class_iou_3d)
        ],
        scenes=[
            SceneRow(f"room_{i}", {k: s.values[k] for k in ("pq_scene", "abs_rel", "ate")})
            for i, s in enumerate(scenes)
        ],
        confidence=measures(confidence.values),
        cost={"seconds_per_scene": 0.53, "seconds_longest": 1.4, "peak_mib": 612.0},
        curves={
            "Loss": [
                Curve("train", steps, [4 * math.exp(-step / 90) + 0.4 for step in steps]),
                Curve("validation", steps[::8], [1.0 for _ in steps[::8]]),
            ]
        },
        pictures=[
            Picture(
                "Predicted and true, first views",
                encode_png(
                    contact_sheet(
                        prediction_columns(
                            colors,
                            perfect.segment_id,
                            truth.segment_id,
                            perfect.class_id,
                            truth.class_of(truth.segment_id),
                            ranks["joint"],
                            PALETTE,
                        )
                    )
                ),
            ),
            Picture(
                "Confidence before and after joint fine-tuning",
                confidence_figure(
                    [ConfidenceFrame("view 0", colors[0], {model: rank[0] for model, rank in ranks.items()})], "room"
                ),
            ),
        ],
        clouds=[
            SceneCloud(
                name=f"room_{i}",
                points=true_points(truth).reshape(-1, 3)[seen],
                colors=colors.reshape(-1, 3)[seen],
                confidence=ranks["joint"].ravel()[seen],
                segment=index,
                segments=listed,
            )
            for i in range(2)
        ],
    )


def report_data(size: int = 1) -> ReportData:
    truth = true_scene(views=3, height=48 * size, width=64 * size)
    sheet = contact_sheet(
        dataset_columns(
            colors_of(truth),
            truth.depth,
            truth.segment_id,
            truth.class_of(truth.segment_id),
            truth.segment_id == 5,
            PALETTE,
        )
    )
    return ReportData(
        title="Pano3D on generated rooms",
        summary="Unposed photos of a room to 3D and its panoptic segmentation: what this run measured.",
        dataset=[("scenes", "320 train, 24 validation"), ("licence", "Apache-2.0 <generated>")],
        dataset_pictures=[Picture("What the data look like", encode_png(sheet))],
        backbones=[backbone("must3r", control=True, size=size), backbone("pi3", control=False, size=size)],
        protocol=DECISIONS,
        provenance=[("git commit", "0123456"), ("seed", "0")],
    )
