"""Pinhole projection between pixels, camera points and frames. Pixel centres are integers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def transform_points(target_from_source: Float[Tensor, "*b 4 4"], points: Float[Tensor, "*b h w 3"]) -> Tensor:
    """Carry points (*B H W 3) from `source` to `target`; similarities scale them too."""
    rotation, translation = target_from_source[..., :3, :3], target_from_source[..., :3, 3]
    return torch.einsum("...ij,...hwj->...hwi", rotation, points) + translation[..., None, None, :]


def invert_rigid(target_from_source: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Inverse of a rotation with translation, without a general matrix inverse."""
    rotation, translation = target_from_source[..., :3, :3], target_from_source[..., :3, 3:]
    inverse = torch.zeros_like(target_from_source)
    inverse[..., :3, :3] = rotation.transpose(-1, -2)
    inverse[..., :3, 3:] = -rotation.transpose(-1, -2) @ translation
    inverse[..., 3, 3] = 1
    return inverse


def pixel_rays(intrinsics: Float[Tensor, "*b 3 3"], height: int, width: int) -> Float[Tensor, "*b h w 3"]:
    """Direction of each pixel in `camera`, last coordinate 1, so that depth times ray is the point."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=intrinsics.dtype, device=intrinsics.device),
        torch.arange(width, dtype=intrinsics.dtype, device=intrinsics.device),
        indexing="ij",
    )
    focal_x, focal_y = intrinsics[..., 0, 0, None, None], intrinsics[..., 1, 1, None, None]
    center_x, center_y = intrinsics[..., 0, 2, None, None], intrinsics[..., 1, 2, None, None]
    skew = intrinsics[..., 0, 1, None, None]
    ray_y = (y - center_y) / focal_y
    ray_x = (x - center_x - skew * ray_y) / focal_x
    return torch.stack([ray_x, ray_y.expand_as(ray_x), torch.ones_like(ray_x)], dim=-1)


def unproject_depth(depth: Float[Tensor, "*b h w"], intrinsics: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b h w 3"]:
    """Points in `camera`, metres, of a depth image along the optical axis; missing depth (0) gives the origin."""
    height, width = depth.shape[-2:]
    return pixel_rays(intrinsics, height, width) * depth[..., None]
