"""The objects of a scene as a table: class, points, extent, views, score."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from pano3d.files import write_whole
from pano3d.types import PanopticScene

INNER = (2.0, 98.0)
"""Percentiles of a segment's points between which its extent is measured: stray points must not decide it."""


@dataclass(frozen=True)
class SegmentRow:
    """One object.

    points: of its pixels that are kept. views: in which it is seen.
    center, extent: (x, y, z) in units of `world`; NaN without points.
    """

    id: int
    class_id: int
    class_name: str
    is_thing: bool
    points: int
    views: int
    score: float
    center: tuple[float, float, float]
    extent: tuple[float, float, float]


def segment_rows(scene: PanopticScene, is_kept: Bool[np.ndarray, "v h w"]) -> list[SegmentRow]:
    """In the order of the scene's segments."""
    rows = []
    for segment in scene.segments:
        mine = scene.segment_id == segment.id
        points = scene.points_world[mine & is_kept].astype(np.float64)
        low, high = np.percentile(points, INNER, axis=0) if len(points) else np.full((2, 3), np.nan)
        rows.append(
            SegmentRow(
                segment.id,
                segment.class_id,
                segment.class_name,
                segment.is_thing,
                len(points),
                int(mine.any(axis=(1, 2)).sum()),
                segment.score,
                tuple(((low + high) / 2).tolist()),
                tuple((high - low).tolist()),
            )
        )
    return rows


def write_segments(rows: list[SegmentRow], path: Path) -> None:
    """`segments.csv`, one line per object."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    axes = ("x", "y", "z")
    table.writerow(
        ["id", "class_id", "class", "is_thing", "points", "views", "score"]
        + [f"{kind}_{axis}" for kind in ("center", "extent") for axis in axes]
    )
    for row in rows:
        numbers = [f"{value:.5g}" for value in (*row.center, *row.extent)]
        plain = [row.id, row.class_id, row.class_name, int(row.is_thing), row.points, row.views, f"{row.score:.4f}"]
        table.writerow([*plain, *numbers])
    write_whole(path, text.getvalue().encode())
