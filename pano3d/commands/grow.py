"""grow: a larger network that answers as a given model does, to go on learning from."""

from __future__ import annotations

import argparse
from pathlib import Path

from pano3d import config
from pano3d.commands.loading import MODEL_HELP, find_model
from pano3d.growth import grown
from pano3d.model import BackboneChoice, ModelConfig
from pano3d.model_files import read_model, write_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument(
        "--params", type=Path, required=True, help="composed params.yaml whose backbone is the larger one"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="model folder to write")


def main(args: argparse.Namespace) -> int:
    """Write the larger model; its panoptic half keeps its sizes and reads the wider features."""
    settings = config.read(args.params)
    model, description = read_model(find_model(args.model))
    larger = ModelConfig(
        backbone=config.load(settings["backbone"], BackboneChoice),
        head=description.config.head,
        label_space=description.config.label_space,
    )
    result = grown(model, larger, int(settings["seed"]))
    provenance = {**description.provenance, "grown_from": description.weights_sha256}
    write_model(args.output, result, larger, description.license, provenance)
    before, after = (sum(p.numel() for p in each.parameters()) / 1e6 for each in (model, result))
    print(f"{args.output}: {after:.1f} million parameters instead of {before:.1f}")
    return 0
