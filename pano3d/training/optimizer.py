"""Which parameters learn, how fast, and along which schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pano3d.model import Pano3D
from pano3d.training.muon import Muon
from pano3d.types import ConfigError


@dataclass(frozen=True)
class OptimizerConfig:
    """Which rule moves which parameters, and how fast; a rate of 0 freezes its part.

    encoder, decoder, geometry_head, panoptic: peak learning rates of the parts.
    muon: 0 leaves everything to AdamW. Otherwise the matrices between hidden features (linear layers outside the
        output heads; not embeddings) follow Muon at `muon` times the rate of their part, with updates scaled to
        AdamW's usual size; everything else stays with AdamW.
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
    muon: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        if min(self.encoder, self.decoder, self.geometry_head, self.panoptic) < 0:
            raise ConfigError("optimizer: learning rates must not be negative; 0 freezes a part")
        if self.muon < 0:
            raise ConfigError(f"optimizer.muon is {self.muon}; expected a factor above 0, or 0 for AdamW alone")
        if not (0 <= self.warmup < 1 and 0 <= self.head_only < 1 and self.clip_norm > 0):
            raise ConfigError("optimizer: warmup and head_only are shares in [0, 1), clip_norm is positive")


def make_optimizer(model: Pano3D, config: OptimizerConfig, precision: torch.dtype = torch.float32) -> Optimizers:
    """The rules of `config` over the learning parts; matrices decay, biases and other vectors do not.

    Frozen parts lose `requires_grad`, so that no gradient is computed for them.

    Args:
        precision: of Muon's products on a CPU.

    Raises:
        ConfigError: every part is frozen.

    Source: AdamW, Loshchilov and Hutter, arXiv 1711.05101; `muon.Muon`.
    """
    rates = {
        "encoder": config.encoder,
        "decoder": config.decoder,
        "geometry_head": config.geometry_head,
        "panoptic": config.panoptic,
    }
    hidden = hidden_matrices(model) if config.muon else set()
    adamw: list[dict[str, object]] = []
    muon: list[dict[str, object]] = []
    for part, parameters in model.parts().items():
        for parameter in parameters:
            parameter.requires_grad_(rates[part] > 0)
        if rates[part] == 0:
            continue
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays and id(p) not in hidden]
            decay = config.weight_decay if decays else 0.0
            adamw.append({"params": chosen, "lr": 0.0, "peak": rates[part], "part": part, "weight_decay": decay})
        matrices = [p for p in parameters if id(p) in hidden]
        if matrices:
            peak, decay = config.muon * rates[part], config.weight_decay / config.muon
            muon.append({"params": matrices, "lr": 0.0, "peak": peak, "part": part, "weight_decay": decay})
    if not adamw:
        raise ConfigError("optimizer: every part has learning rate 0; nothing would be trained")
    on_gpu = next(model.parameters()).is_cuda
    # One kernel for all parameters, where hundreds of small ones would keep a GPU waiting.
    rules: list[torch.optim.Optimizer] = [torch.optim.AdamW(adamw, betas=config.betas, fused=on_gpu or None)]
    if muon:
        rules.append(Muon(muon, precision))
    return Optimizers(rules)


class Optimizers:
    """Several update rules, each over its own parameters, stepped and saved as one."""

    def __init__(self, rules: list[torch.optim.Optimizer]):
        self.rules = rules

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all rules, AdamW's first."""
        return [group for rule in self.rules for group in rule.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for rule in self.rules:
            rule.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move every parameter by its rule."""
        for rule in self.rules:
            rule.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """The states of the rules, in their order."""
        return [rule.state_dict() for rule in self.rules]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: the states are those of other rules or other parameters.
        """
        if len(states) != len(self.rules):
            raise ValueError(f"{len(states)} optimizer states for {len(self.rules)} update rules")
        for rule, state in zip(self.rules, states):
            rule.load_state_dict(state)


def hidden_matrices(model: nn.Module) -> set[int]:
    """Identities of the matrices between hidden features: those outside the output heads that are not embeddings."""
    chosen: set[int] = set()
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) or any("head" in name for name in path.split(".")):
            continue
        # By name, not by attribute type: attention keeps its joint projection as a bare parameter.
        chosen |= {
            id(parameter)
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.ndim == 2 and name.endswith("weight")
        }
    return chosen


def learning_rate_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at `step`: linear warm-up, then a half cosine down to `final`."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rates(optimizer: Optimizers, step: int, steps: int, config: OptimizerConfig) -> None:
    """Write the rates of `step` into the optimizer's groups."""
    factor = learning_rate_factor(step, steps, config)
    head_only = step < config.head_only * steps
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if head_only and group["part"] != "panoptic" else group["peak"] * factor


def clip_gradients(model: nn.Module, clip_norm: float) -> Float[Tensor, ""]:
    """Scale the whole gradient, of all processes where it is sharded, down to `clip_norm`; its norm before."""
    norm = torch.nn.utils.clip_grad_norm_((p for p in model.parameters() if p.requires_grad), clip_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
