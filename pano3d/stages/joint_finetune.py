"""joint_finetune: geometry and panoptic labels train the multi-view decoder and the mask decoder together."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pano3d import config
from pano3d.losses.panoptic import PanopticLossConfig
from pano3d.model import BackboneChoice, HeadConfig, ModelConfig, Pano3D
from pano3d.model_files import ModelDescription, draw_model, load_strictly, read_model
from pano3d.stages.fitting import Fit, fit
from pano3d.training.loop import TrainingConfig
from pano3d.training.objective import Mode, make_objective
from pano3d.training.processes import spread_over_processes
from pano3d.types import ConfigError

_CLASS_WEIGHTS = frozenset(
    f"class_head.{name}" for name in ("class_embed.weight", "class_embed.bias", "text_embeddings")
)


@dataclass(frozen=True)
class HeadChanges:
    """How the panoptic half differs from geometry_init's; None keeps its choice. Weights of new shapes are drawn.

    source: which backbone features enter. gradient_gate: the paper's gamma. queries: their number.
    """

    source: Literal["both", "encoder", "decoder"] | None = None
    gradient_gate: float | None = None
    queries: int | None = None

    def of(self, head: HeadConfig) -> HeadConfig:
        """`head` with the changes."""
        fusion, decoder = head.fusion, head.decoder
        if self.source is not None:
            fusion = replace(fusion, source=self.source)
        if self.gradient_gate is not None:
            fusion = replace(fusion, gradient_gate=self.gradient_gate)
        if self.queries is not None:
            decoder = replace(decoder, queries=self.queries)
        return replace(head, fusion=fusion, decoder=decoder)


@dataclass(frozen=True)
class JointFinetuneConfig:
    """mode: "joint", or one of its controls (`Objective`). geometry_weight: the paper's 10.

    head: "scratch" starts the panoptic half from fresh weights, as in the paper; "released" from those of the model
        folder `released`, which the backbone's preset names, without the weights of its classes where the dataset's
        are others. The backbone always comes from geometry_init.
    start: "geometry_init" goes on with that stage's model; "scratch" draws every weight anew, for the ablation.
    seed: of this stage alone; None takes the run's. Ablations repeat fine-tuning on the same data and geometry.
    panoptic: what the panoptic half changes against geometry_init's, so that ablations of it share that stage.
    """

    mode: Mode
    head: Literal["scratch", "released"]
    released: str | None
    geometry_weight: float
    panoptic_loss: PanopticLossConfig
    training: TrainingConfig
    start: Literal["geometry_init", "scratch"] = "geometry_init"
    seed: int | None = None
    panoptic: HeadChanges = field(default_factory=HeadChanges)

    def __post_init__(self) -> None:
        if self.mode == "geometry_init":
            raise ConfigError("joint_finetune.mode: geometry_init is a stage of its own; choose geometry_only")
        if self.head == "released" and self.released is None:
            raise ConfigError("joint_finetune: no model is released for this backbone; choose head=scratch")
        if self.head == "released" and (self.start == "scratch" or self.panoptic != HeadChanges()):
            raise ConfigError("joint_finetune: head=released takes that half as it is; give head=scratch to change it")
        rates = self.training.optimizer
        if self.mode == "frozen" and max(rates.encoder, rates.decoder, rates.geometry_head) > 0:
            raise ConfigError("joint_finetune: mode=frozen needs encoder, decoder and geometry_head rates of 0")
        if self.mode == "frozen" and self.start == "scratch":
            raise ConfigError("joint_finetune: mode=frozen with start=scratch would leave random geometry")


def run(params: Path, data: Path, start: Path, output: Path, results: Path) -> None:
    """Fine-tune the model in `start`; `output` receives the model, `results` its curve and metrics."""
    spread_over_processes()
    stage = config.load(params, JointFinetuneConfig, "joint_finetune")
    finetune("joint_finetune", config.read(params), stage, data, start, output, results)


def finetune(
    name: str,
    settings: Mapping[str, Any],
    stage: JointFinetuneConfig,
    data: Path,
    start: Path,
    output: Path,
    results: Path,
) -> None:
    """Fine-tune as `stage` says, which the run called `name` records as its section.

    Args:
        settings: the composed parameters.
        data, start, output, results: as `run`.
    """
    backbone: BackboneChoice = config.load(settings["backbone"], BackboneChoice)
    model, description = read_model(start)
    class_mode = description.config.head.decoder.class_mode
    if stage.panoptic_loss.class_mode != class_mode:
        raise ConfigError(
            f"{name}: panoptic_loss.class_mode is {stage.panoptic_loss.class_mode}, the decoder's is "
            f"{class_mode}; give both the same"
        )
    digest, licenses = description.weights_sha256, [description.license]
    if stage.head == "released":
        assert stage.released is not None
        released = _take_over_head(model, description.config.label_space, Path(stage.released))
        digest = config.digest([digest, released.weights_sha256])
        licenses.append(released.license)
    model_config = replace(description.config, head=stage.panoptic.of(description.config.head))
    if stage.start == "scratch" or model_config != description.config:
        seed = int(settings["seed"] if stage.seed is None else stage.seed)
        model = _drawn_anew(model_config, seed, {} if stage.start == "scratch" else model.state_dict())
    fit(
        Fit(
            stage=name,
            settings={**settings, name: config.plain(stage)},
            model=model,
            model_config=model_config,
            objective=make_objective(stage.mode, backbone.geometry_loss, stage.panoptic_loss, stage.geometry_weight),
            training=stage.training,
            data=data,
            start_digest=digest,
            licenses=[] if stage.start == "scratch" else licenses,
            output=output,
            results=results,
        )
    )


def _take_over_head(model: Pano3D, label_space: str, folder: Path) -> ModelDescription:
    """Give `model` the panoptic half of the model in `folder`. Where that names other classes, it still knows what an
    object is: all but the weights of single classes are taken over, and those stay as they were drawn."""
    source, released = read_model(folder)
    load_strictly(model.fusion, source.fusion.state_dict(), str(folder))
    weights = source.mask_decoder.state_dict()
    if released.config.label_space != label_space:
        own = model.mask_decoder.state_dict()
        weights |= {name: own[name] for name in _CLASS_WEIGHTS & own.keys()}
        print(
            f"joint_finetune: {folder} knows the classes of {released.config.label_space}; those of {label_space} are "
            "learned from nothing, the rest of its panoptic half is taken over",
            file=sys.stderr,
        )
    load_strictly(model.mask_decoder, weights, str(folder))
    return released


def _drawn_anew(model_config: ModelConfig, seed: int, kept: Mapping[str, Tensor]) -> Pano3D:
    """A fresh network that takes over the weights which keep name and shape."""
    torch.manual_seed(seed)
    model = draw_model(model_config)
    fresh = model.state_dict()
    model.load_state_dict(
        {name: kept[name] if name in kept and kept[name].shape == own.shape else own for name, own in fresh.items()}
    )
    return model
