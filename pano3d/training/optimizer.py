"""Which parameters learn, how fast, and along which schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from pano3d.model import Pano3D
from pano3d.types import ConfigError


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW over the parts of the network; a rate of 0 freezes its part.

    encoder, decoder, geometry_head, panoptic: peak learning rates of the parts.
    warmup: share of the steps with a linear rise; a half cosine falls to `final` times the peak after it.
    head_only: share of the steps, at the start, in which the panoptic head learns alone.
    clip_norm: largest norm of the whole gradient.
    """

    encoder: float
    decoder: float
    geometry_head: float
    panoptic: float
    weight_decay: float
    warmup: float
    final: float
    clip_norm: float
    head_only: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        if min(self.encoder, self.decoder, self.geometry_head, self.panoptic) < 0:
            raise ConfigError("optimizer: learning rates must not be negative; 0 freezes a part")
        if not (0 <= self.warmup < 1 and 0 <= self.head_only < 1 and self.clip_norm > 0):
            raise ConfigError("optimizer: warmup and head_only are shares in [0, 1), clip_norm is positive")


def make_optimizer(model: Pano3D, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with two groups per learning part: matrices decay, biases and other vectors do not.

    Frozen parts lose `requires_grad`, so that no gradient is computed for them.

    Raises:
        ConfigError: every part is frozen.
    """
    rates = {
        "encoder": config.encoder,
        "decoder": config.decoder,
        "geometry_head": config.geometry_head,
        "panoptic": config.panoptic,
    }
    groups: list[dict[str, object]] = []
    for part, parameters in model.parts().items():
        for parameter in parameters:
            parameter.requires_grad_(rates[part] > 0)
        if rates[part] == 0:
            continue
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            decay = config.weight_decay if decays else 0.0
            groups.append({"params": chosen, "lr": 0.0, "peak": rates[part], "part": part, "weight_decay": decay})
    if not groups:
        raise ConfigError("optimizer: every part has learning rate 0; nothing would be trained")
    return torch.optim.AdamW(groups, betas=config.betas)


def learning_rate_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at `step`: linear warm-up, then a half cosine down to `final`."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, steps: int, config: OptimizerConfig) -> None:
    """Write the rates of `step` into the optimizer's groups."""
    factor = learning_rate_factor(step, steps, config)
    head_only = step < config.head_only * steps
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if head_only and group["part"] != "panoptic" else group["peak"] * factor


def clip_gradients(model: nn.Module, clip_norm: float) -> float:
    """Scale the whole gradient, of all processes where it is sharded, down to `clip_norm`; its norm before."""
    norm = torch.nn.utils.clip_grad_norm_((p for p in model.parameters() if p.requires_grad), clip_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
