"""The scale that best carries predicted points onto true ones, least absolute deviations, in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def solve_scale(
    source: Float[Tensor, "b p"], target: Float[Tensor, "b p"], weight: Float[Tensor, "b p"]
) -> Float[Tensor, " b"]:
    """Scale s per row that minimises sum_p weight |s source - target|; 0 where nothing has weight.

    The objective is piecewise linear with its kinks at target / source, so the answer is their weighted median.
    """
    sign = torch.where(source < 0, -1.0, 1.0)
    source, target = source * sign, target * sign
    ratio, order = (target / source.clamp(min=1e-7)).sort(dim=-1)
    mass = (weight * source).gather(-1, order).cumsum(-1)
    first = (2 * mass >= mass[:, -1:]).to(torch.uint8).argmax(-1, keepdim=True)
    scale = ratio.gather(-1, first).squeeze(-1)
    return torch.where(mass[:, -1] > 0, scale, 0.0)


def spread_indices(valid: Bool[Tensor, "b p"], count: int) -> Int[Tensor, "b count"]:
    """`count` indices spread evenly over the true entries of each row, in order; arbitrary where a row has none."""
    rank = valid.cumsum(-1)
    total = rank[:, -1:]
    wanted = torch.arange(count, device=valid.device) * total // count + 1
    return torch.searchsorted(rank, wanted).clamp(max=valid.shape[-1] - 1)
