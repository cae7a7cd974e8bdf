"""A model on disk: `weights.safetensors` and `model.json`. Reading one never executes code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pano3d import config
from pano3d.data.label_spaces import label_space
from pano3d.data.preparation import file_digest
from pano3d.model import ModelConfig, Pano3D, build_model
from pano3d.panoptic.class_head import TextClassHead
from pano3d.panoptic.text_classes import read_text_classes
from pano3d.types import ConfigError, WeightsError

FORMAT_VERSION = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"


@dataclass(frozen=True)
class ModelDescription:
    """What `model.json` says: how to build the network, where it comes from, what may be done with it."""

    config: ModelConfig
    license: str
    provenance: dict[str, Any]
    weights_sha256: str


def draw_model(model_config: ModelConfig) -> Pano3D:
    """A freshly initialised network for its label space, text embeddings of the class names included.

    Raises:
        DataError: the file of text classes is missing, damaged or lacks a class.
        ConfigError: its embeddings have another width than `decoder.text_width`.
    """
    names = label_space(model_config.label_space).names
    path = model_config.head.text_classes
    embeddings = None if path is None else read_text_classes(Path(path)).arrange(names)
    model = build_model(model_config, len(names))
    head = model.mask_decoder.class_head
    if isinstance(head, TextClassHead) and embeddings is not None:
        head.set_vocabulary(embeddings)
    return model


def write_model(
    folder: Path,
    model: Pano3D,
    model_config: ModelConfig,
    license: str,
    provenance: dict[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write weights and description; the description comes last, so a folder with one is whole.

    Args:
        dtype: storage of floating weights; as they are by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    tensors = {
        name: (value.to(dtype) if dtype is not None and value.is_floating_point() else value)
        .detach()
        .cpu()
        .contiguous()
        for name, value in model.state_dict().items()
    }
    partial = folder / f".{WEIGHTS}.partial"
    try:
        save_file(tensors, partial)
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        raise WeightsError(f"writing {folder / WEIGHTS}: {error}; free disk space and start again") from error
    os.replace(partial, folder / WEIGHTS)
    description = {
        "format_version": FORMAT_VERSION,
        "model": config.plain(model_config),
        "license": license,
        "provenance": provenance,
        "weights_sha256": file_digest(folder / WEIGHTS),
    }
    partial = folder / f".{DESCRIPTION}.partial"
    partial.write_text(json.dumps(description, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, folder / DESCRIPTION)


def holds_model(folder: Path) -> bool:
    """Whether a training stage left a model here; the control's folder stays empty where none was asked for."""
    return (folder / DESCRIPTION).exists()


def read_description(folder: Path) -> ModelDescription:
    """Read and check `model.json`.

    Raises:
        WeightsError: it is missing or does not describe a model.
    """
    path = folder / DESCRIPTION
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format_version"] != FORMAT_VERSION:
            raise WeightsError(f"reading {path}: format_version {raw['format_version']!r}, expected {FORMAT_VERSION}")
        return ModelDescription(
            config=config.load(raw["model"], ModelConfig),
            license=str(raw["license"]),
            provenance=dict(raw["provenance"]),
            weights_sha256=str(raw["weights_sha256"]),
        )
    except FileNotFoundError:
        raise WeightsError(
            f"reading {folder}: no {DESCRIPTION}; expected a folder written by a training stage"
        ) from None
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise WeightsError(f"reading {path}: not a model description ({error})") from error


def read_model(folder: Path) -> tuple[Pano3D, ModelDescription]:
    """Build the network and load its weights, in evaluation mode and float32.

    Raises:
        WeightsError: weights are missing, damaged (digest), or of another network.
    """
    description = read_description(folder)
    path = folder / WEIGHTS
    if not path.exists():
        raise WeightsError(f"reading {folder}: no {WEIGHTS}")
    digest = file_digest(path)
    if digest != description.weights_sha256:
        raise WeightsError(
            f"reading {path}: its SHA-256 is {digest[:12]}..., {DESCRIPTION} says "
            f"{description.weights_sha256[:12]}...; the file is damaged or from another run"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"reading {path}: not a safetensors file ({error})") from error
    model = build_model(description.config, len(label_space(description.config.label_space).names))
    load_strictly(model, tensors, str(path))
    return model.eval(), description


def joined_licenses(licenses: Iterable[str]) -> str:
    """The licence of what was made from works under `licenses`, themselves perhaps joined: each once, all bind."""
    return " AND ".join(dict.fromkeys(part for each in licenses for part in each.split(" AND ")))


def load_strictly(model: torch.nn.Module, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Load weights whose names and shapes must be exactly the model's.

    Raises:
        WeightsError: names what is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    reshaped = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if missing or unexpected or reshaped:
        raise WeightsError(
            f"reading {where}: weights of another network: {len(missing)} missing {missing[:3]}, {len(unexpected)} "
            f"unexpected {unexpected[:3]}, {len(reshaped)} of another shape {sorted(reshaped)[:3]}"
        )
    model.load_state_dict(tensors)
