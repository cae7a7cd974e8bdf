"""Which query answers for which true segment: costs on the device, one transfer, Hungarian assignment per scene."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from pano3d.types import TrainingError


def class_cost(class_logits: Float[Tensor, "*b q k"], class_id: Int[Tensor, "*b m"]) -> Float[Tensor, "*b q m"]:
    """Minus the softmax probability of each segment's class, also where the loss is sigmoid (as PanSt3R does)."""
    probs = class_logits.softmax(-1)
    return -probs.gather(-1, class_id[..., None, :].expand(*probs.shape[:-1], class_id.shape[-1]))


class MaskCostSums:
    """Pairwise BCE and dice over all views' points, gathered view by view so that no (Q, V P) logits exist.

    Sums run over all views at once: a mask is judged as one object.
    """

    def __init__(self) -> None:
        self._terms: tuple[Tensor, ...] | None = None

    def add(
        self, logits: Float[Tensor, "*#b q p"], labels: Float[Tensor, "*#b m p"], weight: Float[Tensor, "*#b p"]
    ) -> None:
        weighted = labels * weight[..., None, :]
        column = weight[..., None]
        segments_and_all = torch.cat([weighted.transpose(-1, -2), column], dim=-1)
        overlap = logits.sigmoid() @ segments_and_all
        terms = (
            functional.softplus(logits) @ column,
            logits @ segments_and_all[..., :-1],
            overlap[..., :-1],
            overlap[..., -1:],
            weighted.sum(-1)[..., None, :],
            column.sum(-2, keepdim=True),
        )
        self._terms = terms if self._terms is None else tuple(a + b for a, b in zip(self._terms, terms))

    def bce_and_dice(self) -> tuple[Float[Tensor, "*b q m"], Float[Tensor, "*b q m"]]:
        """BCE: weighted mean over points. Dice: 1 - (2 overlap + 1) / (size + true size + 1)."""
        if self._terms is None:
            raise TrainingError("matching queries with segments: expected at least one view, got none")
        softplus, agreement, overlap, size, true_size, points = self._terms
        bce = (softplus - agreement) / points.clamp_min(1e-6)
        return bce, 1 - (2 * overlap + 1) / (size + true_size + 1)


def assign_queries(
    costs: Float[Tensor, "l b q m"], present: Bool[Tensor, "b m"], healthy: Bool[Tensor, "l b"]
) -> Int[Tensor, "l b m"]:
    """Hungarian assignment of every layer and scene after one transfer to the host.

    Args:
        costs: of every query with every segment.
        present: segments that exist and are seen; the others stay unmatched.
        healthy: whether this scene's predictions of this layer are finite.

    Returns:
        query of each segment, -1 where it has none (absent, or more segments than queries); on the device of `costs`.

    Raises:
        TrainingError: a prediction or a cost is not finite.
    """
    layers, scenes, queries, segments = costs.shape
    packed = torch.cat([costs.flatten(), present.flatten().to(costs), healthy.flatten().to(costs)]).cpu().numpy()
    cost, seen, fine = np.split(packed, [costs.numel(), costs.numel() + present.numel()])
    cost = cost.reshape(layers, scenes, queries, segments)
    seen = seen.reshape(scenes, segments) > 0
    query = np.full((layers, scenes, segments), -1, dtype=np.int64)
    for layer in range(layers):
        for scene in range(scenes):
            columns = np.flatnonzero(seen[scene])
            matrix = cost[layer, scene][:, columns]
            if not fine.reshape(layers, scenes)[layer, scene] or not np.isfinite(matrix).all():
                raise TrainingError(
                    f"matching queries with segments: layer {layer}, scene {scene} predicts NaN or infinity; "
                    "lower the learning rate, switch mixed precision off, or resume from an earlier checkpoint"
                )
            rows, chosen = linear_sum_assignment(matrix)
            query[layer, scene, columns[chosen]] = rows
    return torch.from_numpy(query).to(costs.device)
