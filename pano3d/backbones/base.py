"""The one interface of the reconstruction backbones: `Views` in, `BackboneOutput` out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import nn

from pano3d.types import BackboneOutput, ConfidenceKind, Views

Part = Literal["encoder", "decoder", "geometry_head"]


class Backbone(nn.Module, ABC):
    """A multi-view reconstruction network.

    patch_size: images must divide by it; the token grid is (H / patch_size, W / patch_size).
    encoder_width, decoder_width: channels of `encoder_tokens` and `decoder_tokens`.
    confidence_kind: scale of `BackboneOutput.confidence`.
    """

    patch_size: int
    encoder_width: int
    decoder_width: int
    confidence_kind: ConfidenceKind

    @abstractmethod
    def forward(self, views: Views) -> BackboneOutput:
        """Reconstruct. In `.train()` mode a backbone may follow its training schedule and return an image twice
        (`BackboneOutput.view_index`); in `.eval()` mode every image comes back once, in the caller's order."""

    @abstractmethod
    def parts(self) -> dict[Part, list[nn.Parameter]]:
        """Every parameter exactly once, by part: what training freezes and gives learning rates to."""
