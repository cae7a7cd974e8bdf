"""A network of a few thousand weights, three small scenes, and the settings to train one on the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pano3d.backbones.dinov2 import DinoV2Config
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.pi3 import Pi3Config, Pi3DecoderConfig, Pi3HeadsConfig
from pano3d.data.archive import write_scene
from pano3d.data.augmentation import AugmentationConfig
from pano3d.data.batches import LoaderConfig
from pano3d.losses.must3r_geometry import Must3rLossConfig
from pano3d.losses.panoptic import PanopticLossConfig
from pano3d.losses.pi3_geometry import Pi3GeometryLossConfig
from pano3d.model import HeadConfig, ModelConfig, Must3rChoice, Pano3D, Pi3Choice, build_model
from pano3d.panoptic.fusion import FusionConfig
from pano3d.panoptic.mask_decoder import MaskDecoderConfig
from pano3d.training.loop import TrainingConfig
from pano3d.training.objective import Mode, Objective, make_objective
from pano3d.training.optimizer import OptimizerConfig

from ..data.scenes import make_scene

MODEL = ModelConfig(
    backbone=Must3rChoice(
        name="must3r",
        image_width=48,
        image_height=32,
        network=Must3rConfig(
            encoder_width=16,
            encoder_depth=1,
            encoder_heads=1,
            decoder_width=16,
            decoder_depth=1,
            decoder_heads=1,
            training_memory_views=(1, 2),
        ),
        geometry_loss=Must3rLossConfig(),
    ),
    head=HeadConfig(
        fusion=FusionConfig(token_width=16, mask_width=8),
        decoder=MaskDecoderConfig(width=16, layers=1, heads=2, ffn_width=16, queries=6, token_width=16, mask_width=8),
    ),
    label_space="scannet20",
)


PI3 = replace(
    MODEL,
    backbone=Pi3Choice(
        name="pi3",
        image_width=42,
        image_height=28,
        network=Pi3Config(
            encoder=DinoV2Config(width=16, depth=1, num_heads=1, position_grid=3),
            decoder=Pi3DecoderConfig(depth=2, num_heads=1, layer_scale=1.0),
            heads=Pi3HeadsConfig(width=16, depth=1, num_heads=1, point_width=16, camera_width=16),
        ),
        geometry_loss=Pi3GeometryLossConfig(world_points=1.0),
    ),
)
MODELS = {"must3r": MODEL, "pi3": PI3}


def model(backbone: str = "must3r") -> Pano3D:
    torch.manual_seed(0)
    return build_model(MODELS[backbone], 20)


def archives(folder: Path) -> list[Path]:
    paths = [folder / f"scene{index}.zip" for index in range(3)]
    for path in paths:
        write_scene(path, make_scene(path.stem, views=3, height=32, width=48))
    return paths


def objective(mode: Mode = "joint", backbone: str = "must3r", **panoptic: Any) -> Objective:
    losses = PanopticLossConfig(**({"points": 32} | panoptic))
    return make_objective(mode, MODELS[backbone].backbone.geometry_loss, losses, geometry_weight=10.0)


def training(steps: int = 6, **rates: float) -> TrainingConfig:
    chosen = {"encoder": 1e-3, "decoder": 1e-3, "geometry_head": 1e-3, "panoptic": 1e-3} | rates
    return TrainingConfig(
        steps=steps,
        loader=LoaderConfig(
            image_width=48,
            image_height=32,
            images_per_batch=4,
            views=(2,),
            augmentation=AugmentationConfig(0.2, 0.2, 0.2, 0.1, 0.02, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5),
        ),
        optimizer=OptimizerConfig(**chosen, weight_decay=0.05, warmup=0.1, final=0.1, clip_norm=1.0),
        log_every=2,
        checkpoint_every=2,
    )


def step_of_four(steps: int, backbone: str = "must3r", **changes: Any) -> TrainingConfig:
    """Four scenes of two views in a step: what two processes, two parts, or both, can share."""
    config = training(steps)
    size = MODELS[backbone].backbone
    loader = replace(config.loader, images_per_batch=8, image_width=size.image_width, image_height=size.image_height)
    return replace(config, loader=loader, **changes)
