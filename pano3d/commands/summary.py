"""summary: the numbers of a reproduction in one small table, and where to look further."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from pano3d.commands.results import Layout, layout, read_metrics
from pano3d.tracking import store

# name in metrics.json, heading
GEOMETRY = (("abs_rel", "depth error"), ("inlier_103", "inliers 1.03"), ("rotation_auc30", "rotation AUC@30"))
PANOPTIC = (("pq_scene", "PQ scene"), ("pq_coco", "PQ per image"), ("miou", "mIoU"), ("ap50_agnostic", "AP50 agnostic"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", help="default: the one params/run.yaml chooses")


def main(args: argparse.Namespace) -> int:
    """Print; reads results/ only."""
    place = layout(args.dataset)
    print("\n".join([*table(place), "", *where_to_look(place)]))
    return 0


def table(place: Layout) -> list[str]:
    """A block per backbone: one line per metric, one column per model; intervals over scenes in brackets."""
    lines = [f"Results on the validation scenes of {place.dataset}, percent [interval over scenes]"]
    for backbone in place.backbones():
        metrics = read_metrics(place.metrics(backbone, "evaluate"))
        columns: list[tuple[str, Mapping[str, Any]]] = [("joint", metrics)]
        columns[:0] = [(name, metrics[name]) for name in ("geometry_init", "geometry_control") if name in metrics]
        rows = [[backbone, *(name for name, _ in columns)]]
        for name, heading in (*GEOMETRY, *PANOPTIC):
            rows.append([heading, *(_cell(values, name) for _, values in columns)])
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        lines.append("")
        for row in rows:
            lines.append("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    return lines


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    value = metrics.get(name)
    if value is None:
        return "-"
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{interval}"


def where_to_look(place: Layout) -> list[str]:
    """The report, the runs, the registered models."""
    names = ", ".join(f"pano3d-{backbone}" for backbone in place.backbones())
    lines = [f"report             {place.report()}"]
    if store.is_on():
        address = store.masked(store.address())
        # Without its job runner the server is two processes instead of nine.
        server = f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri {address}"
        lines += [f"runs               {server}", f"registered models  {names} (alias challenger)"]
    return lines
