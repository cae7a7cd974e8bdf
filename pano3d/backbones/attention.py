"""Attention and feed-forward layers on fused kernels; channel layouts are those of the released ViT checkpoints."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pano3d.backbones.linear import Linear, linear
from pano3d.backbones.rope import RopeTable, rotate

_CACHED_PAIRS = 2**22  # of a query and a key: 8 MiB of weights


def attend(
    query: Float[Tensor, "n heads t d"], key: Float[Tensor, "n heads m d"], value: Float[Tensor, "n heads m d"]
) -> Float[Tensor, "n heads t d"]:
    """softmax(query key^T / sqrt(d)) value.

    PyTorch's fused kernel, except for bfloat16 with gradients on a CPU: there plain products are faster as long as the
    weights fit into caches, those of all heads or of one at a time (`pano3d bench --full --only training_step`).
    """
    of_one_head = query.shape[-2] * key.shape[-2]
    is_plain = query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if not is_plain or of_one_head > _CACHED_PAIRS:
        return F.scaled_dot_product_attention(query, key, value)
    if query[..., 0].numel() * key.shape[-2] <= _CACHED_PAIRS:
        return _attend_plainly(query, key, value)
    heads = [tensor.flatten(0, 1).unbind() for tensor in (query, key, value)]
    return torch.stack([_attend_plainly(*head) for head in zip(*heads, strict=True)]).unflatten(0, query.shape[:2])


def _attend_plainly(
    query: Float[Tensor, "*heads t d"], key: Float[Tensor, "*heads m d"], value: Float[Tensor, "*heads m d"]
) -> Float[Tensor, "*heads t d"]:
    return (query * query.shape[-1] ** -0.5 @ key.mT).softmax(-1) @ value


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection, channels ordered [q | k | v]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, tokens: Float[Tensor, "n t c"], table: RopeTable | None) -> Float[Tensor, "n t c"]:
        """Each of the `n` images attends within itself; `table` rotates queries and keys."""
        qkv = rearrange(self.qkv(tokens), "n t (s d) -> n s t d", s=3 * self.heads)
        query_key, value = qkv[:, : 2 * self.heads], qkv[:, 2 * self.heads :]
        if table is not None:
            query_key = rotate(query_key, table)
        query, key = query_key.split(self.heads, dim=1)
        return self.proj(rearrange(attend(query, key, value), "n s t d -> n t (s d)"))


class CrossAttention(nn.Module):
    """Multi-head cross-attention without positions; keys and values travel packed as [k | v], ready to be kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = Linear(width, width)
        self.projk = Linear(width, width)
        self.projv = Linear(width, width)
        self.proj = Linear(width, width)

    def queries(self, tokens: Float[Tensor, "b t c"]) -> Float[Tensor, "b heads t d"]:
        """Projected queries, split into heads."""
        return rearrange(self.projq(tokens), "b t (s d) -> b s t d", s=self.heads)

    def keys_values(self, tokens: Float[Tensor, "b t c"]) -> Float[Tensor, "b t kv"]:
        """Projected keys and values, packed [k | v]: one product, already in the layout of the memory."""
        weight = torch.cat((self.projk.weight, self.projv.weight))
        bias = torch.cat((self.projk.bias, self.projv.bias))
        return linear(tokens, weight, bias)

    def read(
        self, query: Float[Tensor, "b heads t d"], keys_values: Float[Tensor, "b m kv"]
    ) -> Float[Tensor, "b heads t d"]:
        """Attend from projected queries to packed keys and values, before the output projection."""
        key, value = rearrange(keys_values.to(query.dtype), "b m (p s d) -> p b s m d", p=2, s=self.heads)
        return attend(query, key, value)

    def merge(self, read: Float[Tensor, "b heads t d"]) -> Float[Tensor, "b t c"]:
        """Join the heads and project."""
        return self.proj(rearrange(read, "b s t d -> b t (s d)"))


class Mlp(nn.Module):
    """Two linears around an exact (erf) GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, tokens: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return self.fc2(F.gelu(self.fc1(tokens)))
