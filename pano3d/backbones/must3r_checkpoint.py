"""Reading MUSt3R's released and training checkpoints (.pth) without executing anything they contain."""

from __future__ import annotations

import argparse
import ast
import enum
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError  # the error only: nothing is unpickled outside torch's restricted loader
from typing import Any

import torch
from torch import Tensor

from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_config import Must3rConfig, constructor_texts
from pano3d.types import ConfigError, WeightsError

RELEASED = {
    "ac176abd2b2c3bc5f2aea664d82e9ffa": "MUSt3R_224_cvpr.pth",
    "43808705f381a8724aafcd27c88ece35": "MUSt3R_512_cvpr.pth",
    "8854f948a8674fb1740258c1872f80dc": "MUSt3R_512.pth",
}
"""MD5 of the released files, as published beside them."""

LICENCE = "MUSt3R Non-Commercial License (NAVER); fine-tuned models are derivatives under the same terms"

_ENCODERS = ("Dust3rEncoder",)
_DECODERS = ("MUSt3R", "CausalMUSt3R")


class _PointmapActivation(enum.Enum):
    """Stands in for the one enum that training checkpoints refer to by name."""

    NORM_EXP = "norm_exp"
    LINEAR = "linear"


@dataclass(frozen=True)
class Must3rCheckpoint:
    """What a checkpoint holds.

    config: architecture as recorded, set up for inference (images as they look, `kv` memory).
    encoder, decoder: state dicts under the official names.
    encoder_arguments, decoder_arguments: the recorded constructor expressions, verbatim.
    released_as: file name of the released checkpoint this is, byte for byte, or None.
    """

    config: Must3rConfig
    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    encoder_arguments: str
    decoder_arguments: str
    released_as: str | None

    def load_into(self, model: Must3r) -> None:
        """Copy the weights into a network.

        Raises:
            WeightsError: names or shapes differ from the network's.
        """
        for part, tensors in (("encoder", self.encoder), ("decoder", self.decoder)):
            module = model.get_submodule(part)
            own = module.state_dict()
            wrong = sorted(own.keys() ^ tensors.keys())
            wrong += sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
            if wrong:
                raise WeightsError(
                    f"loading a MUSt3R checkpoint: the {part}'s weights are of another network; {len(wrong)} names are "
                    f"missing, unexpected or of another shape, e.g. {wrong[:3]}; configure the network as the "
                    f"checkpoint was: {getattr(self, f'{part}_arguments')}"
                )
            module.load_state_dict(tensors)


def read_must3r_checkpoint(path: Path, image_size: int | None = None) -> Must3rCheckpoint:
    """Read a released or training checkpoint.

    Args:
        path: the .pth file.
        image_size: long side of the images to come, if their RoPE frequencies should be rescaled from the trained size.

    Raises:
        WeightsError: the file is damaged, would have to execute code, or does not hold a MUSt3R.
    """
    content = _load(path)
    arguments = content.get("args")
    if not isinstance(arguments, argparse.Namespace) or not {"encoder", "decoder"} <= content.keys():
        raise WeightsError(
            f"reading {path}: expected the keys args, encoder and decoder of a MUSt3R checkpoint, got "
            f"{sorted(map(str, content))}"
        )
    encoder_text, decoder_text = (str(getattr(arguments, part, "")) for part in ("encoder", "decoder"))
    encoder = parse_constructor(encoder_text, _ENCODERS)
    decoder = parse_constructor(decoder_text, _DECODERS)
    recorded = getattr(arguments, "pointmaps_activation", None)
    if isinstance(recorded, enum.Enum):
        decoder.setdefault("pointmaps_activation", recorded.value)
    try:
        config = Must3rConfig.from_constructor(encoder, decoder)
    except ConfigError as error:
        raise WeightsError(f"reading {path}: {error}") from error
    if image_size is not None:
        trained = encoder.get("img_size")
        if not (isinstance(trained, tuple) and len(trained) == 2 and trained[0] == trained[1]):
            raise WeightsError(f"reading {path}: cannot rescale from img_size {trained!r}; expected img_size=(a, a)")
        config = replace(config, rope_scale=trained[0] / image_size)
    return Must3rCheckpoint(
        # Portraits are fed as they look at inference, whatever the training loader did; the weights are the same.
        config=replace(config, transposed_portrait=False, memory_mode="kv"),
        encoder=content["encoder"],
        decoder=content["decoder"],
        encoder_arguments=encoder_text,
        decoder_arguments=decoder_text,
        released_as=RELEASED.get(_md5(path)),
    )


def write_must3r_checkpoint(path: Path, model: Must3r, image_size: tuple[int, int]) -> None:
    """Write a network in the released layout (.pth, float32), atomically.

    Args:
        image_size: (height, width) the network was trained at, recorded in the arguments.

    Raises:
        WeightsError: the file cannot be written.
    """
    encoder, decoder = constructor_texts(model.config, image_size)
    content = {
        "args": argparse.Namespace(encoder=encoder, decoder=decoder),
        "encoder": _float32(model.encoder),
        "decoder": _float32(model.decoder),
        "epoch": 0,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        torch.save(content, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise WeightsError(f"exporting to {path}: {error}; free disk space and start again") from error


def check_download(path: Path) -> None:
    """Compare a file that bears the name of a released one with its published MD5.

    Raises:
        WeightsError: they differ; nothing of the file was read as weights.
    """
    published = {name: digest for digest, name in RELEASED.items()}.get(path.name)
    if published is not None and path.is_file() and _md5(path) != published:
        raise WeightsError(
            f"reading {path}: its name is that of a released file, its content is not: {path.stat().st_size:,} bytes "
            f"with another MD5 than {published} (the released ones have about 1.7 GB); the download was cut off or the "
            "file was changed: download it again, or rename it if it is your own"
        )


def _float32(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().to(torch.float32).contiguous() for name, value in module.state_dict().items()}


def parse_constructor(text: str, allowed: tuple[str, ...]) -> dict[str, object]:
    """Keyword arguments of a recorded constructor expression, parsed and never evaluated.

    Literals, tuples of literals and dotted names (kept as text) are understood.

    Raises:
        WeightsError: anything else.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise WeightsError(f"reading a constructor expression: {text!r} is not one ({error})") from error
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in allowed):
        raise WeightsError(f"reading a constructor expression: expected a call of {' or '.join(allowed)}, got {text!r}")
    arguments: dict[str, object] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise WeightsError(f"reading a constructor expression: unpacked arguments in {text!r}")
        if isinstance(keyword.value, ast.Attribute | ast.Name):
            arguments[keyword.arg] = ast.unparse(keyword.value)
            continue
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError as error:
            raise WeightsError(
                f"reading a constructor expression: {keyword.arg} of {text!r} is not a plain value"
            ) from error
    if call.args:
        raise WeightsError(
            f"reading a constructor expression: positional arguments in {text!r}; expected keywords only"
        )
    return arguments


def _load(path: Path) -> dict[str, Any]:
    allowed: list[Any] = [argparse.Namespace, (_PointmapActivation, "must3r.model.blocks.head.ActivationType")]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"reading {path}: no such file") from error
    except UnpicklingError as error:
        raise WeightsError(
            f"reading {path}: {path.stat().st_size} bytes that are damaged, or would have to execute code to be read, "
            "which is refused; compare size and MD5 with the published ones, and download it again"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"reading {path}: not a PyTorch checkpoint or incomplete ({_first_line(error)}); compare its size and MD5 "
            "with the published ones and download it again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"reading {path}: expected a mapping, got {type(content).__name__}")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
