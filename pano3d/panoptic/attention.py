"""Building blocks of the mask decoder: post-norm attention, feed-forward, position code."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention whose parameters carry the names and layout of `torch.nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Float[Tensor, "b q d"],
        memory: Float[Tensor, "b n d"],
        key_position: Float[Tensor, "#b t d"],
        readable: Bool[Tensor, "b q n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Read `memory` with keys memory + key_position and values memory.

        key_position: of one view's tokens where `memory` holds those of several views in a row.
        readable: True where a query may look; None lets it look everywhere.
        """
        weight_q, weight_k, weight_v = self.in_proj_weight.chunk(3)
        bias_q, bias_k, bias_v = self.in_proj_bias.chunk(3)
        q = functional.linear(query, weight_q, bias_q)
        # Keys are linear in the position code: it is projected apart and once, being the same for every view.
        k = functional.linear(memory, weight_k, bias_k)
        position = functional.linear(key_position, weight_k)
        k = (k.unflatten(1, (-1, position.shape[1])) + position[:, None]).flatten(1, 2)
        v = functional.linear(memory, weight_v, bias_v)
        q, k, v = (rearrange(x, "b n (e c) -> b e n c", e=self.heads) for x in (q, k, v))
        mask = None if readable is None else rearrange(readable, "b q n -> b 1 q n")
        read = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(rearrange(read, "b e q c -> b q (e c)"))


class CrossAttentionLayer(nn.Module):
    """x <- LN(x + attention of the queries over the views' tokens)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, query_position: Tensor, memory: Tensor, key_position: Tensor, readable: Tensor | None
    ) -> Tensor:
        return self.norm(x + self.multihead_attn(x + query_position, memory, key_position, readable))


class SelfAttentionLayer(nn.Module):
    """x <- LN(x + attention of the queries over each other)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, query_position: Tensor) -> Tensor:
        return self.norm(x + self.self_attn(x + query_position, x, query_position))


class FeedForwardLayer(nn.Module):
    """x <- LN(x + W2 ReLU(W1 x))."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden_width)
        self.linear2 = nn.Linear(hidden_width, width)
        self.norm = nn.LayerNorm(width)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.linear2(functional.relu(self.linear1(x))))


class MaskEmbedding(nn.Module):
    """Three linear layers with ReLU between: a query's vector in the space of the mask features."""

    def __init__(self, width: int, mask_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, mask_width)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


def sine_position_code(
    token_grid: tuple[int, int], width: int, device: torch.device | None = None
) -> Float[Tensor, "t d"]:
    """Sine and cosine of a token's row and column inside its own view; the same for every view.

    Rows and columns count from 1 and are divided by the grid's size, times 2 pi; temperature 10000. The first half of
    the channels holds rows, the second columns, sine and cosine interleaved.

    Source: Mask2Former's normalised position embedding.
    """
    h, w = token_grid
    half = width // 2
    exponent = 2 * torch.div(torch.arange(half, device=device), 2, rounding_mode="floor") / half
    frequency = 10000.0**exponent

    def code(size: int) -> Tensor:
        angle = torch.arange(1, size + 1, device=device)[:, None] / size * (2 * math.pi) / frequency
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

    rows = code(h)[:, None].expand(h, w, half)
    columns = code(w)[None].expand(h, w, half)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)
