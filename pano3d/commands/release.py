"""release: a trained model as half-precision weights with a card that says what it can do, measured on test rooms."""

from __future__ import annotations

import argparse
import csv
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pano3d import config
from pano3d.types import DataError

if TYPE_CHECKING:
    from pano3d.evaluation import EvaluationConfig
    from pano3d.metrics.scene_scores import DatasetScores, SceneScores
    from pano3d.model_files import ModelDescription

CARD, CURVE = "README.md", "curve.csv"
VIEWS = (1, 2, 4, 8)
SHARED = 0.3  # of pixels, in the row of connected views
MAX_MEGABYTES = 50.0  # what a clone still takes well
_GEOMETRY = {"abs_rel": "depth error", "inlier_103": "inliers 1.03", "rotation_auc30": "rotation AUC@30"}
_PANOPTIC = {"pq_scene": "PQ scene", "miou": "mIoU", "ap50_agnostic_posed": "AP50 agnostic, posed"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="folder of a training stage")
    parser.add_argument("--params", type=Path, required=True, help="the composed params.yaml it was trained with")
    parser.add_argument("--data", type=Path, required=True, help="prepared archives; the card is measured on a split")
    parser.add_argument("--split", default="test")
    parser.add_argument("--curve", type=Path, required=True, help="curve.csv of its training")
    parser.add_argument("--trained-on", required=True, help="hardware and hours, for the card")
    parser.add_argument(
        "--experiment", default="rooms_released", help="of params/experiment, for the card (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, required=True, help="e.g. weights/pi3_tiny_joint")


def main(args: argparse.Namespace) -> int:
    """Write weights, description, curve, card and pictures; `output` is replaced as a whole."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from pano3d.data.archive import read_scene
    from pano3d.data.label_spaces import label_space
    from pano3d.data.preparation import split_paths
    from pano3d.data.rooms.generate import LICENSE
    from pano3d.evaluation import EvaluationConfig, evaluate_scenes
    from pano3d.metrics.scene_scores import aggregate_scenes
    from pano3d.model_files import WEIGHTS, read_description, read_model, write_model

    settings = config.read(args.params)
    evaluation = replace(config.load(args.params, EvaluationConfig, "evaluate"), split=args.split)
    paths = split_paths(args.data, args.split)
    rooms = [str(read_scene(path).provenance.get("room", "any")) for path in paths]
    curve = _read_curve(args.curve)
    model, description = read_model(args.model)
    if description.license != LICENSE:
        raise DataError(
            f"releasing {args.model}: its licence is {description.license}; only models that saw nothing but generated "
            f"rooms ({LICENSE}) are released, keep this one in the registry (pano3d register)"
        )
    partial = args.output.with_name(f".{args.output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    trained = {
        **description.provenance,
        "trained_on": args.trained_on,
        "full_precision_sha256": description.weights_sha256,
    }
    write_model(partial, model, description.config, description.license, trained, dtype=torch.float16)
    megabytes = (partial / WEIGHTS).stat().st_size / 1e6
    if megabytes > MAX_MEGABYTES:
        raise DataError(f"releasing {args.model}: {megabytes:.1f} MB of weights; at most {MAX_MEGABYTES} go into git")
    shutil.copy2(args.curve, partial / CURVE)
    # Scored from what is shipped, so that the rounding to half precision is in the numbers.
    labels = label_space(description.config.label_space)
    scores: dict[str, list[SceneScores]] = {}
    sets = [(views, 0.0) for views in VIEWS] + [(4, SHARED)]
    with tqdm(total=len(sets) * len(paths), desc=f"release {args.output.name}", unit="scene") as progress:
        for views, overlap in sets:
            how = replace(evaluation, views=views, minimum_overlap=overlap)
            evaluated = evaluate_scenes(partial, paths, how, progress.update)
            scores[f"{views}, sharing {overlap:g}" if overlap else str(views)] = [each.scores for each in evaluated]

    def total(each: Sequence[SceneScores]) -> DatasetScores:
        return aggregate_scenes(each, np.array(labels.is_thing), int(settings["seed"]), evaluation.scores.resamples)

    is_joint = description.provenance["stage"] == "joint_finetune"
    at_four = scores["4"]
    by_room = defaultdict(list)
    for room, score in zip(rooms, at_four, strict=True):
        by_room[room].append(score)
    pictures = _draw(partial, paths, at_four, is_joint, evaluation) if paths else {}
    card = _Card(
        name=args.output.name,
        description=read_description(partial),
        settings=settings,
        experiment=args.experiment,
        split=args.split,
        is_joint=is_joint,
        megabytes=megabytes,
        by_views={views: total(each).values for views, each in scores.items()},
        by_room={room: total(each).values for room, each in sorted(by_room.items())},
        overall=total(at_four),
        class_names=labels.names,
        curve=curve,
        pictures=pictures,
    )
    (partial / CARD).write_text("\n".join(card.lines()) + "\n", encoding="utf-8")
    shutil.rmtree(args.output, ignore_errors=True)
    partial.rename(args.output)
    print(f"{args.output}: {megabytes:.1f} MB, see {args.output / CARD}")
    return 0


def _read_curve(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "step" not in rows[0]:
        raise DataError(f"reading {path}: expected a training curve with a column `step` and at least one row")
    return rows


def _draw(
    folder: Path, paths: Sequence[Path], scores: Sequence[SceneScores], is_joint: bool, evaluation: EvaluationConfig
) -> dict[str, str]:
    """Pictures of the median and of the worst scene, file name -> caption."""
    import cv2
    import numpy as np
    import torch

    from pano3d.evaluation import evaluate_scene, load_reconstructor, truth_of
    from pano3d.metrics.confidence import confidence_rank
    from pano3d.viz.colors import depth_colors
    from pano3d.viz.contact_sheet import contact_sheet, prediction_columns

    key, sign = ("pq_scene", 1) if is_joint else ("abs_rel", -1)
    order = sorted(range(len(paths)), key=lambda i: sign * _finite(scores[i].values[key]))
    reconstructor = load_reconstructor(folder, evaluation.scene, torch.device("cpu"))
    pictures = {}
    for word, index in (("worst", order[0]), ("median", order[len(order) // 2])):
        score, scene, views = evaluate_scene(reconstructor, paths[index], replace(evaluation, views=4))
        truth = truth_of(views, reconstructor.labels.name)
        if is_joint:
            columns = prediction_columns(
                scene.colors,
                scene.segment_id,
                truth.segment_id,
                scene.class_id,
                truth.class_of(truth.segment_id),
                confidence_rank(scene.confidence),
                reconstructor.labels.palette,
            )
        else:
            scale = np.median(truth.depth[truth.depth > 0]) / np.median(scene.depth)
            far = float(truth.depth.max())
            columns = [
                ("image", scene.colors),
                ("depth, predicted", depth_colors(scale * scene.depth, 0.0, far)),
                ("depth, true", depth_colors(truth.depth, 0.0, far)),
            ]
        cv2.imwrite(str(folder / f"{word}.png"), contact_sheet(columns, tile_width=160)[:, :, ::-1])
        pictures[f"{word}.png"] = f"The {word} scene by {key} ({paths[index].stem}: {score.values[key]:.3f})."
    return pictures


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


@dataclass(frozen=True)
class _Card:
    """The model card. by_views and by_room: scores of `DatasetScores.values`; overall: at four views."""

    name: str
    description: ModelDescription
    settings: Mapping[str, Any]
    experiment: str
    split: str
    is_joint: bool
    megabytes: float
    by_views: Mapping[str, Mapping[str, float]]
    by_room: Mapping[str, Mapping[str, float]]
    overall: DatasetScores
    class_names: Sequence[str]
    curve: Sequence[Mapping[str, str]]
    pictures: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """Markdown."""
        provenance, sizes = self.description.provenance, self.settings["dataset"]["generator"]
        stage = self.settings[provenance["stage"]]
        loader = stage["training"]["loader"]
        what = (
            "geometry and panoptic segmentation" if self.is_joint else "geometry only (its panoptic half is untrained)"
        )
        yield f"# {self.name}"
        yield ""
        yield f"{self.settings['backbone']['name']} at {loader['image_width']}x{loader['image_height']}: {what}."
        yield "Trained on generated rooms alone; it knows nothing of photographs, people or the outdoors."
        yield ""
        yield f"- data: {sizes['scenes']['train']} generated rooms x {sizes['frames']['train']} photos of"
        yield f"  {sizes['width']}x{sizes['height']}, quality `{sizes['quality']}`, seed {self.settings['seed']}"
        if "split_from" in provenance:
            yield "- command: `experiment: rooms_released_coarse` in params/run.yaml, `dvc repro`, `split-patches`"
        else:
            yield f"- command: see `params/experiment/{self.experiment}.yaml`"
        sets = ", ".join(map(str, loader["views"]))
        yield f"- training: {provenance['steps']} steps of {loader['images_per_batch']} photos in sets of {sets}"
        yield f"- hardware: {provenance['trained_on']}"
        yield f"- licence: {self.description.license} (only our own generated data went in)"
        yield f"- weights: float16, {self.megabytes:.1f} MB, SHA-256 `{self.description.weights_sha256}`"
        names = {**_GEOMETRY, **(_PANOPTIC if self.is_joint else {})}
        yield ""
        yield f"## Scores on {self.overall.num_scenes} {self.split} rooms, percent [95 % interval over scenes]"
        yield ""
        yield "Reserved furniture variants, textures and palettes occur there. Views are spread evenly over a room's"
        yield "photos; `sharing`: every one shares that part of its pixels with one before it. Definitions:"
        yield "`pano3d/metrics`."
        yield ""
        yield from _table("views", self.by_views, names, True)
        yield ""
        yield "By type of room, 4 views:"
        yield ""
        yield from _table("room", self.by_room, names, False)
        if self.is_joint:
            yield ""
            yield "By class, 4 views:"
            yield ""
            yield "| class | PQ per image | IoU |"
            yield "|---|---|---|"
            for class_name, pq, iou in zip(
                self.class_names, self.overall.class_pq, self.overall.class_iou, strict=True
            ):
                yield f"| {class_name} | {_percent(pq)} | {_percent(iou)} |"
        yield ""
        yield f"## Training curve ({CURVE})"
        yield ""
        shown = [name for name in ("loss/geometry", "loss/segmentation", "loss/total") if name in self.curve[0]]
        yield f"| step | {' | '.join(shown)} |"
        yield "|---" * (len(shown) + 1) + "|"
        for row in self.curve[:: max(1, len(self.curve) // 8)]:
            yield f"| {row['step']} | {' | '.join(row[name] for name in shown)} |"
        for file, caption in self.pictures.items():
            yield ""
            yield f"![{caption}]({file})"
            yield ""
            yield caption


def _table(
    heading: str, rows: Mapping[str, Mapping[str, float]], names: Mapping[str, str], with_intervals: bool
) -> Iterator[str]:
    yield f"| {heading} | {' | '.join(names.values())} |"
    yield "|---" * (len(names) + 1) + "|"
    for row, values in rows.items():
        cells = [
            _percent(values[name])
            + (f" [{_percent(values[f'{name}_low'])}, {_percent(values[f'{name}_high'])}]" if with_intervals else "")
            for name in names
        ]
        yield f"| {row} | {' | '.join(cells)} |"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else "-"
