"""What training minimises: geometry, segmentation, or their weighted sum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pano3d.losses.must3r_geometry import Must3rLossConfig, must3r_geometry_loss
from pano3d.losses.panoptic import PanopticCriterion, PanopticLossConfig
from pano3d.losses.pi3_geometry import Pi3GeometryLossConfig, pi3_geometry_loss
from pano3d.model import Pano3D
from pano3d.types import BackboneOutput, Batch, ConfigError, GeometryTarget

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
    else:
        geometry_loss = partial(pi3_geometry_loss, config=geometry)
    return Objective(mode, geometry_loss, PanopticCriterion(panoptic) if panoptic else None, geometry_weight)


class Objective:
    """The loss of one batch and its parts.

    Modes: `geometry_init` and `geometry_only` train geometry alone; `frozen` and `semantic_only` segmentation
    alone (which parts move is the optimizer's business); `joint` is geometry_weight * geometry + segmentation.
    """

    def __init__(
        self, mode: Mode, geometry_loss: GeometryLoss, criterion: PanopticCriterion | None, geometry_weight: float
    ):
        self.has_geometry = mode in ("geometry_init", "geometry_only", "joint")
        self.has_segmentation = mode in ("frozen", "semantic_only", "joint")
        if self.has_segmentation and criterion is None:
            raise ConfigError(f"training in mode {mode}: the panoptic loss is not configured")
        if not geometry_weight >= 0:
            raise ConfigError(f"training: geometry_weight is {geometry_weight}; expected a number >= 0")
        self._geometry_loss, self._criterion, self._geometry_weight = geometry_loss, criterion, geometry_weight

    def __call__(self, model: Pano3D, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars by name: "total", "geometry", "segmentation" (those that apply) and their parts."""
        losses: dict[str, Tensor] = {}
        terms: list[Tensor] = []
        if self._criterion is not None and self.has_segmentation:
            geometry, masks = model(batch.views)
            parts = self._criterion(masks, batch.panoptic, geometry.view_index, generator)
            losses |= {f"segmentation/{name}": value for name, value in parts.items() if name != "total"}
            losses["segmentation"] = parts["total"]
            terms.append(parts["total"])
        else:
            geometry = model.backbone(batch.views)
        if self.has_geometry:
            parts = self._geometry_loss(geometry, batch.geometry)
            losses |= {f"geometry/{name}": value for name, value in parts.items() if name != "total"}
            losses["geometry"] = parts["total"]
            weight = self._geometry_weight if self.has_segmentation else 1.0
            terms.append(weight * parts["total"])
        losses["total"] = torch.stack(terms).sum()
        return losses
