"""import-weights: official MUSt3R or Pi3 weights become a model folder that geometry_init can start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal, cast

import torch

from pano3d import config, model_files
from pano3d.backbones import must3r_checkpoint, pi3_checkpoint
from pano3d.backbones.must3r import Must3r
from pano3d.backbones.pi3 import Pi3
from pano3d.data.preparation import file_digest
from pano3d.model import BackboneChoice, HeadConfig, ModelConfig, Pano3D
from pano3d.types import ConfigError, WeightsError

Family = Literal["must3r", "pi3"]
DEFAULT_PRESETS = {"must3r": "must3r_512", "pi3": "pi3_large"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", choices=sorted(DEFAULT_PRESETS))
    parser.add_argument("source", help="must3r: the .pth file; pi3: a file, a folder or a hub repository (yyfz233/Pi3)")
    parser.add_argument(
        "--preset", help="of params/backbone: network and image size; default: must3r_224 for a 224 file, else the 512"
    )
    parser.add_argument("--output", type=Path, help="model folder to write; default: models/official/<preset>")
    parser.add_argument("--params", type=Path, default=Path("params"))


def main(args: argparse.Namespace) -> int:
    preset = args.preset or default_preset(args.family, args.source)
    run(args.family, args.source, preset, args.output or Path("models/official") / preset, args.params)
    return 0


def default_preset(family: Family, source: str) -> str:
    """The preset a released file belongs to, by its name."""
    if family == "must3r" and "_224" in Path(source).name:
        return "must3r_224"
    return DEFAULT_PRESETS[family]


def run(family: Family, source: str, preset: str, output: Path, params: Path = Path("params")) -> None:
    """Write a model folder with the official backbone weights and a fresh panoptic head.

    Raises:
        WeightsError: the source is damaged, incomplete, or the weights of another network than the preset's.
        ConfigError: the preset is of the other family.
    """
    settings = config.compose(params, [f"backbone={preset}"])
    model_config = ModelConfig(
        config.load(settings, BackboneChoice, "backbone"),
        config.load(settings, HeadConfig, "head"),
        settings["dataset"]["label_space"],
    )
    if model_config.backbone.name != family:
        raise ConfigError(f"importing {source}: preset {preset} is a {model_config.backbone.name}, not a {family}")
    # Before a network of gigabytes is built.
    path = pi3_checkpoint.fetch_pi3_weights(source) if family == "pi3" else Path(source)
    if not path.is_file():
        raise WeightsError(f"importing {source}: no such file")
    must3r_checkpoint.check_download(path)
    torch.manual_seed(int(settings["seed"]))
    model = model_files.draw_model(model_config)
    licence, released_as = _fill(path, model)
    print(f"licence of these weights: {licence}")
    provenance = {"source": path.name, "sha256": file_digest(path), "released_as": released_as}
    model_files.write_model(output, model, model_config, licence, provenance)
    print(f"{output}: start training from it with geometry_init.source=official geometry_init.weights={output}")


def _fill(path: Path, model: Pano3D) -> tuple[str, str | None]:
    """Load the backbone; its licence, and the name of the released file that `path` is."""
    if isinstance(model.backbone, Pi3):
        pi3_checkpoint.load_pi3_weights(path, model.backbone)
        return pi3_checkpoint.LICENCE, None
    checkpoint = must3r_checkpoint.read_must3r_checkpoint(path)
    checkpoint.load_into(cast(Must3r, model.backbone))
    return must3r_checkpoint.LICENCE, checkpoint.released_as
