"""Confidence figures: the same frames by image, each model's rank and the signed differences, on one scale."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pano3d.metrics.confidence import REMOVED
from pano3d.types import DataError
from pano3d.viz.colors import CHANGE_LIMIT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110


@dataclass(frozen=True)
class ConfidenceFrame:
    """One frame. color: (H, W, 3) uint8. ranks: (H, W) confidence in [0, 1], ranked over the scene, under "frozen",
    "joint" and, where it was trained, "control"."""

    title: str
    color: NDArray[np.uint8]
    ranks: Mapping[str, NDArray[np.floating]]


def confidence_figure(frames: Sequence[ConfidenceFrame], heading: str) -> bytes:
    """PNG with one row per frame: the image, every model's ranks, and joint minus each other; same input, same bytes.

    Raises:
        DataError: there is no frame, a map does not have its picture's size, or frames show different models.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not frames:
        raise DataError("drawing confidence: no frames")
    for frame in frames:
        sizes = {name: rank.shape for name, rank in frame.ranks.items()}
        if set(sizes) != set(frames[0].ranks) or not {"frozen", "joint"} <= set(sizes):
            raise DataError(f"drawing confidence of {frame.title}: expected frozen and joint in all frames: {sizes}")
        if set(sizes.values()) != {frame.color.shape[:2]}:
            raise DataError(f"drawing confidence of {frame.title}: image {frame.color.shape[:2]} and {sizes} differ")
    models = [name for name in ("frozen", "control", "joint") if name in frames[0].ranks]
    others = [name for name in models if name != "joint"]
    titles = ["image", *(f"{name} (rank)" for name in models), *(f"joint - {name}" for name in others)]
    height, width = frames[0].color.shape[:2]
    row = 2.6 * height / width
    figure = Figure(figsize=(2.65 * len(titles) + 1, row * len(frames) + 0.9), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=11)
    axes = figure.subplots(len(frames), len(titles), squeeze=False)
    for column, title in enumerate(titles):
        axes[0, column].set_title(title, fontsize=9)
    for line, frame in zip(axes, frames):
        line[0].imshow(frame.color)
        line[0].set_ylabel(frame.title, fontsize=8)
        for axis, name in zip(line[1:], models):
            ranks = axis.imshow(frame.ranks[name], cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        for axis, name in zip(line[1 + len(models) :], others):
            change = axis.imshow(
                frame.ranks["joint"] - frame.ranks[name],
                cmap="RdBu_r",
                vmin=-CHANGE_LIMIT,
                vmax=CHANGE_LIMIT,
                interpolation="nearest",
            )
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
    for mappable, where, label in (
        (ranks, axes[:, len(models)], "0 least sure, 1 surest"),
        (change, axes[:, -1], "red: joint is surer"),
    ):
        figure.colorbar(mappable, ax=list(where), shrink=0.9, aspect=25).set_label(label, fontsize=8)
    return _png(figure)


def sparsification_figure(curves: Mapping[str, NDArray[np.floating]], heading: str) -> bytes:
    """PNG of sparsification curves at `REMOVED`; names that start with `oracle_` are dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not curves:
        raise DataError("drawing sparsification: no curves")
    figure = Figure(figsize=(5.6, 3.6), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    models = [name for name in curves if not name.startswith("oracle_")]
    for index, model in enumerate(models):
        axis.plot(REMOVED, curves[model], color=f"C{index}", label=model)
        if f"oracle_{model}" in curves:
            axis.plot(REMOVED, curves[f"oracle_{model}"], color=f"C{index}", linestyle="--", linewidth=0.9)
    axis.set_title(heading, fontsize=10)
    axis.set_xlabel("share of least confident pixels removed (dashed: removed by true error)")
    axis.set_ylabel("mean error left, relative")
    axis.set_ylim(0, None)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # no version inside: stable bytes
    return buffer.getvalue()
