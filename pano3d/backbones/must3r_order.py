"""Which views fill MUSt3R's memory, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

_PATCHES = 256


def evenly_spaced(order: Sequence[int], number: int) -> list[int]:
    """`number` evenly spaced entries of `order`, the first among them; all for 0."""
    if number == 0 or number >= len(order):
        return list(order)
    if number == 1:
        return [order[0]]
    return [order[i * (len(order) - 1) // (number - 1)] for i in range(number)]


def view_similarity(tokens: Sequence[Float[Tensor, "_ c"]]) -> Float[Tensor, "v v"]:
    """How much views show of the same, from their encoder tokens: -1 to 1, symmetric, 1 with themselves.

    The mean over patches (of each view as many, at most 256, evenly spaced) of the cosine with the best match in the
    other view, after taking away what all have in common; the mean of both directions.
    """
    count = min(_PATCHES, *(len(view) for view in tokens))
    sampled = torch.stack([view[_spread(len(view), count, view.device)] for view in tokens]).float()
    directions = functional.normalize(sampled - sampled.mean(dim=(0, 1)), dim=-1)
    everywhere = directions.flatten(0, 1).T
    with torch.autocast(sampled.device.type, enabled=False):  # the same order in every precision
        # View by view: all pairs of patches at once would fill the memory.
        best = torch.stack([(one @ everywhere).unflatten(1, (-1, count)).amax(dim=2).mean(dim=0) for one in directions])
    return (best + best.mT) / 2


def _spread(total: int, count: int, device: torch.device) -> Int[Tensor, " n"]:
    return torch.linspace(0, total - 1, count, device=device).round().long()


def outward_order(similarity: Float[np.ndarray, "v v"], number: int) -> list[int]:
    """`number` views that cover the scene (0 = all), from the middle of it outwards.

    Chosen from the view most like all others on, each the one least like those before it (farthest-point sampling);
    then put in an order in which each, after the one most like the rest, is the one most like any before it.
    """
    similarity = similarity.astype(np.float64)
    np.fill_diagonal(similarity, 0.0)
    chosen = [int(similarity.sum(axis=1).argmax())]
    while len(chosen) < min(number or len(similarity), len(similarity)):
        nearness = similarity[chosen].max(axis=0)
        nearness[chosen] = np.inf
        chosen.append(int(nearness.argmin()))
    among = similarity[np.ix_(chosen, chosen)]
    order = [int(among.sum(axis=1).argmax())]
    while len(order) < len(chosen):
        nearness = among[order].max(axis=0)
        nearness[order] = -np.inf
        order.append(int(nearness.argmax()))
    return [chosen[position] for position in order]
