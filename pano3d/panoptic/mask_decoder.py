"""Queries shared by all views of a scene read the fused tokens; each answers with one class and one mask embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from pano3d.panoptic.attention import (
    CrossAttentionLayer,
    FeedForwardLayer,
    MaskEmbedding,
    SelfAttentionLayer,
    sine_position_code,
)
from pano3d.panoptic.class_head import ClassMode, LearnedClassHead, TextClassHead
from pano3d.types import ConfigError, MaskOutput


@dataclass(frozen=True)
class MaskDecoderConfig:
    """Sizes and choices of `MaskDecoder`.

    token_width, mask_width: channels of what `FeatureFusion` gives.
    width, layers, heads, ffn_width, queries: the transformer.
    class_head: "learned" is a linear layer; "text" compares with frozen text embeddings of `text_width` channels.
    class_mode: "softmax" has a "no object" column, "sigmoid" judges each class alone.
    masked_attention: a query reads only the tokens its previous mask covers.
    query_passes: which passes over the images the queries read when a backbone renders an image twice: only the
        "first" (MUSt3R's update pass), or "all".
    levels: token grids that `predict` visits in turn, layer by layer; `forward`, and with it `Pano3D`, has one.
    """

    width: int
    layers: int
    heads: int
    ffn_width: int
    queries: int
    token_width: int
    mask_width: int
    class_head: Literal["learned", "text"] = "learned"
    class_mode: ClassMode = "softmax"
    text_width: int = 768
    masked_attention: bool = True
    query_passes: Literal["first", "all"] = "first"
    levels: int = 1

    def __post_init__(self) -> None:
        sizes = (self.width, self.layers, self.heads, self.ffn_width, self.queries, self.token_width, self.mask_width)
        if min(*sizes, self.text_width, self.levels) < 1:
            raise ConfigError("decoder: every size must be positive")
        if self.width % self.heads or self.width % 4:
            raise ConfigError(
                f"decoder.width: expected a multiple of 4 and of heads={self.heads}, got {self.width}; "
                "the position code needs sine and cosine of rows and columns"
            )


class MaskDecoder(nn.Module):
    """Masked-attention transformer over the tokens of all views at once.

    Source: Mask2Former's decoder as PanSt3R and Pano3D use it: post-norm, cross-attention before self-attention, one
    query = one object over all views, the same heads after every layer. Parameter names are the public ones.
    """

    def __init__(self, config: MaskDecoderConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        same_width = config.token_width == width
        self.input_proj: nn.Module = nn.Identity() if same_width else nn.Linear(config.token_width, width)
        self.query_feat = nn.Embedding(config.queries, width)
        self.query_embed = nn.Embedding(config.queries, width)
        self.level_embed = nn.Embedding(config.levels, width)
        self.cross_attn_layers = nn.ModuleList(CrossAttentionLayer(width, config.heads) for _ in range(config.layers))
        self.self_attn_layers = nn.ModuleList(SelfAttentionLayer(width, config.heads) for _ in range(config.layers))
        self.ffn_layers = nn.ModuleList(FeedForwardLayer(width, config.ffn_width) for _ in range(config.layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.mask_embed = MaskEmbedding(width, config.mask_width)
        self.class_head: LearnedClassHead | TextClassHead
        if config.class_head == "learned":
            self.class_head = LearnedClassHead(width, num_classes, config.class_mode)
        else:
            self.class_head = TextClassHead(width, config.text_width, num_classes, config.class_mode)

    def forward(
        self,
        tokens: Float[Tensor, "b v t d"],
        token_grid: tuple[int, int],
        mask_features: Float[Tensor, "b v dm hm wm"],
        view_index: Int[Tensor, " v"] | None = None,
    ) -> MaskOutput:
        """Decode the queries of every scene.

        Args:
            tokens, mask_features: from `FeatureFusion`.
            token_grid: (h, w) of the tokens.
            view_index: `BackboneOutput.view_index`; needed only where an image occurs twice.

        Returns:
            One entry per supervised layer (the bare queries first) while training, only the last one otherwise.
        """
        read: slice | Tensor = slice(None)
        # CHOICE: queries read the first pass over each image (MUSt3R's update pass, which also builds the memory) and
        # are compared with the mask features of all passes; `query_passes="all"` lets them read the render pass too.
        if view_index is not None and self.config.query_passes == "first":
            first = first_passes(view_index)
            read = read if len(first) == tokens.shape[1] else first
        states = self.decode([(tokens[:, read], token_grid)], mask_features[:, read])
        return self._answer(states if self.training else states[-1:], mask_features)

    def predict(
        self,
        levels: list[tuple[Float[Tensor, "b v _ d"], tuple[int, int]]],
        mask_features: Float[Tensor, "b v dm hm wm"],
    ) -> MaskOutput:
        """As `forward`, for any number of levels, always with every layer's answer."""
        return self._answer(self.decode(levels, mask_features), mask_features)

    def _answer(self, states: list[Tensor], mask_features: Tensor) -> MaskOutput:
        normed = [self.decoder_norm(x) for x in states]
        return MaskOutput(
            class_logits=[self.class_head(x) for x in normed],
            mask_embeddings=[self.mask_embed(x) for x in normed],
            mask_features=mask_features,
        )

    def decode(
        self,
        levels: list[tuple[Float[Tensor, "b v _ d"], tuple[int, int]]],
        mask_features: Float[Tensor, "b v dm hm wm"],
    ) -> list[Float[Tensor, "b q e"]]:
        """The queries before the first and after each layer.

        levels: tokens and grid of every level; layer i reads level i modulo their number.
        """
        b = mask_features.shape[0]
        memories, positions, resampled = [], [], []
        for index, (tokens, grid) in enumerate(levels):
            memories.append(rearrange(self.input_proj(tokens), "b v t d -> b (v t) d") + self.level_embed.weight[index])
            positions.append(sine_position_code(grid, self.config.width, tokens.device).to(tokens.dtype)[None])
            # Resampling is linear, so it may be done to the features once, instead of to every query's logits.
            if self.config.masked_attention:
                resampled.append(resample_features(mask_features.detach(), grid))
        x = self.query_feat.weight.expand(b, -1, -1)
        query_position = self.query_embed.weight.expand(b, -1, -1)
        states = [x]
        for index in range(self.config.layers):
            level = index % len(levels)
            readable = self._readable(x, resampled[level]) if self.config.masked_attention else None
            x = self.cross_attn_layers[index](x, query_position, memories[level], positions[level], readable)
            x = self.self_attn_layers[index](x, query_position)
            x = self.ffn_layers[index](x)
            states.append(x)
        return states

    @torch.no_grad()
    def _readable(self, x: Tensor, features: Float[Tensor, "b n dm"]) -> Bool[Tensor, "b q n"]:
        logits = self.mask_embed(self.decoder_norm(x)) @ features.transpose(1, 2)
        readable = logits >= 0  # probability at least one half
        # A query that covers nothing in any view would divide by zero: it may look everywhere.
        return readable | ~readable.any(dim=-1, keepdim=True)


def resample_features(
    mask_features: Float[Tensor, "b v dm hm wm"], token_grid: tuple[int, int]
) -> Float[Tensor, "b n dm"]:
    """Mask features at the token grid, bilinear, tokens of all views in one row."""
    flat = functional.interpolate(mask_features.flatten(0, 1), size=token_grid, mode="bilinear", align_corners=False)
    return rearrange(flat, "(b v) d h w -> b (v h w) d", b=mask_features.shape[0])


def first_passes(view_index: Int[Tensor, " v"]) -> Int[Tensor, " n"]:
    """Positions at which each image occurs for the first time, in order."""
    images = view_index.tolist()
    first = [position for position, image in enumerate(images) if image not in images[:position]]
    return torch.tensor(first, dtype=torch.long, device=view_index.device)
