"""evaluate: the geometry-initialised, the joint and the control model of a backbone against the validation scenes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from pano3d import config, tracking
from pano3d.data.label_spaces import LabelSpace, label_space
from pano3d.data.preparation import read_manifest, split_paths
from pano3d.evaluation import (
    EvaluatedScene,
    EvaluationConfig,
    evaluate_scenes,
    evaluation_devices,
    load_reconstructor,
    load_views,
    rounded_metrics,
    truth_of,
)
from pano3d.metrics.scene_scores import (
    DECISIONS,
    GEOMETRY_METRICS,
    PANOPTIC_METRICS,
    DatasetScores,
    aggregate_scenes,
    plain_scene,
)
from pano3d.model_files import holds_model, read_description
from pano3d.stages.workspace import work_folder


def run(params: Path, data: Path, start: Path, model: Path, control: Path, output: Path, results: Path) -> None:
    """Score the models. Killed at any moment, the same call goes on from the scenes it had finished, kept under work/.

    Args:
        start, model, control: folders of the geometry-initialised model, of the joint one and of the geometry_only
            control, which may be empty.
        output: per-scene scores and costs, per-class table and example predictions, for the report.
        results: metrics.json: the joint model's numbers, and under "geometry_init" and "geometry_control" the others'
            geometry.
    """
    settings = config.read(params)
    evaluation = config.load(params, EvaluationConfig, "evaluate")
    labels = label_space(settings["dataset"]["label_space"])
    seed = int(settings["seed"])
    paths = split_paths(data, evaluation.split)
    backbone = settings["backbone"]["name"]
    folders = {"geometry_init": start, "joint": model}
    if holds_model(control):
        folders["geometry_control"] = control
    with tracking.run("evaluate", settings) as recorder:
        recorder.log_input(read_manifest(data), settings["dataset"]["name"], str(data), "", "evaluation")
        finished = work_folder() / "evaluate" / config.digest([str(data.resolve()), backbone, config.plain(evaluation)])
        scenes: dict[str, list[EvaluatedScene]] = {}
        with tqdm(
            total=len(folders) * len(paths), desc=f"evaluate {backbone}", unit="scene", mininterval=2.0
        ) as progress:
            for name, folder in folders.items():
                scenes[name] = evaluate_scenes(folder, paths, evaluation, progress.update, finished)
        totals = {
            name: aggregate_scenes(
                [scene.scores for scene in each], np.array(labels.is_thing), seed, evaluation.scores.resamples
            )
            for name, each in scenes.items()
        }
        joint = totals.pop("joint")
        metrics = {
            **rounded_metrics(joint.values, (*GEOMETRY_METRICS, *PANOPTIC_METRICS)),
            **group_scores(joint, labels),
            **{name: rounded_metrics(total.values, GEOMETRY_METRICS) for name, total in totals.items()},
            "scenes": len(paths),
        }
        if output.exists():
            shutil.rmtree(output)
        output.mkdir(parents=True)
        protocol = {
            "label_space": labels.name,
            "decisions": dict(DECISIONS),
            "evaluation": config.plain(evaluation),
            "model_license": read_description(model).license,
        }
        _write_json(output / "protocol.json", protocol)
        _write_json(
            output / "scenes.json", {name: [plain_scene(s.scores) for s in each] for name, each in scenes.items()}
        )
        cost = summarise_cost([scene for each in scenes.values() for scene in each])
        _write_json(output / "cost.json", cost | {"scenes": {name: _costs(each) for name, each in scenes.items()}})
        _write_json(output / "classes.json", _class_table(joint, labels))
        for path in paths[: evaluation.examples]:
            write_example(output / "examples" / f"{path.stem}.safetensors", model, path, evaluation)
        results.mkdir(parents=True, exist_ok=True)
        _write_json(results / "metrics.json", metrics)
        recorder.log_metrics(metrics | {"cost": cost})
        recorder.log_artifact(output)
        print(
            f"evaluate {backbone}: {cost['seconds_per_scene']} s per model and scene of {evaluation.views} views "
            f"(longest {cost['seconds_longest']} s), at most {cost['peak_mib']} MiB per process"
        )
    shutil.rmtree(finished, ignore_errors=True)  # only now: until the results are whole, it is what saves the work


def write_example(target: Path, folder: Path, path: Path, evaluation: EvaluationConfig) -> None:
    """Prediction and truth of one scene as arrays, for the report's pictures and point clouds."""
    reconstructor = load_reconstructor(folder, evaluation.scene, evaluation_devices()[0])
    width, height = reconstructor.image_width, reconstructor.image_height
    views = load_views(path, evaluation.views, width, height, evaluation.minimum_overlap)
    scene = reconstructor.reconstruct(views.colors)
    truth = truth_of(views, reconstructor.labels.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    ambiguous = [frame.ambiguous for frame in views.frames if frame.ambiguous is not None]
    known = {"ambiguous": np.stack(ambiguous).astype(np.uint8)} if len(ambiguous) == len(views.frames) else {}
    save_file(
        known
        | {
            "colors": np.ascontiguousarray(scene.colors),
            "points_world": scene.points_world,
            "world_from_camera": scene.world_from_camera,
            "confidence": scene.confidence,
            "segment_id": scene.segment_id,
            "class_id": scene.class_id,
            "true_segment_id": truth.segment_id,
            "true_class_id": truth.class_of(truth.segment_id),
            "true_depth": truth.depth.astype(np.float32),
            "scan_from_camera": truth.scan_from_camera,
        },
        target,
    )


def summarise_cost(scenes: Sequence[EvaluatedScene]) -> dict[str, float]:
    """What scoring took, for page, tracking and terminal: median and longest wall time of a scene, highest memory."""
    seconds = [scene.seconds for scene in scenes]
    return {
        "seconds_per_scene": round(float(np.median(seconds)), 2),
        "seconds_longest": round(max(seconds), 2),
        "peak_mib": round(max(scene.peak_bytes for scene in scenes) / 2**20),
    }


def _costs(scenes: Sequence[EvaluatedScene]) -> list[dict[str, Any]]:
    """Wall time and highest memory of each scene, and the device of the worker that scored it."""
    return [
        {
            "name": scene.scores.name,
            "seconds": round(scene.seconds, 2),
            "peak_mib": round(scene.peak_bytes / 2**20),
            "device": scene.device,
        }
        for scene in scenes
    ]


def group_scores(scores: DatasetScores, labels: LabelSpace) -> dict[str, float]:
    """Means over ScanNet200's head, common and tail classes, of those that occur: `miou_head` and the like. Empty for
    label spaces without groups; a group of which no class occurs has none."""
    tables = {"pq_coco": scores.class_pq, "miou": scores.class_iou, "miou_3d": scores.class_iou_3d}
    found = {}
    for group, members in labels.groups.items():
        for name, table in tables.items():
            known = table[list(members)][np.isfinite(table[list(members)])]
            if len(known):
                found[f"{name}_{group}"] = round(float(known.mean()), 4)
    return found


def _class_table(scores: DatasetScores, labels: LabelSpace) -> list[dict[str, Any]]:
    def number(value: float) -> float | None:
        return round(float(value), 4) if math.isfinite(value) else None

    return [
        {"name": name, "is_thing": thing, "pq": number(pq), "iou": number(iou), "iou_3d": number(iou_3d)}
        for name, thing, pq, iou, iou_3d in zip(
            labels.names, labels.is_thing, scores.class_pq, scores.class_iou, scores.class_iou_3d, strict=True
        )
    ]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
