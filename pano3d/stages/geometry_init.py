"""geometry_init: a backbone that knows rooms, before any label is shown to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pano3d import config
from pano3d.model import BackboneChoice, HeadConfig, ModelConfig
from pano3d.model_files import draw_model, load_strictly, read_model
from pano3d.stages.fitting import Fit, fit
from pano3d.training.loop import TrainingConfig
from pano3d.training.objective import make_objective
from pano3d.training.processes import spread_over_processes
from pano3d.types import ConfigError


@dataclass(frozen=True)
class GeometryInitConfig:
    """Where the backbone comes from, and how it is trained further.

    source: "scratch" draws fresh weights; "released" takes the backbone of the model folder `released`, which the
        backbone's preset names; "official" that of `weights`, a folder made by `pano3d import-weights` (or by an
        earlier training).
    training: None takes the weights as they are.
    """

    source: Literal["scratch", "released", "official"]
    released: str | None
    weights: str | None
    training: TrainingConfig | None

    def __post_init__(self) -> None:
        if (self.source == "official") != (self.weights is not None):
            raise ConfigError("geometry_init: give `weights`, a model folder, with source=official and only then")
        if self.source == "released" and self.released is None:
            raise ConfigError("geometry_init: no model is released for this backbone; choose another source")
        if self.source == "scratch" and self.training is None:
            raise ConfigError("geometry_init: source=scratch without training would leave random geometry")

    @property
    def folder(self) -> Path | None:
        """The model folder to start from; None for fresh weights."""
        chosen = {"scratch": None, "released": self.released, "official": self.weights}[self.source]
        return Path(chosen) if chosen is not None else None


def run(params: Path, data: Path, output: Path, results: Path) -> None:
    """Train the backbone's geometry; `output` receives the model, `results` its curve and metrics."""
    spread_over_processes()
    settings = config.read(params)
    stage = config.load(params, GeometryInitConfig, "geometry_init")
    backbone: BackboneChoice = config.load(params, BackboneChoice, "backbone")
    model_config = ModelConfig(backbone, config.load(params, HeadConfig, "head"), settings["dataset"]["label_space"])
    torch.manual_seed(int(settings["seed"]))
    model = draw_model(model_config)
    licenses, start = list[str](), "scratch"
    if stage.folder is not None:
        source, description = read_model(stage.folder)
        load_strictly(model.backbone, source.backbone.state_dict(), str(stage.folder))
        licenses, start = [description.license], description.weights_sha256
    fit(
        Fit(
            stage="geometry_init",
            settings=settings,
            model=model,
            model_config=model_config,
            objective=make_objective("geometry_init", backbone.geometry_loss),
            training=stage.training,
            data=data,
            start_digest=start,
            licenses=licenses,
            output=output,
            results=results,
        )
    )
