"""What training minimises: geometry, segmentation, or their weighted sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pano3d.losses.panoptic import PanopticCriterion
from pano3d.model import Pano3D
from pano3d.types import BackboneOutput, Batch, ConfigError, GeometryTarget

GeometryLoss = Callable[[BackboneOutput, GeometryTarget], dict[str, Tensor]]
Mode = Literal["geometry_init", "joint", "frozen", "semantic_only", "geometry_only"]


@dataclass(frozen=True)
class ObjectiveConfig:
    """geometry_weight: weight of the geometry loss against the segmentation loss (the paper's 10)."""

    geometry_weight: float

    def __post_init__(self) -> None:
        if not self.geometry_weight >= 0:
            raise ConfigError(f"objective.geometry_weight is {self.geometry_weight}; expected a number >= 0")


class Objective:
    """The loss of one batch and its parts.

    Modes: `geometry_init` and `geometry_only` train geometry alone; `frozen` and `semantic_only` segmentation
    alone (which parts move is the optimizer's business); `joint` is geometry_weight * geometry + segmentation.
    """

    def __init__(self, mode: Mode, geometry_loss: GeometryLoss, criterion: PanopticCriterion, config: ObjectiveConfig):
        self._mode, self._geometry_loss, self._criterion, self._config = mode, geometry_loss, criterion, config

    @property
    def has_geometry(self) -> bool:
        return self._mode in ("geometry_init", "geometry_only", "joint")

    @property
    def has_segmentation(self) -> bool:
        return self._mode in ("frozen", "semantic_only", "joint")

    def __call__(self, model: Pano3D, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars by name: "total", "geometry", "segmentation" (those that apply) and their parts."""
        losses: dict[str, Tensor] = {}
        terms: list[Tensor] = []
        if self.has_segmentation:
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
            weight = self._config.geometry_weight if self.has_segmentation else 1.0
            terms.append(weight * parts["total"])
        losses["total"] = torch.stack(terms).sum()
        return losses
