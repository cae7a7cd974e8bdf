"""Pano3D: a reconstruction backbone, and queries that each own one object over all views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from pano3d.backbones.base import Backbone
from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.pi3 import Pi3, Pi3Config
from pano3d.losses.must3r_geometry import Must3rLossConfig
from pano3d.losses.pi3_geometry import Pi3GeometryLossConfig
from pano3d.panoptic.fusion import FeatureFusion, FusionConfig
from pano3d.panoptic.mask_decoder import MaskDecoder, MaskDecoderConfig
from pano3d.types import BackboneOutput, ConfigError, MaskOutput, Views

Part = Literal["encoder", "decoder", "geometry_head", "panoptic"]


@dataclass(frozen=True)
class Must3rChoice:
    """MUSt3R at one size: the network, the images it sees, and the loss its geometry learns from."""

    name: Literal["must3r"]
    image_width: int
    image_height: int
    network: Must3rConfig
    geometry_loss: Must3rLossConfig

    def build(self) -> Backbone:
        return Must3r(self.network)


@dataclass(frozen=True)
class Pi3Choice:
    """Pi3 at one size: the network, the images it sees, and the loss its geometry learns from."""

    name: Literal["pi3"]
    image_width: int
    image_height: int
    network: Pi3Config
    geometry_loss: Pi3GeometryLossConfig

    def build(self) -> Backbone:
        return Pi3(self.network)


BackboneChoice = Must3rChoice | Pi3Choice


@dataclass(frozen=True)
class HeadConfig:
    """The panoptic half. Features come in one token grid: the decoder has one level.

    text_classes: file made by `pano3d text-classes`, for a decoder with class_head=text and only then; it must hold an
        embedding of every class of the label space. Read when a network is drawn; from then on the embeddings travel
        with the weights, and the file may go.
    """

    fusion: FusionConfig
    decoder: MaskDecoderConfig
    text_classes: str | None = None

    def __post_init__(self) -> None:
        if self.decoder.levels != 1:
            raise ConfigError(
                f"head.decoder.levels: expected 1, got {self.decoder.levels}: the fusion gives one grid; leave it out"
            )
        if (self.decoder.class_head == "text") != (self.text_classes is not None):
            raise ConfigError(
                "head.text_classes: give a file of embeddings with head.decoder.class_head=text and only then; "
                "`pano3d text-classes names.txt classes.safetensors` makes one"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a network: what `model.json` keeps beside the weights."""

    backbone: BackboneChoice
    head: HeadConfig
    label_space: str


class Pano3D(nn.Module):
    """The paper's figure: encode views, decode across views, fuse both features, let the queries read them."""

    def __init__(self, backbone: Backbone, fusion: FeatureFusion, mask_decoder: MaskDecoder):
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion
        self.mask_decoder = mask_decoder

    def forward(self, views: Views) -> tuple[BackboneOutput, MaskOutput]:
        """Geometry of every view and the masks of every query, over the same V axis (`BackboneOutput.view_index`)."""
        geometry = self.backbone(views)
        tokens, mask_features = self.fusion(geometry)
        # Only where images occur twice: which do so is asked of the device, which makes a GPU wait.
        repeats = geometry.view_index if len(geometry.view_index) > views.images.shape[1] else None
        return geometry, self.mask_decoder(tokens, geometry.token_grid, mask_features, repeats)

    def parts(self) -> dict[Part, list[nn.Parameter]]:
        """Every parameter exactly once, by part of the method."""
        backbone = self.backbone.parts()
        return {
            "encoder": backbone["encoder"],
            "decoder": backbone["decoder"],
            "geometry_head": backbone["geometry_head"],
            "panoptic": [*self.fusion.parameters(), *self.mask_decoder.parameters()],
        }


def build_model(model_config: ModelConfig, num_classes: int) -> Pano3D:
    """A freshly initialised network; draws from torch's global generator.

    A text class head still waits for its embeddings (`model_files.draw_model` reads them).
    """
    backbone = model_config.backbone.build()
    fusion = FeatureFusion(model_config.head.fusion, backbone.encoder_width, backbone.decoder_width)
    return Pano3D(backbone, fusion, MaskDecoder(model_config.head.decoder, num_classes))
