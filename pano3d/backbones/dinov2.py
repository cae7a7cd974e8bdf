"""DINOv2 with registers: the single-view encoder of Pi3."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pano3d.backbones.dinov2_block import Block
from pano3d.types import ConfigError


@dataclass(frozen=True)
class DinoV2Config:
    """Architecture of the encoder; it must match the weights.

    position_grid: side of the learned square position table in patches (518 / 14 = 37 in the released model).
    num_registers: learned tokens beside the class token; they are dropped at the end.
    layer_scale: first value of the residual factors.
    """

    width: int
    depth: int
    num_heads: int
    position_grid: int
    patch_size: int = 14
    mlp_ratio: float = 4.0
    num_registers: int = 4
    layer_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.width % self.num_heads:
            raise ConfigError(
                f"configuring DINOv2: width {self.width} must be a multiple of num_heads {self.num_heads}"
            )
        if min(self.depth, self.position_grid, self.patch_size) < 1 or self.num_registers < 0 or self.mlp_ratio <= 0:
            raise ConfigError(
                "configuring DINOv2: depth, position_grid, patch_size and mlp_ratio must be positive, "
                "num_registers 0 or more"
            )


class PatchEmbed(nn.Module):
    """One token per square patch, row by row."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n t c"]:
        return rearrange(self.proj(images), "n c h w -> n (h w) c")


class DinoV2(nn.Module):
    """Vision transformer over one image; parameter names are those of the released weights."""

    def __init__(self, config: DinoV2Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.position_grid**2, width))
        self.register_tokens = nn.Parameter(torch.empty(1, config.num_registers, width))
        self.patch_embed = PatchEmbed(config.patch_size, width)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.mlp_ratio, config.layer_scale) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self._initialise()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n t c"]:
        """Patch tokens after the final norm; class token and registers take part and are dropped.

        Args:
            images: normalised; height and width are multiples of the patch size.
        """
        grid = (images.shape[-2] // self.config.patch_size, images.shape[-1] // self.config.patch_size)
        patches = self.patch_embed(images)
        positions = self.position_table(grid)
        first = (self.cls_token + positions[:, :1]).expand(len(images), -1, -1)
        registers = self.register_tokens.expand(len(images), -1, -1)
        # The registers carry no position.
        tokens = torch.cat((first, registers, patches + positions[:, 1:]), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 1 + self.config.num_registers :])

    def position_table(self, grid: tuple[int, int]) -> Float[Tensor, "1 t c"]:
        """(1 1+h*w C) positions of class token and patches, resampled to the (h, w) grid in float32."""
        side = self.config.position_grid
        if grid == (side, side):
            return self.pos_embed
        table = self.pos_embed.float()
        square = rearrange(table[:, 1:], "n (h w) c -> n c h w", h=side)
        resampled = F.interpolate(square, size=grid, mode="bicubic", align_corners=False, antialias=True)
        resampled = rearrange(resampled, "n c h w -> n (h w) c")
        return torch.cat((table[:, :1], resampled), dim=1).to(self.pos_embed.dtype)

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.normal_(self.register_tokens, std=1e-6)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
