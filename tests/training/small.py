"""A network of a few thousand weights, three small scenes, and the settings to train one on the other."""

from __future__ import annotations

from pathlib import Path

import torch

from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.data.archive import write_scene
from pano3d.data.augmentation import AugmentationConfig
from pano3d.data.batches import LoaderConfig
from pano3d.losses.must3r_geometry import Must3rLossConfig
from pano3d.losses.panoptic import PanopticLossConfig
from pano3d.model import HeadConfig, ModelConfig, Must3rChoice, Pano3D, build_model
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


def model() -> Pano3D:
    torch.manual_seed(0)
    return build_model(MODEL, 20)


def archives(folder: Path) -> list[Path]:
    paths = [folder / f"scene{index}.zip" for index in range(3)]
    for path in paths:
        write_scene(path, make_scene(path.stem, views=3, height=32, width=48))
    return paths


def objective(mode: Mode = "joint") -> Objective:
    return make_objective(mode, MODEL.backbone.geometry_loss, PanopticLossConfig(points=32), geometry_weight=10.0)


def training(steps: int = 6, **rates: float) -> TrainingConfig:
    chosen = {"encoder": 1e-3, "decoder": 1e-3, "geometry_head": 1e-3, "panoptic": 1e-3} | rates
    return TrainingConfig(
        steps=steps,
        loader=LoaderConfig(
            image_width=48,
            image_height=32,
            images_per_batch=4,
            views=(2,),
            augmentation=AugmentationConfig(0.2, 0.2, 0.2, 0.1, 0.02, 0.1, 0.1, 0.5),
        ),
        optimizer=OptimizerConfig(**chosen, weight_decay=0.05, warmup=0.1, final=0.1, clip_norm=1.0),
        log_every=2,
        checkpoint_every=2,
    )
