"""What reconstruction.json says of a result: where it comes from, in what frame it is, how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pano3d.commands.loading import LoadedModel
from pano3d.geometry.alignment import scale_of
from pano3d.photos import Photos
from pano3d.processes import peak_bytes
from pano3d.types import PanopticScene


@dataclass(frozen=True)
class Frame:
    """What is known about the frame of a result: its name, unit, how it came about."""

    name: str
    unit: str
    source: str
    target_from_world: NDArray[np.float64]
    residual: float | None = None

    @classmethod
    def own(cls) -> Frame:
        """That of a result of which nothing else is known."""
        return cls("the reconstruction's own", "unknown", "the network's own scale", np.eye(4))


def describe(
    model: LoadedModel,
    title: str,
    kind: str,
    photos: Photos,
    options: Mapping[str, object],
    scene: PanopticScene,
    frame: Frame,
    seconds: float,
    remarks: Sequence[str],
) -> dict[str, Any]:
    """The content of reconstruction.json.

    Args:
        title, kind: what was reconstructed: its name, and photos, video, scene archive or stream.
        options: those of the command that matter to the result.
        seconds: that the network took.
    """
    device = model.reconstructor.device
    return {
        "frame": {
            "name": frame.name,
            "axes": "OpenCV: x right, y down, z forward, of every camera",
            "unit": frame.unit,
            "scale": scale_of(frame.target_from_world),
            "source": frame.source,
            "target_from_world": frame.target_from_world.tolist(),
            "alignment_rms": frame.residual,
        },
        "model": {
            "folder": str(model.folder),
            "backbone": model.description.config.backbone.name,
            "license": model.description.license,
            "weights_sha256": model.description.weights_sha256,
            "provenance": model.description.provenance,
            "label_space": model.description.config.label_space,
        },
        "input": {"title": title, "kind": kind, "views": list(photos.names), "left_out": photos.left_out},
        "options": dict(options),
        "precision": model.reconstructor.precision,
        "confidence_kind": scene.confidence_kind,
        "segments": len(scene.segments),
        "seconds": round(seconds, 2),
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes(),
        "remarks": list(remarks),
        "versions": {name: metadata.version(name) for name in ("pano3d", "torch", "numpy")},
    }
