"""Confidence figures: the same frames by image, frozen rank, joint rank and their signed difference, on one scale."""

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
    """One frame. color: (H, W, 3) uint8. frozen, joint: (H, W) confidence ranks in [0, 1], ranked over the scene."""

    title: str
    color: NDArray[np.uint8]
    frozen: NDArray[np.floating]
    joint: NDArray[np.floating]


def confidence_figure(frames: Sequence[ConfidenceFrame], heading: str) -> bytes:
    """PNG with one row per frame; the same input gives the same bytes.

    Raises:
        DataError: there is no frame, or a map does not have its picture's size.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not frames:
        raise DataError("drawing confidence: no frames")
    for frame in frames:
        if not frame.color.shape[:2] == frame.frozen.shape == frame.joint.shape:
            raise DataError(
                f"drawing confidence of {frame.title}: image {frame.color.shape[:2]}, frozen {frame.frozen.shape} and "
                f"joint {frame.joint.shape} differ in size"
            )
    height, width = frames[0].color.shape[:2]
    row = 2.6 * height / width
    figure = Figure(figsize=(11.6, row * len(frames) + 0.9), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=11)
    axes = figure.subplots(len(frames), 4, squeeze=False)
    for column, title in enumerate(("image", "frozen (rank)", "joint (rank)", "joint - frozen")):
        axes[0, column].set_title(title, fontsize=9)
    for line, frame in zip(axes, frames):
        line[0].imshow(frame.color)
        line[0].set_ylabel(frame.title, fontsize=8)
        for axis, values in zip(line[1:3], (frame.frozen, frame.joint)):
            ranks = axis.imshow(values, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        change = line[3].imshow(
            frame.joint - frame.frozen, cmap="RdBu_r", vmin=-CHANGE_LIMIT, vmax=CHANGE_LIMIT, interpolation="nearest"
        )
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
    for mappable, where, label in (
        (ranks, axes[:, 2], "0 least sure, 1 surest"),
        (change, axes[:, 3], "red: surer than frozen"),
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
