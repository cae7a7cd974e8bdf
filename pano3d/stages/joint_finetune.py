"""joint_finetune: geometry and panoptic labels train the multi-view decoder and the mask decoder together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pano3d import config
from pano3d.losses.panoptic import PanopticLossConfig
from pano3d.model import BackboneChoice
from pano3d.model_files import load_strictly, read_model
from pano3d.stages.fitting import Fit, fit
from pano3d.training.loop import TrainingConfig
from pano3d.training.objective import Mode, make_objective
from pano3d.types import ConfigError


@dataclass(frozen=True)
class JointFinetuneConfig:
    """mode: "joint", or one of its controls (`Objective`). geometry_weight: the paper's 10.

    head: "scratch" starts the panoptic half from fresh weights, as in the paper; "released" from those of the model
        folder `released`, which the backbone's preset names. The backbone always comes from geometry_init.
    """

    mode: Mode
    head: Literal["scratch", "released"]
    released: str | None
    geometry_weight: float
    panoptic_loss: PanopticLossConfig
    training: TrainingConfig

    def __post_init__(self) -> None:
        if self.mode == "geometry_init":
            raise ConfigError("joint_finetune.mode: geometry_init is a stage of its own; choose geometry_only")
        if self.head == "released" and self.released is None:
            raise ConfigError("joint_finetune: no model is released for this backbone; choose head=scratch")
        rates = self.training.optimizer
        if self.mode == "frozen" and max(rates.encoder, rates.decoder, rates.geometry_head) > 0:
            raise ConfigError("joint_finetune: mode=frozen needs encoder, decoder and geometry_head rates of 0")


def run(params: Path, data: Path, start: Path, output: Path, results: Path) -> None:
    """Fine-tune the model in `start`; `output` receives the model, `results` its curve and metrics."""
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
    digest = description.weights_sha256
    if stage.head == "released":
        assert stage.released is not None
        source, released = read_model(Path(stage.released))
        load_strictly(model.fusion, source.fusion.state_dict(), stage.released)
        load_strictly(model.mask_decoder, source.mask_decoder.state_dict(), stage.released)
        digest = config.digest([digest, released.weights_sha256])
    fit(
        Fit(
            stage="joint_finetune",
            settings=settings,
            model=model,
            model_config=description.config,
            objective=make_objective(stage.mode, backbone.geometry_loss, stage.panoptic_loss, stage.geometry_weight),
            training=stage.training,
            data=data,
            start_digest=digest,
            license=description.license,
            output=output,
            results=results,
        )
    )
