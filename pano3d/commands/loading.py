"""Finding a model: by folder, by its name in the registry, or the one that comes with pano3d."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pano3d.evaluation import load_reconstructor
from pano3d.model_files import DESCRIPTION, ModelDescription, read_description
from pano3d.panoptic.scene import SceneConfig
from pano3d.reconstruction import Precision, Reconstructor
from pano3d.tracking.registry import download_model
from pano3d.types import WeightsError

BACKBONES = ("must3r", "pi3")
RELEASED = ("must3r_small", "pi3_small", "must3r_tiny", "pi3_tiny")
MODEL_HELP = f"a model folder, models:/NAME@ALIAS, or one that comes with pano3d: {', '.join(RELEASED)}"
Size = Literal["small", "tiny"]
CLONE, INSTALLED = Path(__file__).parents[2], Path(sys.prefix) / "share/pano3d"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to use, and where it comes from. is_default: nobody asked for this one."""

    reconstructor: Reconstructor
    folder: Path
    description: ModelDescription
    is_default: bool

    @property
    def remark(self) -> str:
        """What a user should know about the model before trusting its result."""
        size = f"{self.reconstructor.image_width}x{self.reconstructor.image_height}"
        if self.is_default:
            return (
                f"This is {self.folder.name.removesuffix('_joint')}, which comes with pano3d. It was trained on "
                "generated rooms only: it can show what the outputs are and reconstruct rooms like those coarsely; on "
                "real photographs expect rough shapes and many missing or wrong labels. "
                f"It sees {size} pixels. Scale is not metric."
            )
        return f"The model sees {size} pixels; its weights are under {self.description.license}. Scale is not metric."


def load_model(
    uri_or_path: str | Path | None,
    device: str,
    backbone: str | None = None,
    scene_config: SceneConfig | None = None,
    precision: Precision = "float32",
    size: Size = "small",
) -> LoadedModel:
    """A folder, `models:/NAME@ALIAS`, a preset of `RELEASED`, or None for the one of a backbone and a size.

    Raises:
        WeightsError: there is no such model, its files are damaged, or it is of another backbone than asked for.
        DataError: the device does not exist here.
    """
    chosen = check_device(device)
    folder = released_model(f"{backbone or BACKBONES[0]}_{size}") if uri_or_path is None else find_model(uri_or_path)
    description = read_description(folder)
    if backbone is not None and description.config.backbone.name != backbone:
        raise WeightsError(f"loading {folder}: its backbone is {description.config.backbone.name}, not {backbone}")
    reconstructor = load_reconstructor(folder, scene_config or SceneConfig(), chosen, precision)
    return LoadedModel(reconstructor, folder, description, uri_or_path is None)


def check_device(name: str) -> torch.device:
    """The device called so.

    Raises:
        WeightsError: torch does not know it, this machine lacks it, or networks do not run on it.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        reason = "" if torch.amp.is_autocast_available(device.type) else "no network runs on devices of this type"
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises for a device it lacks
        reason = str(error).splitlines()[0]
    if reason:
        raise WeightsError(f"device {name!r} cannot be used ({reason}); try --device cpu, or `pano3d doctor`")
    return device


def find_model(uri_or_path: str | Path) -> Path:
    """The folder of a model; a registered one is fetched from its store.

    Raises:
        WeightsError: the folder does not exist, or the registry has no such model.
    """
    text = str(uri_or_path)
    if text.startswith("models:/"):
        return download_model(text)
    if text in RELEASED:
        return released_model(text)
    folder = Path(text)
    if not folder.is_dir():
        raise WeightsError(
            f"loading a model: {folder} is not a folder; give one that holds model.json, models:/NAME@ALIAS, or one of "
            f"{', '.join(RELEASED)}"
        )
    return folder


def released_model(preset: str) -> Path:
    """The folder of a model that comes with pano3d: weights/<preset>_joint, of a clone or installed.

    Raises:
        WeightsError: it is not there.
    """
    name = f"weights/{preset}_joint"
    for folder in (CLONE / name, INSTALLED / name):
        if (folder / DESCRIPTION).is_file():
            return folder
    raise WeightsError(
        f"loading {preset}: {name} is not in this installation; a clone of the repository has it (`git restore "
        "weights` brings it back there). Or pass --model: any other model folder, models:/NAME@ALIAS, or "
        "models/rooms/BACKBONE/joint_finetune of a clone in which `make repro` has trained on from weights/ (about 20 "
        "minutes on two cores)"
    )
