"""ablation-table: the runs of an ablation as a table in the paper's shape, a figure, and MLflow runs.

The runs come as one JSON list; each entry is a variant with a backbone and a seed, and either the metrics of its
`evaluate` and `compare_confidence` stages or the reason why there are none.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pano3d.types import DataError

# Metric, heading, whether it needs a trained panoptic half. The last two are of the variant's confidence: its mean rank
# within a scene on glass, mirrors and shiny things against that of geometry_init's model, and the area between the
# errors that are left when the least sure points go first and when the worst do (0 = confidence knows the error).
COLUMNS = (
    ("pq_scene", "PQ scene", True),
    ("miou", "mIoU", True),
    ("miou_3d", "mIoU 3D", True),
    ("ap50_agnostic", "AP50 agnostic", True),
    ("abs_rel", "AbsRel", False),
    ("inlier_103", "inliers 1.03", False),
    ("rotation_auc30", "rotation AUC@30", False),
    ("change_ambiguous", "confidence rank on glass", False),
    ("ause_joint", "AUSE", False),
)
# Percent: mIoU 3D, AP 3D, AbsRel, on ScanNet with MUSt3R. From a third-party reading note; we never saw the table.
REPORTED: Mapping[str, tuple[float | None, float | None, float | None]] = {
    "frozen": (61.9, 10.8, 5.2),
    "semantic_only": (None, None, 156.3),
    "joint": (65.3, 15.7, 3.5),
    "encoder": (60.4, 7.8, 3.4),
    "decoder": (63.8, 13.9, 3.7),
}
REPORTED_HEADINGS = ("paper mIoU 3D", "paper AP 3D", "paper AbsRel")


@dataclass(frozen=True)
class Run:
    """One trained and scored variant; `metrics` is empty where `failure` says why."""

    variant: str
    backbone: str
    seed: int
    metrics: Mapping[str, Any]
    failure: str = ""


@dataclass(frozen=True)
class Row:
    """A variant with one backbone over its seeds: (mean, spread) per metric, spread None for a single seed."""

    variant: str
    backbone: str
    seeds: tuple[int, ...]
    values: Mapping[str, tuple[float, float | None]]
    failures: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, help="JSON list of runs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for table.md, table.csv, figure.png")
    parser.add_argument("--name", required=True, help="of the ablation; the same name is the same MLflow run")


def main(args: argparse.Namespace) -> int:
    """Write the table and the figure, record them, print the table."""
    rows = summarise(read_runs(args.runs))
    args.output.mkdir(parents=True, exist_ok=True)
    text = markdown(rows)
    (args.output / "table.md").write_text(text, encoding="utf-8")
    with open(args.output / "table.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(cells(rows))
    (args.output / "figure.png").write_bytes(figure(rows))
    from pano3d.tracking import ablations

    children = [
        ablations.Variant(
            name=f"{row.variant}@{row.backbone}",
            tags={"variant": row.variant, "backbone": row.backbone, "seeds": " ".join(map(str, row.seeds))},
            metrics={name: value for name, (value, _) in row.values.items()}
            | {f"{name}_spread": spread for name, (_, spread) in row.values.items() if spread is not None},
            failures=row.failures,
        )
        for row in rows
    ]
    ablations.record(args.name, children, [args.runs, *sorted(args.output.iterdir())])
    print(text)
    return 0


def read_runs(path: Path) -> list[Run]:
    """Runs from a JSON file.

    Raises:
        DataError: it does not hold a list of runs, or an empty one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, list) or not content:
            raise ValueError(f"found {json.dumps(content)[:60]}")
        return [Run(**entry) for entry in content]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"reading {path}: expected a JSON list of runs as the ablate flow writes it: {error}"
        ) from error


def summarise(runs: Sequence[Run]) -> list[Row]:
    """One row per variant and backbone, in the order of their first appearance; spread is the sample deviation."""
    rows = []
    for variant, backbone in dict.fromkeys((run.variant, run.backbone) for run in runs):
        own = [run for run in runs if (run.variant, run.backbone) == (variant, backbone)]
        scored = [run for run in own if not run.failure]
        values = {}
        for name, _, is_panoptic in COLUMNS:
            if is_panoptic and variant == "geometry_only":
                continue  # its panoptic half was never trained
            numbers = [run.metrics.get(name) for run in scored]
            known = [float(number) for number in numbers if number is not None and math.isfinite(number)]
            if known:
                values[name] = (statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)
        failures = tuple(f"seed {run.seed}: {run.failure}" for run in own if run.failure)
        rows.append(Row(variant, backbone, tuple(run.seed for run in scored), values, failures))
    return rows


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table: measured columns, then the paper's, then what failed."""
    table = [["variant", "backbone", "seeds", *(heading for _, heading, _ in COLUMNS), *REPORTED_HEADINGS, "failed"]]
    for row in rows:
        reported = REPORTED.get(row.variant, (None, None, None)) if row.backbone == "must3r" else (None, None, None)
        table.append(
            [
                row.variant,
                row.backbone,
                str(len(row.seeds)),
                *(_measured(row.values.get(name)) for name, _, _ in COLUMNS),
                *("-" if value is None else f"{value:.1f}" for value in reported),
                "; ".join(row.failures) or "-",
            ]
        )
    return table


def markdown(rows: Sequence[Row]) -> str:
    """The same as Markdown, with what its columns are."""
    heading, *body = ([cell.replace("|", "/").replace("\n", " ") for cell in line] for line in cells(rows))
    lines = [heading, ["---"] * len(heading), *body]
    note = (
        "Percent, mean ± sample deviation over seeds of fine-tuning (data and geometry_init are shared). "
        "*Confidence rank on glass*: mean change since geometry_init on glass, mirrors and shiny surfaces, where 100 "
        "is from the least to the most confident pixel of the scene. *AUSE*: 0 where confidence orders points as their "
        "errors do. Columns headed *paper* are reported for ScanNet with networks a hundred times larger, and are not "
        "comparable."
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def _measured(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return "-"
    mean, spread = value
    return f"{100 * mean:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def figure(rows: Sequence[Row]) -> bytes:
    """One panel per metric: a bar per variant, backbones side by side, the spread as a whisker."""
    import io

    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot

    variants = list(dict.fromkeys(row.variant for row in rows))
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    drawing, panels = pyplot.subplots(3, 3, figsize=(13, 4 + 0.75 * len(variants)), sharey=True)
    height = 0.8 / len(backbones)
    for panel, (name, title, _) in zip(panels.flat, COLUMNS, strict=True):
        for offset, backbone in enumerate(backbones):
            found = [
                (variants.index(r.variant), *r.values[name])
                for r in rows
                if r.backbone == backbone and name in r.values
            ]
            panel.barh(
                np.array([at for at, _, _ in found]) + offset * height,
                [100 * mean for _, mean, _ in found],
                height,
                xerr=[100 * (spread or 0.0) for _, _, spread in found],
                label=backbone,
            )
        panel.set_title(f"{title}, percent")
        panel.set_yticks(np.arange(len(variants)) + 0.4 - height / 2, variants)
    panels.flat[0].invert_yaxis()
    panels.flat[0].legend()
    drawing.tight_layout()
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    pyplot.close(drawing)
    return buffer.getvalue()
