"""Pi3's heads: a small decoder per task, a dense read-out for points and confidence, and the camera."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pano3d.backbones.dinov2_block import Block
from pano3d.backbones.linear import Linear
from pano3d.backbones.rope import RopeTable
from pano3d.geometry.rotations import closest_rotation


class HeadDecoder(nn.Module):
    """Blocks within a view that turn decoder tokens into the features of one task."""

    def __init__(
        self, input_width: int, width: int, depth: int, num_heads: int, mlp_ratio: float, output_width: int
    ) -> None:
        super().__init__()
        self.projects = Linear(input_width, width)
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio, layer_scale=None) for _ in range(depth))
        self.linear_out = Linear(width, output_width)

    def forward(self, tokens: Float[Tensor, "n t c"], table: RopeTable) -> Float[Tensor, "n t d"]:
        tokens = self.projects(tokens)
        for block in self.blocks:
            tokens = block(tokens, table)
        return self.linear_out(tokens)


class DenseHead(nn.Module):
    """A linear layer per patch token that holds all the patch's pixels; float32 also under autocast."""

    def __init__(self, width: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = Linear(width, channels * patch_size**2)

    def forward(self, tokens: Float[Tensor, "n t c"], grid: tuple[int, int]) -> Float[Tensor, "n h w k"]:
        with torch.autocast(tokens.device.type, enabled=False):
            pixels = self.proj(_at_least_float32(tokens))
            return rearrange(
                pixels,
                "n (h w) (k p q) -> n (h p) (w q) k",
                h=grid[0],
                p=self.patch_size,
                q=self.patch_size,
            )


class ResidualUnit(nn.Module):
    """Three linear layers with ReLU, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv1 = Linear(width, width)
        self.res_conv2 = Linear(width, width)
        self.res_conv3 = Linear(width, width)

    def forward(self, features: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
        return features + F.relu(self.res_conv3(F.relu(self.res_conv2(F.relu(self.res_conv1(features))))))


class CameraHead(nn.Module):
    """Pose of a view from the mean of its patch features; float32 also under autocast."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv = nn.ModuleList((ResidualUnit(width), ResidualUnit(width)))
        self.more_mlps = nn.Sequential(Linear(width, width), nn.ReLU(), Linear(width, width), nn.ReLU())
        self.fc_t = Linear(width, 3)
        self.fc_rot = Linear(width, 9)

    def forward(self, features: Float[Tensor, "n t c"]) -> Float[Tensor, "n 4 4"]:
        """world_from_camera of each view, in the world and the scale that the network chose."""
        with torch.autocast(features.device.type, enabled=False):
            features = _at_least_float32(features)
            for unit in self.res_conv:
                features = unit(features)
            feature = self.more_mlps(features.mean(dim=1))
            translation, rotation = self.fc_t(feature), rotation_from_rows(self.fc_rot(feature))
            last = torch.eye(4, dtype=translation.dtype, device=translation.device)[3:].expand(len(feature), 1, 4)
            return torch.cat((torch.cat((rotation, translation[..., None]), dim=-1), last), dim=-2)


def rotation_from_rows(raw: Float[Tensor, "*n 9"]) -> Float[Tensor, "*n 3 3"]:
    """Rotation closest to the matrix whose rows are the three triples of `raw`, each scaled to unit length."""
    rows = F.normalize(raw.unflatten(-1, (3, 3)), dim=-1, eps=1e-12)
    return closest_rotation(rows)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
