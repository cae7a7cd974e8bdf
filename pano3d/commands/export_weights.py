"""export-weights: the backbone of one of our models in the layout its authors release, for their tools."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_checkpoint import write_must3r_checkpoint
from pano3d.backbones.pi3 import Pi3
from pano3d.backbones.pi3_checkpoint import save_pi3_weights
from pano3d.commands.loading import find_model
from pano3d.model_files import read_model
from pano3d.types import WeightsError

SUFFIXES = {"must3r": ".pth", "pi3": ".safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model folder, or models:/NAME@ALIAS")
    parser.add_argument("output", type=Path, help="file to write: .pth for MUSt3R, .safetensors for Pi3")


def main(args: argparse.Namespace) -> int:
    """Write the backbone; the panoptic half has no place in those layouts."""
    model, description = read_model(find_model(args.model))
    backbone = description.config.backbone
    if args.output.suffix != SUFFIXES[backbone.name]:
        raise WeightsError(f"exporting a {backbone.name} to {args.output}: expected *{SUFFIXES[backbone.name]}")
    if isinstance(model.backbone, Pi3):
        save_pi3_weights(args.output, model.backbone)
    else:
        size = (backbone.image_height, backbone.image_width)
        write_must3r_checkpoint(args.output, cast(Must3r, model.backbone), size)
    print(f"{args.output}: {args.output.stat().st_size:,} bytes; licence: {description.license}")
    return 0
