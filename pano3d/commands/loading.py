"""Finding a model by folder or by its name in the registry."""

from __future__ import annotations

from pathlib import Path

import torch

from pano3d.evaluation import load_reconstructor
from pano3d.panoptic.scene import SceneConfig
from pano3d.reconstruction import Reconstructor
from pano3d.tracking.registry import download_model
from pano3d.types import WeightsError


def load_model(uri_or_path: str | Path, device: str) -> Reconstructor:
    """See `pano3d.load`."""
    return load_reconstructor(find_model(uri_or_path), SceneConfig(), torch.device(device))


def find_model(uri_or_path: str | Path) -> Path:
    """The folder of a model; a registered one is fetched from its store.

    Raises:
        WeightsError: the folder does not exist, or the registry has no such model.
    """
    text = str(uri_or_path)
    if text.startswith("models:/"):
        return download_model(text)
    folder = Path(text)
    if not folder.is_dir():
        raise WeightsError(
            f"loading a model: {folder} is not a folder; give one that holds model.json, or models:/NAME@ALIAS"
        )
    return folder
