"""report: everything measured about both backbones on one self-contained page."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pano3d import config, tracking
from pano3d.data.datasets import TITLES
from pano3d.data.label_spaces import LabelSpace, label_space
from pano3d.data.sampling import spread_views
from pano3d.metrics.confidence import confidence_rank
from pano3d.types import ConfigError, DataError
from pano3d.viz.cloud import SceneCloud, list_segments
from pano3d.viz.contact_sheet import contact_sheet, dataset_columns, encode_jpeg, named_like, prediction_columns
from pano3d.viz.report import render_report
from pano3d.viz.report_data import BackboneReport, ClassRow, Curve, Picture, ReportData, SceneRow, measures

_SCENE_COLUMNS = (
    "pq_scene",
    "pq_scene_strict",
    "unpredicted_share",
    "abs_rel",
    "inlier_103",
    "coverage",
    "registration_rmse",
)


@dataclass(frozen=True)
class ReportConfig:
    """pictures: contact sheets per backbone. clouds: point clouds to turn around, per backbone. cloud_points: points
    of each at most. sheet_views: frames of a contact sheet."""

    pictures: int
    clouds: int
    cloud_points: int
    sheet_views: int

    def __post_init__(self) -> None:
        if min(self.pictures, self.clouds) < 0 or min(self.cloud_points, self.sheet_views) < 1:
            raise ConfigError("report: pictures and clouds must be 0 or more, cloud_points and sheet_views 1 or more")


def run(params: Path, results: Path, reports: Path, output: Path) -> None:
    """Write `output`/index.html.

    Args:
        params: composed parameters of any of the backbones; `report` and `dataset` are read.
        results, reports: folders that hold what the other stages wrote, per backbone.
    """
    settings = config.read(params)
    stage = config.load(params, ReportConfig, "report")
    labels = label_space(settings["dataset"]["label_space"])
    backbones = sorted(path.parent.name for path in results.glob("*/params.yaml"))
    if not backbones:
        raise DataError(f"reporting: {results} has no <backbone>/params.yaml; run the compose stage")
    title = TITLES[settings["dataset"]["name"]]
    protocol = _read(reports / backbones[0] / "evaluate" / "protocol.json")
    scenes = f"{protocol['evaluation']['split']} scenes with up to {protocol['evaluation']['views']} views each"
    data = ReportData(
        title=f"Pano3D on {title}",
        summary=(
            "Reconstruction and 3D panoptic segmentation of unposed photos. Geometry is initialised first, then the "
            "multi-view decoder is fine-tuned jointly on geometry and panoptic labels. All numbers are measured on the "
            f"{scenes}."
        ),
        dataset=_dataset_rows(settings, _read(reports / "check_data" / "metrics.json")),
        dataset_pictures=_dataset_sheets(reports / backbones[0] / "evaluate" / "examples", stage, labels),
        backbones=[_backbone(name, results, reports, stage, labels) for name in backbones],
        protocol={"scenes": f"{title}: {scenes}", **protocol["decisions"]},
        provenance=_provenance(settings),
    )
    with tracking.run("report", settings) as recorder:
        page = render_report(data)
        output.mkdir(parents=True, exist_ok=True)
        partial = output / ".index.html.partial"
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, output / "index.html")
        recorder.log_artifact(output / "index.html", "report")


def _backbone(name: str, results: Path, reports: Path, stage: ReportConfig, labels: LabelSpace) -> BackboneReport:
    params = config.read(results / name / "params.yaml")
    metrics = _read(results / name / "evaluate" / "metrics.json")
    numbers = {key: value for key, value in metrics.items() if not isinstance(value, Mapping)}
    control = metrics.get("geometry_control")
    confidence = _read(results / name / "compare_confidence" / "metrics.json")
    cost = _read(reports / name / "evaluate" / "cost.json")
    examples = sorted((reports / name / "evaluate" / "examples").glob("*.safetensors"))
    arrays = {path.stem: load_file(path) for path in examples}
    figures = sorted((reports / name / "compare_confidence").glob("*.png"))
    return BackboneReport(
        name=name,
        preset=f"{params['backbone']['image_width']}x{params['backbone']['image_height']} {name}",
        license=_read(reports / name / "evaluate" / "protocol.json")["model_license"],
        start=_start_of(params["geometry_init"]),
        geometry_init=measures(metrics["geometry_init"]),
        joint=measures(numbers),
        control=None if control is None else measures(control),
        classes=[
            ClassRow(row["name"], row["is_thing"], *(_number(row[key]) for key in ("pq", "iou", "iou_3d")))
            for row in _read(reports / name / "evaluate" / "classes.json")
        ],
        scenes=[
            SceneRow(scene["name"], {key: _number(scene["values"][key]) for key in _SCENE_COLUMNS})
            for scene in _read(reports / name / "evaluate" / "scenes.json")["joint"]
        ],
        confidence=measures(confidence),
        cost={key: float(value) for key, value in cost.items() if key != "scenes"},
        curves={
            f"Training, {each}": _curves(results / name / each / "curve.csv")
            for each in ("geometry_init", "joint_finetune", "geometry_control")
        },
        pictures=[
            *(_sheet(scene, values, stage, labels) for scene, values in list(arrays.items())[: stage.pictures]),
            *(Picture(f"Confidence: {path.stem}", path.read_bytes()) for path in figures),
        ],
        clouds=[_cloud(scene, values, stage, labels) for scene, values in list(arrays.items())[: stage.clouds]],
    )


def _start_of(chosen: Mapping[str, Any]) -> str:
    """What geometry_init began from, in words."""
    place = chosen["released"] if chosen["source"] == "released" else chosen["weights"]
    return "fresh weights" if chosen["source"] == "scratch" else f"{chosen['source']} weights ({place})"


def _dataset_sheets(examples: Path, stage: ReportConfig, labels: LabelSpace) -> list[Picture]:
    """What is known about the scenes that are also shown as predicted: colour, depth, segments, classes, ambiguous."""
    sheets = []
    for path in sorted(examples.glob("*.safetensors"))[: stage.pictures]:
        values = load_file(path)
        views = spread_views(len(values["colors"]), stage.sheet_views)
        columns = dataset_columns(
            values["colors"][views],
            values["true_depth"][views],
            values["true_segment_id"][views],
            values["true_class_id"][views],
            values["ambiguous"][views].astype(bool) if "ambiguous" in values else None,
            labels.palette,
        )
        sheets.append(Picture(f"{path.stem}: what is true about it", encode_jpeg(contact_sheet(columns))))
    return sheets


def _sheet(scene: str, values: Mapping[str, NDArray[Any]], stage: ReportConfig, labels: LabelSpace) -> Picture:
    views = spread_views(len(values["colors"]), stage.sheet_views)
    columns = prediction_columns(
        values["colors"][views],
        values["segment_id"][views],
        values["true_segment_id"][views],
        values["class_id"][views],
        values["true_class_id"][views],
        confidence_rank(values["confidence"])[views],
        labels.palette,
    )
    return Picture(f"{scene}: image, prediction, truth, confidence", encode_jpeg(contact_sheet(columns)))


def _cloud(scene: str, values: Mapping[str, NDArray[Any]], stage: ReportConfig, labels: LabelSpace) -> SceneCloud:
    """Every few pixels of all views, turned so that the scan's up is up."""
    points = values["points_world"].reshape(-1, 3)
    usable = np.flatnonzero(np.isfinite(points).all(1))
    chosen = usable[np.linspace(0, len(usable) - 1, min(stage.cloud_points, len(usable))).astype(np.int64)]
    scan_from_world = values["scan_from_camera"][0, :3, :3] @ values["world_from_camera"][0, :3, :3].T
    index, listed = list_segments(
        values["segment_id"].ravel()[chosen],
        values["class_id"].ravel()[chosen],
        labels.names,
        labels.palette,
        named_like(values["segment_id"], values["true_segment_id"]).ravel()[chosen],
    )
    return SceneCloud(
        name=scene,
        points=points[chosen] @ scan_from_world.T,
        colors=values["colors"].reshape(-1, 3)[chosen],
        confidence=confidence_rank(values["confidence"]).ravel()[chosen],
        segment=index,
        segments=listed,
    )


def _curves(path: Path) -> list[Curve]:
    """The summed losses of a curve.csv; their parts stay in the file and in the tracking store."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = [name for name in ("loss/total", "loss/geometry", "loss/segmentation") if rows and name in rows[0]]
    return [
        Curve(
            name.removeprefix("loss/"),
            [float(row["step"]) for row in rows if row[name]],
            [float(row[name]) for row in rows if row[name]],
        )
        for name in shown
    ]


def _dataset_rows(settings: Mapping[str, Any], checked: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("dataset", TITLES[settings["dataset"]["name"]])]
    rows += [(key.replace("_", " "), str(settings["dataset"][key])) for key in ("label_space", "license")]
    return rows + [(key.replace("_", " "), f"{value}") for key, value in checked.items() if not isinstance(value, dict)]


def _provenance(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("reproduction", str(settings.get("reproduction", ""))),
        ("seed", str(settings["seed"])),
        ("made by", "dvc repro"),
    ]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"reporting: {path} is missing; run the stage that writes it, or `dvc repro`") from None
    except ValueError as error:
        raise DataError(f"reporting: {path} is not JSON ({error}); run its stage again") from error
