"""import-weights: official MUSt3R or Pi3 weights become a model folder that geometry_init can start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import torch

from pano3d import config, model_files
from pano3d.backbones import must3r_checkpoint, pi3_checkpoint
from pano3d.backbones.must3r import Must3r
from pano3d.backbones.pi3 import Pi3
from pano3d.data.label_spaces import label_space
from pano3d.data.preparation import file_digest
from pano3d.model import BackboneChoice, HeadConfig, ModelConfig, Pano3D, build_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="MUSt3R: the .pth file; Pi3: a file, a folder or a hub repository (yyfz233/Pi3)")
    parser.add_argument("--backbone", required=True, help="preset of params/backbone: must3r_512, pi3_large ...")
    parser.add_argument("--output", required=True, type=Path, help="model folder to write")
    parser.add_argument("--params", type=Path, default=Path("params"))


def main(args: argparse.Namespace) -> int:
    run(args.source, args.backbone, args.output, args.params)
    return 0


def run(source: str, backbone: str, output: Path, params: Path = Path("params")) -> None:
    """Write a model folder with the official backbone weights and a fresh panoptic head.

    Raises:
        WeightsError: the source is damaged, incomplete, or the weights of another network than the preset's.
    """
    settings = config.compose(params, [f"backbone={backbone}"])
    model_config = ModelConfig(
        config.load(settings, BackboneChoice, "backbone"),
        config.load(settings, HeadConfig, "head"),
        settings["dataset"]["label_space"],
    )
    torch.manual_seed(int(settings["seed"]))
    model = build_model(model_config, len(label_space(model_config.label_space).names))
    path, licence, released_as = _load(source, model)
    print(f"licence of these weights: {licence}")
    provenance = {"source": Path(source).name, "sha256": file_digest(path), "released_as": released_as}
    model_files.write_model(output, model, model_config, licence, provenance)
    print(f"{output}: start training from it with geometry_init.source=official geometry_init.weights={output}")


def _load(source: str, model: Pano3D) -> tuple[Path, str, str | None]:
    """Fill the backbone; the file read, its licence, and the name of the released file that it is."""
    backbone = model.backbone
    if isinstance(backbone, Pi3):
        path = pi3_checkpoint.fetch_pi3_weights(source)
        pi3_checkpoint.load_pi3_weights(path, backbone)
        return path, pi3_checkpoint.LICENCE, None
    checkpoint = must3r_checkpoint.read_must3r_checkpoint(Path(source))
    checkpoint.load_into(cast(Must3r, backbone))
    return Path(source), must3r_checkpoint.LICENCE, checkpoint.released_as
