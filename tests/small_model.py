"""Networks of a few thousand random weights, as model folders, and photos to show them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import torch

from pano3d.backbones.dinov2 import DinoV2Config
from pano3d.backbones.pi3 import Pi3Config, Pi3DecoderConfig, Pi3HeadsConfig
from pano3d.losses.pi3_geometry import Pi3GeometryLossConfig
from pano3d.model import ModelConfig, Pi3Choice, build_model
from pano3d.model_files import write_model
from tests.training.small import MODEL

PI3 = dataclasses.replace(
    MODEL,
    backbone=Pi3Choice(
        name="pi3",
        image_width=56,
        image_height=42,
        network=Pi3Config(
            encoder=DinoV2Config(width=16, depth=1, num_heads=2, position_grid=3, num_registers=1),
            decoder=Pi3DecoderConfig(depth=2, num_heads=2, num_registers=1),
            heads=Pi3HeadsConfig(width=16, depth=1, num_heads=2, point_width=8, camera_width=8),
        ),
        geometry_loss=Pi3GeometryLossConfig(),
    ),
)


def write_small_model(folder: Path, config: ModelConfig = MODEL) -> Path:
    """A model folder of random weights; the same every time."""
    torch.manual_seed(0)
    write_model(folder, build_model(config, 20), config, "Apache-2.0", {"source": "random"})
    return folder


def write_photos(folder: Path, count: int = 3, width: int = 64, height: int = 48, ending: str = "jpg") -> Path:
    """Different pictures, `photo_1` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"photo_{number + 1}.{ending}"), picture)
    return folder
