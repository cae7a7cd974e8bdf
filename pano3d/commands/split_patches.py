"""split-patches: the same network with smaller patches, to go on learning from."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from pano3d.backbones.finer_patches import finer_config, finer_weights
from pano3d.commands.loading import MODEL_HELP, find_model
from pano3d.data.label_spaces import label_space
from pano3d.model import BackboneChoice, Must3rChoice, build_model
from pano3d.model_files import load_strictly, read_model, write_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--factor", type=int, default=2, help="parts of a patch's side (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model folder to write")


def main(args: argparse.Namespace) -> int:
    """Write the finer model: it sees an image as the given one sees it enlarged; training teaches it the rest."""
    model, description = read_model(find_model(args.model))
    backbone: BackboneChoice = description.config.backbone
    if isinstance(backbone, Must3rChoice):
        backbone = replace(backbone, network=finer_config(backbone.network, args.factor))
    else:
        backbone = replace(backbone, network=finer_config(backbone.network, args.factor))
    config = replace(description.config, backbone=backbone)
    finer = build_model(config, len(label_space(config.label_space).names))
    load_strictly(finer.backbone, finer_weights(model.backbone.state_dict(), args.factor), args.model)
    load_strictly(finer.fusion, model.fusion.state_dict(), args.model)
    load_strictly(finer.mask_decoder, model.mask_decoder.state_dict(), args.model)
    provenance = {**description.provenance, "split_from": description.weights_sha256}
    write_model(args.output, finer, config, description.license, provenance)
    print(f"{args.output}: patches of {finer.backbone.patch_size} pixels instead of {model.backbone.patch_size}")
    return 0
