"""Encoder and decoder tokens of the backbone -> tokens the queries read, and mask features they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from pano3d.types import BackboneOutput, ConfigError


@dataclass(frozen=True)
class FusionConfig:
    """Sizes and choices of `FeatureFusion`.

    source: which backbone features enter. Pano3D: both; the single ones are its ablation.
    gradient_gate: factor on the segmentation gradient that enters the cross-view decoder; 0 detaches, 1 is open.
    token_width: channels D of the fused tokens G.
    mask_width: channels of the mask features.
    upscale_widths: channels of the intermediate steps of the upscaler. Empty: one step of factor `upscale_factor`
        (Pano3D). Otherwise one more step than entries, each of factor `upscale_factor` (PanSt3R: 512, 384; 2).
    upscale_factor: pixel-shuffle factor of one step.
    upscale_from: what the upscaler reads: the fused tokens G (Pano3D), or the concatenation itself (PanSt3R).
    hidden_factor: hidden width of every two-layer perceptron over its input width.
    input_norm: LayerNorm on E and on F before they are joined.
    """

    token_width: int
    mask_width: int
    source: Literal["both", "encoder", "decoder"] = "both"
    gradient_gate: float = 0.1
    upscale_widths: tuple[int, ...] = ()
    upscale_factor: int = 4
    upscale_from: Literal["fused", "concatenated"] = "fused"
    hidden_factor: int = 2
    input_norm: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.gradient_gate <= 1.0:
            raise ConfigError(f"fusion.gradient_gate: expected 0 to 1, got {self.gradient_gate}")
        widths = (self.token_width, self.mask_width, self.hidden_factor, self.upscale_factor, *self.upscale_widths)
        if min(widths) < 1:
            raise ConfigError("fusion: widths, hidden_factor and upscale_factor must be positive")


class _GradientGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        return (gradients[0] * ctx.factor if ctx.factor else None), None


def gate_gradient(value: Tensor, factor: float) -> Tensor:
    """The same value; its gradient is multiplied by `factor` (0 stops it).

    Source: Pano3D's gate on the cross-view decoder, F_seg = factor * F + (1 - factor) * stopgrad(F).
    """
    gated: Tensor = _GradientGate.apply(value, factor)
    return gated


class Perceptron(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, in_width: int, hidden_width: int, out_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, out_width)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class PixelShuffleUpscaler(nn.Module):
    """Per-token perceptrons followed by pixel shuffles: every token paints its own square of the mask grid."""

    def __init__(self, widths: list[int], factor: int, hidden_factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.steps = nn.ModuleList(
            Perceptron(before, hidden_factor * before, after * factor**2) for before, after in pairwise(widths)
        )

    def forward(self, grid: Float[Tensor, "n h w c"]) -> Float[Tensor, "n d hm wm"]:
        for step in self.steps:
            grid = rearrange(
                step(grid), "n h w (d r s) -> n (h r) (w s) d", r=self.factor, s=self.factor
            )  # the channel order of torch's pixel_shuffle
        return rearrange(grid, "n h w d -> n d h w").contiguous()


class FeatureFusion(nn.Module):
    """G = MLP(concat(E, gate(F))) and mask features = pixel shuffle of G, view by view.

    Source: Pano3D; with `upscale_from="concatenated"` and three steps, the first bridge of PanSt3R.
    """

    def __init__(self, config: FusionConfig, encoder_width: int, decoder_width: int) -> None:
        super().__init__()
        self.config = config
        self.uses_encoder = config.source != "decoder"
        self.uses_decoder = config.source != "encoder"
        width = encoder_width * self.uses_encoder + decoder_width * self.uses_decoder
        # CHOICE: E and F are normalised first. Pi3's last block is not, and its few huge channels would rule G;
        # the public PanSt3R bridge has no such norm, so the switch.
        norm = nn.LayerNorm if config.input_norm else nn.Identity
        self.encoder_norm = norm(encoder_width) if self.uses_encoder else nn.Identity()
        self.decoder_norm = norm(decoder_width) if self.uses_decoder else nn.Identity()
        self.fuse = Perceptron(width, config.hidden_factor * width, config.token_width)
        first = config.token_width if config.upscale_from == "fused" else width
        widths = [first, *config.upscale_widths, config.mask_width]
        self.upscale = PixelShuffleUpscaler(widths, config.upscale_factor, config.hidden_factor)

    def forward(self, output: BackboneOutput) -> tuple[Float[Tensor, "b v t d"], Float[Tensor, "b v dm hm wm"]]:
        """Fuse what the backbone says about each view.

        Returns:
            tokens G (B V T D) and mask features (B V Dm hm wm); hm = 4h with the default upscaler.
        """
        split = output.encoder_tokens.shape[:2]
        encoder, decoder = output.encoder_tokens.flatten(0, 1), output.decoder_tokens.flatten(0, 1)
        if torch.is_grad_enabled():
            tokens, features = self._fuse(encoder, decoder, output.token_grid)
            return tokens.unflatten(0, split), features.unflatten(0, split)
        # One view at a time: the perceptrons' hidden layers are several times wider than what they give.
        first = self._fuse(encoder[:1], decoder[:1], output.token_grid)
        tokens, features = (part.new_empty(len(encoder), *part.shape[1:]) for part in first)
        tokens[:1], features[:1] = first
        for index in range(1, len(encoder)):
            view = slice(index, index + 1)
            tokens[view], features[view] = self._fuse(encoder[view], decoder[view], output.token_grid)
        return tokens.unflatten(0, split), features.unflatten(0, split)

    def _fuse(
        self, encoder: Float[Tensor, "n t e"], decoder: Float[Tensor, "n t f"], token_grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "n t d"], Float[Tensor, "n dm hm wm"]]:
        sources = []
        if self.uses_encoder:
            sources.append(self.encoder_norm(encoder))
        if self.uses_decoder:
            sources.append(self.decoder_norm(gate_gradient(decoder, self.config.gradient_gate)))
        joined = torch.cat(sources, dim=-1)
        tokens = self.fuse(joined)
        painted = tokens if self.config.upscale_from == "fused" else joined
        return tokens, self.upscale(rearrange(painted, "n (h w) c -> n h w c", h=token_grid[0], w=token_grid[1]))
