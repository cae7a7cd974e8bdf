"""What training minimises: geometry, segmentation, or their weighted sum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pano3d.losses.must3r_geometry import Must3rLossConfig, must3r_geometry_loss
from pano3d.losses.panoptic import (
    LayerLosses,
    PanopticCriterion,
    PanopticLossConfig,
    mean_over_processes,
)
from pano3d.losses.pi3_geometry import TRANSLATION_WEIGHT, Pi3GeometryLossConfig, pi3_geometry_loss
from pano3d.model import Pano3D
from pano3d.training.slices import Slice, StepTotals
from pano3d.types import BackboneOutput, Batch, ConfigError, GeometryTarget, MaskOutput

GeometryLoss = Callable[[BackboneOutput, GeometryTarget], dict[str, Tensor]]
Mode = Literal["geometry_init", "joint", "frozen", "semantic_only", "geometry_only"]


def make_objective(
    mode: Mode,
    geometry: Must3rLossConfig | Pi3GeometryLossConfig,
    panoptic: PanopticLossConfig | None = None,
    geometry_weight: float = 1.0,
) -> Objective:
    """The objective of one stage from the settings of its losses."""
    geometry_loss: GeometryLoss
    if isinstance(geometry, Must3rLossConfig):
        geometry_loss = partial(must3r_geometry_loss, config=geometry, reference=0)
        terms = GeometryTerms(counts_sky=geometry.sky_distance > 0)
    else:
        geometry_loss = partial(pi3_geometry_loss, config=geometry)
        terms = pi3_terms(geometry)
    return Objective(
        mode, geometry_loss, PanopticCriterion(panoptic) if panoptic else None, geometry_weight, terms=terms
    )


class Objective:
    """The loss of one batch and its parts.

    Modes: `geometry_init` and `geometry_only` train geometry alone; `frozen` and `semantic_only` segmentation
    alone (which parts move is the optimizer's business); `joint` is geometry_weight * geometry + segmentation.
    """

    def __init__(
        self,
        mode: Mode,
        geometry_loss: GeometryLoss,
        criterion: PanopticCriterion | None,
        geometry_weight: float,
        terms: GeometryTerms | None = None,
    ):
        self.has_geometry = mode in ("geometry_init", "geometry_only", "joint")
        self.has_segmentation = mode in ("frozen", "semantic_only", "joint")
        if self.has_segmentation and criterion is None:
            raise ConfigError(f"training in mode {mode}: the panoptic loss is not configured")
        if not geometry_weight >= 0:
            raise ConfigError(f"training: geometry_weight is {geometry_weight}; expected a number >= 0")
        self._geometry_loss, self._criterion, self._geometry_weight = geometry_loss, criterion, geometry_weight
        self._terms = terms or GeometryTerms()

    def __call__(
        self, model: Pano3D, batch: Batch, generator: torch.Generator, part: Slice | None = None
    ) -> dict[str, Tensor]:
        """Scalars by name: "total", "geometry", "segmentation" (those that apply) and their parts.

        Args:
            batch: the scenes of a step.
            part: given where `batch` is a slice of the step: every value is then that slice's share, and the shares of
                all slices add up to the value of the whole step.
        """
        losses: dict[str, Tensor] = {}
        terms: list[Tensor] = []
        if self._criterion is not None and self.has_segmentation:
            geometry, masks = model(batch.views)
            if part is None:
                parts = self._criterion(masks, batch.panoptic, geometry.view_index, generator)
            else:
                parts = self._segmentation_share(self._criterion, masks, geometry, part, generator)
            losses |= {f"segmentation/{name}": value for name, value in parts.items() if name != "total"}
            losses["segmentation"] = parts["total"]
            terms.append(parts["total"])
        else:
            geometry = model.backbone(batch.views)
        if self.has_geometry:
            # Poses are multiplied here: in 8 bits a camera 3 m away would be centimetres off.
            with torch.autocast(batch.views.images.device.type, enabled=False):
                parts = self._geometry_loss(geometry, batch.geometry)
            if part is not None:
                counted = self.counted(batch.geometry.depth)
                parts = self._terms.share(parts, counted, geometry.view_index, part.totals)
            losses |= {f"geometry/{name}": value for name, value in parts.items() if name != "total"}
            losses["geometry"] = parts["total"]
            weight = self._geometry_weight if self.has_segmentation else 1.0
            terms.append(weight * parts["total"])
        losses["total"] = torch.stack(terms).sum()
        return losses

    def counted(self, depth: Float[Tensor, "b v h w"]) -> Bool[Tensor, "b v h w"]:
        """The pixels that the geometry loss averages over."""
        return depth.isfinite() & ((depth != 0) if self._terms.counts_sky else (depth > 0))

    def _segmentation_share(
        self,
        criterion: PanopticCriterion,
        masks: MaskOutput,
        geometry: BackboneOutput,
        part: Slice,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        points = part.points(generator, masks.mask_features.device)
        layers = criterion.layer_losses(masks, part.batch.panoptic, geometry.view_index, points)
        scenes, queries = masks.class_logits[0].shape[:2]
        return segmentation_share(layers, criterion.config, scenes, queries, part.totals)


class GeometryTerms:
    """How a geometry loss is put together from its terms, and over what each of them is a mean.

    weights: of the differentiable terms in the total; empty where the total is itself a mean over pixels.
    per_scene, per_scene_with_depth: terms that are means over these; all others are means over pixels.
    counts_sky: whether pixels of negative depth (sky) count.
    """

    def __init__(
        self,
        weights: dict[str, float] | None = None,
        per_scene: tuple[str, ...] = (),
        per_scene_with_depth: tuple[str, ...] = (),
        counts_sky: bool = False,
    ) -> None:
        self.weights = weights or {}
        self.per_scene, self.per_scene_with_depth, self.counts_sky = per_scene, per_scene_with_depth, counts_sky

    def share(
        self, parts: dict[str, Tensor], counted: Bool[Tensor, "b v h w"], view_index: Tensor, totals: StepTotals
    ) -> dict[str, Tensor]:
        """A slice's parts as shares of the whole step's."""
        own_pixels = counted[:, view_index].sum().clamp(min=1)
        by_pixels = own_pixels / totals.pixels[view_index.cpu()].sum().clamp(min=1).to(own_pixels.device)
        by_scenes = len(counted) / totals.scenes
        with_depth = counted.flatten(1).any(1).sum().clamp(min=1) / max(totals.scenes_with_depth, 1.0)
        factors = dict.fromkeys(self.per_scene, by_scenes) | dict.fromkeys(self.per_scene_with_depth, with_depth)
        shares = {
            name: value * torch.as_tensor(factors.get(name, by_pixels)).to(value) for name, value in parts.items()
        }
        if self.weights:
            terms = [weight * shares[name] for name, weight in self.weights.items() if weight and name in shares]
            shares["total"] = torch.stack(terms).sum()
        return shares


def pi3_terms(config: Pi3GeometryLossConfig) -> GeometryTerms:
    """The terms of `pi3_geometry_loss`: points and confidence over pixels, poses over scenes with depth, normals over
    scenes."""
    return GeometryTerms(
        weights={
            "points": 1.0,
            "translation": config.camera * TRANSLATION_WEIGHT,
            "rotation": config.camera,
            "normals": config.normals,
            "world_points": config.world_points,
            "confidence": config.confidence,
        },
        per_scene=("normals",),
        per_scene_with_depth=("translation", "rotation"),
    )


def segmentation_share(
    losses: LayerLosses, config: PanopticLossConfig, scenes: int, queries: int, totals: StepTotals
) -> dict[str, Tensor]:
    """`PanopticCriterion`'s values of a slice as shares of the whole step's.

    Masks are sums over matched pairs by the number of segments; softmax classes are means over queries, of which those
    without a segment weigh `no_object_weight`.
    """
    matched = (losses.query[-1] >= 0).sum().to(losses.bce)
    # What the criterion divided by: the mean over processes, so that equal slices average.
    divisor = mean_over_processes(losses.num_segments).clamp_min(1.0)
    by_segments = divisor / max(totals.segments, 1.0)
    by_queries = by_segments
    if config.class_mode == "softmax":
        empty = config.no_object_weight
        own = (matched + empty * (scenes * queries - matched)).clamp_min(1e-6)
        whole = totals.matched + empty * (totals.scenes * queries - totals.matched)
        by_queries = own / max(whole, 1e-6)
    bce, dice = losses.bce * by_segments, losses.dice * by_segments
    class_loss = losses.class_loss * by_queries
    total = (config.class_weight * class_loss + config.bce_weight * bce + config.dice_weight * dice).sum()
    return {
        "total": total,
        "class": class_loss.sum(),
        "dice": dice.sum(),
        "bce": bce.sum(),
        "segments": losses.num_segments,
        "matched": matched,
        "unmatched_targets": losses.num_segments - matched,
    }
