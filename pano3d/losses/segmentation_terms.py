"""The terms of the segmentation loss: masks at points, and classes."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


def mask_losses(
    logits: Float[Tensor, "*b v p"],
    labels: Float[Tensor, "*b v p"],
    weight: Float[Tensor, "*b v p"],
    dice: Literal["per_view", "pooled"] = "per_view",
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Binary cross-entropy and dice of each mask at its points.

    BCE: weighted mean over the points of all views. Dice "per_view": mean over the views that have a labelled point, so
    that a view without the object still says so; "pooled": all views are one mask.
    """
    raw = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    bce = (raw * weight).sum((-1, -2)) / weight.sum((-1, -2)).clamp_min(1e-6)
    axes = (-1,) if dice == "per_view" else (-1, -2)
    probs = logits.sigmoid() * weight
    overlap = (probs * labels).sum(axes)
    size = probs.sum(axes) + (labels * weight).sum(axes)
    value = 1 - (2 * overlap + 1) / (size + 1)
    if dice == "pooled":
        return bce, value
    labelled = (weight.sum(-1) > 0).to(value)
    return bce, (value * labelled).sum(-1) / labelled.sum(-1).clamp_min(1.0)


def softmax_class_loss(
    class_logits: Float[Tensor, "l b q c"],
    wanted: Int[Tensor, "l b q"],
    class_allowed: Bool[Tensor, "b k"],
    no_object_weight: float,
) -> Float[Tensor, " l"]:
    """Weighted mean cross-entropy per layer; the last column is "no object"; classes not allowed drop out."""
    num_classes = class_logits.shape[-1] - 1
    open_columns = functional.pad(class_allowed, (0, 1), value=True)
    masked = class_logits.masked_fill(~open_columns[None, :, None], float("-inf"))
    weights = class_logits.new_ones(num_classes + 1)
    weights[-1] = no_object_weight
    entropy = functional.cross_entropy(masked.flatten(0, 2), wanted.flatten(), weight=weights, reduction="none")
    total = weights[wanted].sum((1, 2)).clamp_min(1e-6)
    return entropy.view(wanted.shape).sum((1, 2)) / total


def focal_class_loss(
    class_logits: Float[Tensor, "l b q k"],
    wanted: Int[Tensor, "l b q"],
    class_allowed: Bool[Tensor, "b k"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, " l"]:
    """Sigmoid focal loss per layer, summed over scenes, queries and allowed classes; `wanted` = K is none of them."""
    num_classes = class_logits.shape[-1]
    truth = functional.one_hot(wanted, num_classes + 1)[..., :-1].to(class_logits)
    probs = class_logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(class_logits, truth, reduction="none")
    missed = probs * (1 - truth) + (1 - probs) * truth
    balance = alpha * truth + (1 - alpha) * (1 - truth)
    return (balance * missed**gamma * entropy * class_allowed[None, :, None]).sum((1, 2, 3))
