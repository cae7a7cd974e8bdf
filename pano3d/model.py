"""Pano3D: a reconstruction backbone, and queries that each own one object over all views."""

from __future__ import annotations

from typing import Literal

from torch import nn

from pano3d.backbones.base import Backbone
from pano3d.panoptic.fusion import FeatureFusion
from pano3d.panoptic.mask_decoder import MaskDecoder
from pano3d.types import BackboneOutput, MaskOutput, Views

Part = Literal["encoder", "decoder", "geometry_head", "panoptic"]


class Pano3D(nn.Module):
    """The paper's figure: encode views, decode across views, fuse both features, let the queries read them."""

    def __init__(self, backbone: Backbone, fusion: FeatureFusion, mask_decoder: MaskDecoder):
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion
        self.mask_decoder = mask_decoder

    def forward(self, views: Views) -> tuple[BackboneOutput, MaskOutput]:
        """Geometry of every view and the masks of every query.

        Returns:
            BackboneOutput and MaskOutput over the same V axis (see `BackboneOutput.view_index`).
        """
        geometry = self.backbone(views)
        tokens, mask_features = self.fusion(geometry)
        return geometry, self.mask_decoder(tokens, geometry.token_grid, mask_features)

    def parts(self) -> dict[Part, list[nn.Parameter]]:
        """Every parameter exactly once, by part of the method."""
        backbone = self.backbone.parts()
        return {
            "encoder": backbone["encoder"],
            "decoder": backbone["decoder"],
            "geometry_head": backbone["geometry_head"],
            "panoptic": [*self.fusion.parameters(), *self.mask_decoder.parameters()],
        }
