"""Set-prediction loss of the mask decoder: match once per layer, then class, dice and binary cross-entropy.

Masks are compared at random points. A logit is a dot product of a query with a mask feature and sampling is linear, so
the features are sampled once per view and a layer's logits at the points are one matrix product: no mask logits on
the grid exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pano3d.losses.matching import MaskCostSums, assign_queries, class_cost
from pano3d.losses.point_sampling import (
    PointSource,
    UniformPoints,
    sample_at_points,
    sample_own_segment,
    sample_segments,
    select_uncertain,
)
from pano3d.losses.segmentation_terms import focal_class_loss, mask_losses, softmax_class_loss
from pano3d.types import VOID, ConfigError, MaskOutput, PanopticTarget


@dataclass(frozen=True)
class PanopticLossConfig:
    """Weights and choices of `PanopticCriterion`. The weights are those of the matching cost too.

    class_mode: must be the decoder's.
    no_object_weight: of queries without a segment, softmax mode.
    points: per view.
    share_points: all masks of a scene are compared at the same points, in matching and loss, in every layer. False
        draws points per pair for the loss, as the public code does; then `oversample` and `importance` apply: of
        points * oversample candidates the share `importance` is taken where the mask is least certain.
    void: "ignore" keeps unlabelled pixels out of matching and loss; "background" counts them against every mask.
    dice: "per_view" averages the dice of each view, "pooled" takes all views as one mask, as matching does.
    """

    class_weight: float = 2.0
    dice_weight: float = 2.0
    bce_weight: float = 5.0
    no_object_weight: float = 0.1
    class_mode: Literal["softmax", "sigmoid"] = "softmax"
    points: int = 4096
    share_points: bool = True
    oversample: float = 1.0
    importance: float = 0.0
    void: Literal["ignore", "background"] = "ignore"
    dice: Literal["per_view", "pooled"] = "per_view"

    def __post_init__(self) -> None:
        if min(self.class_weight, self.dice_weight, self.bce_weight, self.no_object_weight) < 0:
            raise ConfigError("panoptic loss: weights must not be negative")
        if self.points < 1 or self.oversample < 1 or not 0 <= self.importance <= 1:
            raise ConfigError("panoptic loss: expected points >= 1, oversample >= 1 and importance in [0, 1]")
        if self.share_points and (self.oversample > 1 or self.importance > 0):
            raise ConfigError("panoptic loss: importance sampling needs points per pair; set share_points=false")


@dataclass(frozen=True)
class LayerLosses:
    """Unweighted losses of every supervised layer, and who was matched.

    query: (L B M) query of each segment, -1 = none.
    own_points: (B M V P 2) per layer where every pair has points of its own, else empty.
    """

    class_loss: Float[Tensor, " l"]
    bce: Float[Tensor, " l"]
    dice: Float[Tensor, " l"]
    query: Int[Tensor, "l b m"]
    num_segments: Float[Tensor, ""]
    own_points: list[Float[Tensor, "b m v p 2"]]

    def weighted(self, config: PanopticLossConfig) -> Float[Tensor, " l"]:
        return config.class_weight * self.class_loss + config.bce_weight * self.bce + config.dice_weight * self.dice


@dataclass(frozen=True)
class _Truth:
    """Targets of a batch, padded to one number of segments."""

    segment_index: Int[Tensor, "b v h w"]
    class_id: Int[Tensor, "b m"]
    present: Bool[Tensor, "b m"]


@dataclass(frozen=True)
class _Sampled:
    """Features and truth at the points shared by all masks; the first axis is 1 or the number of layers."""

    features: Float[Tensor, "l b v d p"]
    labels: Float[Tensor, "l b v m p"]
    weight: Float[Tensor, "l b v p"]


class PanopticCriterion:
    """Losses of Pano3D's segmentation half: class 2, dice 2, BCE 5, after every decoder layer."""

    def __init__(self, config: PanopticLossConfig) -> None:
        self.config = config

    def __call__(
        self,
        mask_output: MaskOutput,
        target: PanopticTarget,
        view_index: Int[Tensor, " v"],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Compare predictions with true segments.

        Args:
            mask_output: of the decoder; its V axis may hold an image twice.
            target: per image; the class loss ignores classes that a scene's `class_allowed` rules out.
            view_index: image behind each entry of the V axis.
            generator: draws the points.

        Returns:
            "total" (weighted, all layers), "class", "dice", "bce" (unweighted sums over layers), and as counts
            "segments", "matched" (last layer), "unmatched_targets" (more segments than queries).

        Raises:
            TrainingError: predictions are NaN or infinite.
        """
        device = mask_output.mask_features.device
        losses = self.layer_losses(mask_output, target, view_index, UniformPoints(generator, device))
        parts = {"class": losses.class_loss.sum(), "dice": losses.dice.sum(), "bce": losses.bce.sum()}
        total = losses.weighted(self.config).sum()
        matched = (losses.query[-1] >= 0).sum().to(total)
        counts = {
            "segments": losses.num_segments,
            "matched": matched,
            "unmatched_targets": losses.num_segments - matched,
        }
        return {"total": total, **parts, **counts}

    def layer_losses(
        self,
        mask_output: MaskOutput,
        target: PanopticTarget,
        view_index: Int[Tensor, " v"],
        points: PointSource,
    ) -> LayerLosses:
        """Match and compare, layer by layer, at points of the caller's choice."""
        device = mask_output.mask_features.device
        with torch.autocast(device.type, enabled=False):
            features = mask_output.mask_features.float()
            embeddings = torch.stack(mask_output.mask_embeddings).float()
            class_logits = torch.stack(mask_output.class_logits).float()
            truth = _collect_truth(target, view_index, device)
            shape = (features.shape[0], features.shape[1], self.config.points)
            compared = features if self.config.share_points else features.detach()
            sampled = self._sample(compared, truth, points.matching(len(embeddings), shape))
            query = self._match(embeddings.detach(), class_logits.detach(), sampled, truth)
            num_segments = truth.present.sum().to(features)
            normaliser = mean_over_processes(num_segments).clamp_min(1.0)
            own_points: list[Tensor] = []
            if self.config.share_points:
                pairs = self._losses_at_shared_points(embeddings, sampled, query)
            else:
                pairs = self._losses_at_own_points(embeddings, features, truth, query, points, own_points)
            bce, dice = (part / normaliser for part in pairs)
            class_loss = self._class_loss(class_logits, truth, query, target.class_allowed, normaliser)
        return LayerLosses(class_loss, bce, dice, query, num_segments, own_points)

    def _sample(self, features: Tensor, truth: _Truth, points: Float[Tensor, "l b v p 2"]) -> _Sampled:
        layers, b, v = points.shape[:3]
        flat = points.flatten(0, 2)
        at_points = sample_at_points(features.expand(layers, -1, -1, -1, -1, -1).flatten(0, 2), flat)
        labels, weight = sample_segments(
            truth.segment_index.expand(layers, -1, -1, -1, -1).flatten(0, 2),
            flat,
            truth.class_id.shape[1],
            self.config.void == "ignore",
        )
        return _Sampled(*(part.unflatten(0, (layers, b, v)) for part in (at_points, labels, weight)))

    @torch.no_grad()
    def _match(
        self, embeddings: Tensor, class_logits: Tensor, sampled: _Sampled, truth: _Truth
    ) -> Int[Tensor, "l b m"]:
        layers, own = len(embeddings), len(sampled.features)
        # Layers that share their points are rows of one product.
        rows = rearrange(embeddings, "(o l) b q d -> o b (l q) d", o=own)
        sums = MaskCostSums()
        for view in range(sampled.features.shape[2]):
            logits = rows @ sampled.features[:, :, view]
            sums.add(logits, sampled.labels[:, :, view], sampled.weight[:, :, view])
        bce, dice = (rearrange(cost, "o b (l q) m -> (o l) b q m", l=layers // own) for cost in sums.bce_and_dice())
        chosen = class_cost(class_logits, truth.class_id.expand(len(class_logits), -1, -1))
        costs = self.config.class_weight * chosen + self.config.bce_weight * bce + self.config.dice_weight * dice
        healthy = class_logits.isfinite().all(-1).all(-1) & embeddings.isfinite().all(-1).all(-1)
        return assign_queries(costs, truth.present, healthy)

    def _losses_at_shared_points(
        self, embeddings: Tensor, sampled: _Sampled, query: Int[Tensor, "l b m"]
    ) -> tuple[Float[Tensor, " l"], Float[Tensor, " l"]]:
        per_layer = []
        for layer in range(len(embeddings)):
            own = layer if len(sampled.features) > 1 else 0
            arguments = (
                _matched_embeddings(embeddings[layer], query[layer]),
                sampled.features[own],
                sampled.labels[own],
                sampled.weight[own],
                query[layer] >= 0,
            )
            # Recomputed in the backward pass: one matrix product instead of a layer's logits kept alive.
            per_layer.append(checkpoint(self._compare_shared, *arguments, use_reentrant=False))
        return _stack_pairs(per_layer)

    def _compare_shared(
        self,
        embeddings: Float[Tensor, "b m d"],
        features: Float[Tensor, "b v d p"],
        labels: Float[Tensor, "b v m p"],
        weight: Float[Tensor, "b v p"],
        matched: Bool[Tensor, "b m"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        logits = embeddings[:, None] @ features
        return self._pair_losses(
            logits.transpose(1, 2), labels.transpose(1, 2), weight[:, None].expand(-1, labels.shape[2], -1, -1), matched
        )

    def _losses_at_own_points(
        self,
        embeddings: Tensor,
        features: Tensor,
        truth: _Truth,
        query: Int[Tensor, "l b m"],
        points: PointSource,
        own_points: list[Tensor],
    ) -> tuple[Float[Tensor, " l"], Float[Tensor, " l"]]:
        per_layer = []
        for layer in range(len(embeddings)):
            matched = query[layer] >= 0
            chosen = _matched_embeddings(embeddings[layer], query[layer])
            at = self._own_points(chosen.detach(), features.detach(), points, layer, query[layer])
            own_points.append(at)
            b, m, v, p = at.shape[:4]
            labels, weight = sample_own_segment(
                truth.segment_index[:, None].expand(-1, m, -1, -1, -1).flatten(0, 2),
                at.flatten(0, 2),
                torch.arange(m, device=at.device)[None, :, None].expand(b, m, v).flatten(),
                self.config.void == "ignore",
            )
            arguments = (chosen, features, at, labels.view(b, m, v, p), weight.view(b, m, v, p), matched)
            per_layer.append(checkpoint(self._compare_own, *arguments, use_reentrant=False))
        return _stack_pairs(per_layer)

    @torch.no_grad()
    def _own_points(
        self, embeddings: Tensor, features: Tensor, points: PointSource, layer: int, query: Int[Tensor, "b m"]
    ) -> Float[Tensor, "b m v p 2"]:
        config = self.config
        shape = (*embeddings.shape[:2], features.shape[1])
        candidates = points.candidates(layer, (*shape, int(config.points * config.oversample)), query)
        keep = int(config.points * config.importance)
        rest = config.points - keep
        if config.oversample == 1 and config.importance in (0, 1):
            return candidates
        logits = _logits_at(embeddings, features, candidates)
        selected = select_uncertain(logits.flatten(0, 2), candidates.flatten(0, 2), keep).unflatten(0, shape)
        return torch.cat([selected, points.tail(layer, (*shape, rest), query)], dim=3)

    def _compare_own(
        self, embeddings: Tensor, features: Tensor, at: Tensor, labels: Tensor, weight: Tensor, matched: Tensor
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        return self._pair_losses(_logits_at(embeddings, features, at), labels, weight, matched)

    def _pair_losses(
        self,
        logits: Float[Tensor, "b m v p"],
        labels: Float[Tensor, "b m v p"],
        weight: Float[Tensor, "b m v p"],
        matched: Bool[Tensor, "b m"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sums over matched pairs of the mean BCE over points and of the dice."""
        bce, dice = mask_losses(logits, labels, weight, self.config.dice)
        return (bce * matched).sum(), (dice * matched).sum()

    def _class_loss(
        self,
        class_logits: Float[Tensor, "l b q c"],
        truth: _Truth,
        query: Int[Tensor, "l b m"],
        class_allowed: Bool[Tensor, "b k"] | None,
        normaliser: Float[Tensor, ""],
    ) -> Float[Tensor, " l"]:
        num_classes = class_logits.shape[-1] - (self.config.class_mode == "softmax")
        layers, scenes, queries = class_logits.shape[:3]
        # Segments without a query go to a column of their own: to pick the others would make a GPU wait.
        wanted = query.new_full((layers, scenes, queries + 1), num_classes)
        wanted.scatter_(2, query.remainder(queries + 1), truth.class_id.expand(layers, -1, -1))
        wanted = wanted[..., :queries]
        if class_allowed is None:
            class_allowed = torch.ones(class_logits.shape[1], num_classes, dtype=torch.bool, device=wanted.device)
        class_allowed = class_allowed.to(wanted.device)
        if self.config.class_mode == "softmax":
            return softmax_class_loss(class_logits, wanted, class_allowed, self.config.no_object_weight)
        return focal_class_loss(class_logits, wanted, class_allowed) / normaliser


def mean_over_processes(value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Mean of a number over the processes of a distributed run, itself elsewhere."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def _collect_truth(target: PanopticTarget, view_index: Tensor, device: torch.device) -> _Truth:
    segment_index = target.segment_index.to(device)
    scenes = len(target.class_id)
    most = max((len(classes) for classes in target.class_id), default=0)
    class_id = torch.zeros(scenes, most, dtype=torch.long, device=device)
    listed = torch.zeros(scenes, most, dtype=torch.bool, device=device)
    for scene, classes in enumerate(target.class_id):
        class_id[scene, : len(classes)] = classes.to(device)
        listed[scene, : len(classes)] = True
    # A segment that no view shows is no target.
    seen = torch.zeros(scenes, most + 1, dtype=torch.bool, device=device)
    seen.scatter_(1, segment_index.flatten(1).long() - VOID, True)
    return _Truth(segment_index[:, view_index.to(device)].long(), class_id, listed & seen[:, 1:])


def _matched_embeddings(embeddings: Float[Tensor, "b q d"], query: Int[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
    return embeddings.gather(1, query.clamp_min(0)[..., None].expand(-1, -1, embeddings.shape[-1]))


def _logits_at(
    embeddings: Float[Tensor, "b m d"], features: Float[Tensor, "b v d h w"], at: Float[Tensor, "b m v p 2"]
) -> Float[Tensor, "b m v p"]:
    """Logits of the matched queries only, sampled at their own points."""
    logits = torch.einsum("bmd,bvdhw->bmvhw", embeddings, features)
    return sample_at_points(logits.flatten(0, 2)[:, None], at.flatten(0, 2))[:, 0].unflatten(0, at.shape[:3])


def _stack_pairs(per_layer: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([bce for bce, _ in per_layer]), torch.stack([dice for _, dice in per_layer])
