"""The transformer block of DINOv2, also the block of Pi3's decoder and heads; names are those of the released files."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from pano3d.backbones.attention import Mlp, attend
from pano3d.backbones.linear import Linear
from pano3d.backbones.rope import RopeTable, rotate


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
        return tokens * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention, optionally with a LayerNorm per head on queries and keys."""

    def __init__(self, width: int, num_heads: int, normalise_query_key: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
        # eps stays at 1e-5 here, unlike the 1e-6 of every other norm of this network.
        self.q_norm = nn.LayerNorm(width // num_heads) if normalise_query_key else nn.Identity()
        self.k_norm = nn.LayerNorm(width // num_heads) if normalise_query_key else nn.Identity()

    def forward(self, tokens: Float[Tensor, "n t c"], table: RopeTable | None) -> Float[Tensor, "n t c"]:
        """All tokens of one batch entry attend to each other; `table` turns queries and keys by their positions."""
        query, key, value = rearrange(self.qkv(tokens), "n t (p s d) -> p n s t d", p=3, s=self.num_heads)
        query, key = self.q_norm(query).to(value.dtype), self.k_norm(key).to(value.dtype)
        if table is not None:
            query, key = rotate(query, table), rotate(key, table)
        return self.proj(rearrange(attend(query, key, value), "n s t d -> n t (s d)"))


class Block(nn.Module):
    """Pre-norm attention, then a pre-norm feed-forward, each added to its input.

    Args:
        layer_scale: first value of the residual factors, None for a block without them.
        normalise_query_key: LayerNorm per head on queries and keys.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: float,
        layer_scale: float | None,
        normalise_query_key: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, num_heads, normalise_query_key)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(self, tokens: Float[Tensor, "n t c"], table: RopeTable | None = None) -> Float[Tensor, "n t c"]:
        return self.feed(self.attend(tokens, table))

    def attend(self, tokens: Float[Tensor, "n t c"], table: RopeTable | None) -> Float[Tensor, "n t c"]:
        """The half of the block that mixes tokens."""
        return tokens + self.ls1(self.attn(self.norm1(tokens), table))

    def feed(self, tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
        """The half that treats every token alone, so that any split of the tokens gives the same numbers."""
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))
