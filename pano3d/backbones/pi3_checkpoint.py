"""Reading and writing Pi3's released layout: model.safetensors under the official names. Nothing is executed."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pano3d.backbones.pi3 import Pi3
from pano3d.types import WeightsError

HUB_REPOSITORY, WEIGHTS_FILE = "yyfz233/Pi3", "model.safetensors"
LICENCE = "CC BY-NC 4.0 (Pi3 weights, non-commercial); fine-tuned models are derivatives under the same terms"

_TRAINING_ONLY = ("encoder.mask_token",)
"""Entries that a DINOv2 encoder may carry and inference does not use."""


def fetch_pi3_weights(source: str) -> Path:
    """Path of `model.safetensors` for a folder, a file, or a hub repository such as `yyfz233/Pi3`.

    A download shows its progress and goes on where an interrupted one stopped.

    Raises:
        WeightsError: nothing is there, or the download failed.
    """
    local = Path(source)
    if local.is_file():
        return local
    if local.is_dir():
        if (local / WEIGHTS_FILE).is_file():
            return local / WEIGHTS_FILE
        raise WeightsError(f"importing Pi3 from {source}: the folder holds no {WEIGHTS_FILE}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, WEIGHTS_FILE))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"importing Pi3 from {source}: neither a local path nor a hub repository that can be reached "
            f"({(str(error).splitlines() or [''])[0]}); check the name and the connection, then start again: a "
            "download goes on where it stopped"
        ) from error


def load_pi3_weights(path: Path, model: Pi3) -> None:
    """Copy released weights into a network; names and shapes must match exactly.

    Raises:
        WeightsError: the file is damaged, of another model, or incomplete. Nothing is loaded then.
    """
    tensors = _read(path)
    for name in _TRAINING_ONLY:
        tensors.pop(name, None)
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    reshaped = sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
    if missing or unexpected or reshaped:
        raise WeightsError(
            f"importing {path}: not the weights of this Pi3: {len(missing)} entries missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}, {len(reshaped)} of another shape {reshaped[:3]}; "
            f"{_guess(missing, unexpected)}"
        )
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise WeightsError(f"importing {path}: {len(broken)} entries hold NaN or infinity, e.g. {broken[0]}")
    model.load_state_dict(tensors)


def save_pi3_weights(path: Path, model: Pi3) -> None:
    """Write a network's weights in the released layout, float32, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    tensors = {name: value.detach().cpu().to(torch.float32).contiguous() for name, value in model.state_dict().items()}
    try:
        save_file(tensors, partial, metadata={"format": "pt"})
        os.replace(partial, path)
    except (SafetensorError, OSError) as error:
        partial.unlink(missing_ok=True)
        raise WeightsError(f"exporting to {path}: {error}; free disk space and start again") from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise WeightsError(f"importing {path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"importing {path}: not a whole safetensors file ({error}); it has {path.stat().st_size} bytes, the "
            "released one about 3.8 GB; download it again"
        ) from error


def _guess(missing: list[str], unexpected: list[str]) -> str:
    if missing and all(name.startswith("conf_") for name in missing) and not unexpected:
        return "a training checkpoint from before the confidence stage; use the final weights"
    if any("metric" in name or "ray_embed" in name or "depth_encoder" in name for name in unexpected):
        return "this looks like Pi3X, a different model; use the weights of Pi3"
    return "choose the preset that the weights were made for (pi3_large for the released ones)"
