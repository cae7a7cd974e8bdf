"""Options that several commands share: the model, the device, how masks become segments."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from pano3d.commands.loading import BACKBONES, MODEL_HELP, LoadedModel, Size, load_model
from pano3d.panoptic.scene import PassMerging, QuboMerging, SceneConfig, StandardMerging
from pano3d.types import ConfigError

_MERGING: dict[str, Callable[[], StandardMerging | PassMerging | QuboMerging]] = {
    "standard": StandardMerging,
    "two_pass": PassMerging,
    "qubo": QuboMerging,
}


def add_model_options(
    parser: argparse.ArgumentParser, model_is_option: bool = True, default_size: Size = "small"
) -> None:
    """--model (unless the command takes it as an argument), --backbone, --device, --precision, --merging, --score.

    default_size: of the model that is taken where none is named.
    """
    parser.set_defaults(default_size=default_size)
    if model_is_option:
        parser.add_argument(
            "--model",
            help=f"{MODEL_HELP} (default: the {default_size} one of --backbone)",
        )
        parser.add_argument(
            "--backbone", choices=BACKBONES, help=f"whose {default_size} model, where --model is not given"
        )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    parser.add_argument(
        "--merging",
        choices=tuple(_MERGING),
        default="standard",
        help="how masks become segments; views one by one need standard (default: %(default)s)",
    )
    parser.add_argument(
        "--score",
        type=float,
        metavar="S",
        help="least class score of a segment, 0 to 1 (default: the merging's own); the score that is shown of a "
        "segment is lower: its class score times the mean probability of its mask (of a stream: the class score alone)",
    )


def scene_config(args: argparse.Namespace) -> SceneConfig:
    """How masks become segments, as asked for.

    Raises:
        ConfigError: a score outside 0..1, or with a merging that has none.
    """
    if args.score is None:
        return SceneConfig(_MERGING[args.merging]())
    if not 0 <= args.score <= 1:
        raise ConfigError(f"--score {args.score}: expected a number from 0 to 1")
    if args.merging == "qubo":
        raise ConfigError("--score: merging by annealing has no threshold; leave it out or choose another --merging")
    merging = StandardMerging if args.merging == "standard" else PassMerging
    return SceneConfig(merging(score_threshold=args.score))


def load_chosen_model(args: argparse.Namespace) -> LoadedModel:
    """The model the options name, on the device they name."""
    backbone = getattr(args, "backbone", None)
    return load_model(args.model, args.device, backbone, scene_config(args), args.precision, args.default_size)
