"""What the report shows, as plain values: whoever measures fills these, `report.render_report` only draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pano3d.viz.cloud import SceneCloud


@dataclass(frozen=True)
class Measure:
    """A number with the interval of a bootstrap over scenes; NaN = undefined."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def measures(values: Mapping[str, float | None]) -> dict[str, Measure]:
    """Read `name`, `name_low`, `name_high` (None = undefined), as metrics.json holds them."""

    def number(name: str) -> float:
        value = values.get(name)
        return float("nan") if value is None else float(value)

    names = [name for name in values if not name.endswith(("_low", "_high"))]
    return {name: Measure(number(name), number(f"{name}_low"), number(f"{name}_high")) for name in names}


@dataclass(frozen=True)
class ClassRow:
    """Scores of one class over the dataset, NaN where it does not occur."""

    name: str
    is_thing: bool
    pq: float
    iou: float
    iou_3d: float


@dataclass(frozen=True)
class SceneRow:
    """Scores of one scene by column name."""

    name: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """A training curve, or any other line: x and y of equal length."""

    name: str
    x: Sequence[int | float]
    y: Sequence[int | float]


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG with its caption."""

    caption: str
    data: bytes


@dataclass(frozen=True)
class BackboneReport:
    """One backbone's part.

    start: what geometry_init began from. geometry_init, joint: measures of the models before and after joint
    fine-tuning. control: of a model fine-tuned for as long without segmentation, where it was trained. confidence:
    measures of `compare_confidence`. cost: of scoring, as `evaluate` sums it up.
    """

    name: str
    preset: str
    license: str
    start: str
    geometry_init: Mapping[str, Measure]
    joint: Mapping[str, Measure]
    control: Mapping[str, Measure] | None = None
    classes: Sequence[ClassRow] = ()
    scenes: Sequence[SceneRow] = ()
    confidence: Mapping[str, Measure] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    clouds: Sequence[SceneCloud] = ()


@dataclass(frozen=True)
class ReportData:
    """A whole reproduction. dataset, provenance: rows of name and text. protocol: metric -> how it is measured."""

    title: str
    summary: str
    dataset: Sequence[tuple[str, str]]
    dataset_pictures: Sequence[Picture]
    backbones: Sequence[BackboneReport]
    protocol: Mapping[str, str]
    provenance: Sequence[tuple[str, str]]
