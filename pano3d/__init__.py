"""Pano3D: unposed photos of a room to a 3D reconstruction and its 3D panoptic segmentation, in one forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pano3d.reconstruction import Reconstructor

__all__ = ["load"]


def load(uri_or_path: str | Path, device: str = "cpu") -> Reconstructor:
    """A model ready to use: `pano3d.load(...).reconstruct(images) -> PanopticScene`.

    Args:
        uri_or_path: a folder with `model.json` and `weights.safetensors`, or a registered model such as
            `models:/pano3d-must3r@champion`.
        device: "cpu", "cuda", "cuda:1", ...

    Raises:
        WeightsError: there is no such model, or its files are damaged.
    """
    from pano3d.commands.loading import load_model  # importing pano3d alone must stay cheap

    return load_model(uri_or_path, device)
