"""MUSt3R's per-image encoder: a plain ViT with rotary positions. No view knows of another."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pano3d.backbones.attention import Mlp, SelfAttention
from pano3d.backbones.linear import linear
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.rope import RopeTable, grid_positions, rope_table


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens, computed as one matrix product."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n t c"]:
        p = self.patch_size
        patches = rearrange(images, "n c (h p) (w q) -> n (h w) (c p q)", p=p, q=p)
        return linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, tokens: Float[Tensor, "n t c"], table: RopeTable) -> Float[Tensor, "n t c"]:
        tokens = tokens + self.attn(self.norm1(tokens), table)
        return tokens + self.mlp(self.norm2(tokens))


class Must3rEncoder(nn.Module):
    """Images to tokens after the final norm. Parameter names are those of the released `encoder` state dict."""

    def __init__(self, config: Must3rConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_width
        self.patch_embed = PatchEmbed(config.patch_size, width)
        self.blocks_enc = nn.ModuleList(
            EncoderBlock(width, config.encoder_heads, config.mlp_ratio) for _ in range(config.encoder_depth)
        )
        self.norm_enc = nn.LayerNorm(width, eps=1e-6)
        initialise_linears(self)

    def forward(
        self, images: Float[Tensor, "n 3 height width"], portrait: Bool[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, "n t c"], Int[Tensor, "*n t 2"]]:
        """Encode images of one stored size.

        Args:
            images: RGB scaled to [-1, 1].
            portrait: which images are portraits stored transposed to landscape; None when images are as they look.

        Returns:
            tokens, row-major over each image as it looks, and their (row, column): (T 2), or (N T 2) with `portrait`.
        """
        device = images.device.type
        with torch.autocast(device, enabled=self.config.encoder_autocast and torch.is_autocast_enabled(device)):
            tokens = self.patch_embed(images)
            height, width = (side // self.config.patch_size for side in images.shape[-2:])
            positions = grid_positions(height, width, images.device)
            if portrait is not None:
                upright = self.patch_embed(images.transpose(-1, -2))
                tokens = torch.where(portrait[:, None, None], upright, tokens)
                turned = grid_positions(width, height, images.device)
                positions = torch.where(portrait[:, None, None], turned, positions)
            head_width = self.config.encoder_width // self.config.encoder_heads
            table = rope_table(positions, head_width, self.config.rope_base, self.config.rope_scale)
            for block in self.blocks_enc:
                tokens = run_block(block, tokens, table, recompute=self.config.recompute_blocks and self.training)
            return self.norm_enc(tokens), positions


def run_block(block: nn.Module, tokens: Tensor, *context: object, recompute: bool) -> Tensor:
    """A block, forgetting its activations until the backward pass if asked to."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, tokens, *context, use_reentrant=False)
    return block(tokens, *context)


def initialise_linears(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear; norms and convolutions keep PyTorch's defaults."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
