"""Two-dimensional rotary position embedding: rows turn the first half of a head, columns the second."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class RopeTable:
    """Cosines and signed sines of every token and channel, in float32 whatever the autocast dtype.

    cos, sin: (T d) when every image shares one grid, (N 1 T d) when images differ; both broadcast over heads.
    """

    cos: Float[Tensor, "*batch t d"]
    sin: Float[Tensor, "*batch t d"]


def grid_positions(height: int, width: int, device: torch.device | None = None) -> Int[Tensor, "t 2"]:
    """(row, column) of each token of an (height, width) grid, row-major."""
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    return torch.cartesian_prod(rows, columns).reshape(height * width, 2)


def rope_table(
    positions: Int[Tensor, "*batch t 2"], head_width: int, base: float = 100.0, scale: float = 1.0
) -> RopeTable:
    """Table for tokens at `positions`, to be built once per call and used by every layer.

    Args:
        positions: (row, column) in patches; (T 2) shared by all images or (N T 2) image by image.
        head_width: channels per head d, a multiple of 4.
        base: wavelength base.
        scale: trained image size over actual image size; 1 keeps the trained frequencies.
    """
    half = head_width // 2
    # omega_j = scale / base^(2j / half), angles in float32: bf16 angles cost a tenth of a unit token.
    exponent = torch.arange(0, half, 2, dtype=torch.float32, device=positions.device) / half
    frequency = scale / torch.pow(base, exponent)
    angle = positions[..., None].to(torch.float32) * frequency  # (.. t 2 half/2)
    cos, sin = angle.cos(), angle.sin()
    cos = torch.stack((cos, cos), dim=-2).flatten(-3)
    sin = torch.stack((-sin, sin), dim=-2).flatten(-3)
    if positions.ndim > 2:
        cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    return RopeTable(cos=cos, sin=sin)


def rotate(tokens: Float[Tensor, "n heads t d"], table: RopeTable) -> Float[Tensor, "n heads t d"]:
    """Turn each head vector by its token's position: channel j of a half pairs with channel j + half/2."""
    quarter = tokens.shape[-1] // 4
    partner = tokens.unflatten(-1, (2, 2, quarter)).roll(1, -2).flatten(-3)  # a flip of two, in half the time
    return torch.addcmul(tokens * table.cos, partner, table.sin).to(tokens.dtype)
