"""Which views fill MUSt3R's memory, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
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

    The mean over patches (at most 256 of a view, evenly spaced) of the cosine with the best match in the other view,
    after taking away what all have in common; the mean of both directions.
    """
    sampled = [
        view[torch.arange(0, len(view), -(-len(view) // _PATCHES), device=view.device)].float() for view in tokens
    ]
    common = torch.cat(sampled).mean(dim=0)
    directions = [functional.normalize(view - common, dim=-1) for view in sampled]
    best = torch.eye(len(tokens), device=common.device)
    for first, one in enumerate(directions):
        for second in range(first):
            cosine = one @ directions[second].mT
            mean = (cosine.amax(dim=0).mean() + cosine.amax(dim=1).mean()) / 2
            best[first, second] = best[second, first] = mean
    return best


def outward_order(similarity: Float[Tensor, "v v"], number: int) -> list[int]:
    """`number` views that cover the scene (0 = all), from the middle of it outwards.

    Chosen from the view most like all others on, each the one least like those before it (farthest-point sampling);
    then put in an order in which each, after the one most like the rest, is the one most like any before it.
    """
    similarity = similarity.double().cpu().clone().fill_diagonal_(0.0)
    chosen = [int(similarity.sum(dim=1).argmax())]
    while len(chosen) < (number or len(similarity)) and len(chosen) < len(similarity):
        nearness = similarity[chosen].amax(dim=0)
        nearness[chosen] = torch.inf
        chosen.append(int(nearness.argmin()))
    among = similarity[chosen][:, chosen]
    order = [int(among.sum(dim=1).argmax())]
    while len(order) < len(chosen):
        nearness = among[order].amax(dim=0)
        nearness[order] = -torch.inf
        order.append(int(nearness.argmax()))
    return [chosen[position] for position in order]
