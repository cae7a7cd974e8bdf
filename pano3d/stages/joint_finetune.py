"""joint_finetune: geometry and panoptic labels train the multi-view decoder and the mask decoder together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pano3d import config
from pano3d.losses.panoptic import PanopticLossConfig
from pano3d.model import BackboneChoice
from pano3d.model_files import read_model
from pano3d.stages.fitting import Fit, fit
from pano3d.training.loop import TrainingConfig
from pano3d.training.objective import Mode, make_objective
from pano3d.training.processes import spread_over_processes
from pano3d.types import ConfigError


@dataclass(frozen=True)
class JointFinetuneConfig:
    """mode: "joint", or one of its controls (`Objective`). geometry_weight: the paper's 10."""

    mode: Mode
    geometry_weight: float
    panoptic_loss: PanopticLossConfig
    training: TrainingConfig

    def __post_init__(self) -> None:
        if self.mode == "geometry_init":
            raise ConfigError("joint_finetune.mode: geometry_init is a stage of its own; choose geometry_only")
        rates = self.training.optimizer
        if self.mode == "frozen" and max(rates.encoder, rates.decoder, rates.geometry_head) > 0:
            raise ConfigError("joint_finetune: mode=frozen needs encoder, decoder and geometry_head rates of 0")


def run(params: Path, data: Path, start: Path, output: Path, results: Path) -> None:
    """Fine-tune the model in `start`; `output` receives the model, `results` its curve and metrics."""
    spread_over_processes()
    settings = config.read(params)
    stage = config.load(params, JointFinetuneConfig, "joint_finetune")
    backbone: BackboneChoice = config.load(params, BackboneChoice, "backbone")
    model, description = read_model(start)
    class_mode = description.config.head.decoder.class_mode
    if stage.panoptic_loss.class_mode != class_mode:
        raise ConfigError(
            f"joint_finetune: panoptic_loss.class_mode is {stage.panoptic_loss.class_mode}, the decoder's is "
            f"{class_mode}; give both the same"
        )
    fit(
        Fit(
            stage="joint_finetune",
            settings=settings,
            model=model,
            model_config=description.config,
            objective=make_objective(stage.mode, backbone.geometry_loss, stage.panoptic_loss, stage.geometry_weight),
            training=stage.training,
            data=data,
            start_digest=description.weights_sha256,
            license=description.license,
            output=output,
            results=results,
        )
    )
