"""MUSt3R's linear pixel head and what its seven numbers per pixel mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pano3d.backbones.linear import Linear
from pano3d.backbones.must3r_config import Activation


@dataclass(frozen=True)
class Pointmaps:
    """Activated head output.

    points_world: in the camera frame of the reference view.
    points_camera: in each view's own camera frame.
    confidence: 1 + exp(raw), at least 1, one for both pointmaps.
    """

    points_world: Float[Tensor, "*views h w 3"]
    points_camera: Float[Tensor, "*views h w 3"]
    confidence: Float[Tensor, "*views h w"]


class LinearHead(nn.Module):
    """Tokens to pixels with one linear, in float32 also under autocast."""

    def __init__(self, width: int, patch_size: int, channels: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.channels = channels
        self.proj = Linear(width, channels * patch_size**2)

    def forward(
        self,
        tokens: Float[Tensor, "b n t c"],
        image_size: tuple[int, int],
        portrait: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n height width channels"]:
        """Raw numbers per pixel of images of `image_size` = (height, width).

        Views marked `portrait` are decoded as (width, height) and turned, so that all stack in the stored layout.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            values = self.proj(tokens.float())
        height, width = (side // self.patch_size for side in image_size)
        raw = self._unpatchify(values, height, width)
        if portrait is None:
            return raw
        turned = self._unpatchify(values, width, height).transpose(2, 3)
        return torch.where(portrait[:, :, None, None, None], turned, raw)

    def _unpatchify(self, values: Tensor, height: int, width: int) -> Tensor:
        pattern = "b n (h w) (c p q) -> b n (h p) (w q) c"
        p = self.patch_size
        return rearrange(values, pattern, h=height, w=width, c=self.channels, p=p, q=p)


def activate(raw: Float[Tensor, "*views h w 7"], activation: Activation) -> Pointmaps:
    """Points and confidence from raw head output.

    `norm_exp` keeps the direction u/|u| and gives the distance expm1(|u|); `linear` takes u as it is.
    """
    world, camera = raw[..., 0:3], raw[..., 3:6]
    if activation == "norm_exp":
        world, camera = _norm_exp(world), _norm_exp(camera)
    return Pointmaps(points_world=world, points_camera=camera, confidence=1.0 + raw[..., 6].exp())


def _norm_exp(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(-1)
    norm = (x * x + y * y + z * z).clamp(min=1e-24).sqrt()  # the gradient at the zero vector is zero
    return vector * (norm.expm1() / norm.clamp(min=1e-8))[..., None]
