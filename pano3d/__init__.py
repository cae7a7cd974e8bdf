"""Pano3D: unposed photos of a room to a 3D reconstruction and its 3D panoptic segmentation, in one forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pano3d.reconstruction import Reconstructor
    from pano3d.types import PanopticScene

__all__ = ["PanopticScene", "load"]


def __getattr__(name: str) -> type[PanopticScene]:
    if name != "PanopticScene":
        raise AttributeError(f"module 'pano3d' has no attribute {name!r}")
    from pano3d.types import PanopticScene  # importing pano3d alone must stay cheap

    return PanopticScene


def load(uri_or_path: str | Path | None = None, device: str = "cpu") -> Reconstructor:
    """A model ready to use: `pano3d.load(...).reconstruct(images) -> PanopticScene`.

    Args:
        uri_or_path: a folder with `model.json` and `weights.safetensors`, or a registered model such as
            `models:/pano3d-must3r@champion`; one that comes with pano3d, `must3r_small`,
            `pi3_small`, `must3r_tiny` or `pi3_tiny`; None for the first of these.
        device: "cpu", "cuda", "cuda:1", ...

    Raises:
        WeightsError: there is no such model, or its files are damaged.
    """
    from pano3d.commands.loading import load_model

    return load_model(uri_or_path, device).reconstructor
