"""Where a depth map or a dense point map breaks: pixels that should not be trusted or drawn."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def depth_edges(
    depth: Float[Tensor, "*b h w"],
    valid: Bool[Tensor, "*b h w"] | None = None,
    *,
    relative: float | None = None,
    absolute: float | None = None,
) -> Bool[Tensor, "*b h w"]:
    """Pixels whose 3x3 neighbourhood spans more depth than `relative` of their own, or than `absolute`.

    Args:
        depth: along the optical axis.
        valid: pixels that count as neighbours; all by default.
        relative, absolute: thresholds; one that is None does not apply.
    """
    if valid is None:
        high, low = depth, depth
    else:
        high, low = depth.masked_fill(~valid, -torch.inf), depth.masked_fill(~valid, torch.inf)
    spread = _maximum_3x3(high) + _maximum_3x3(-low)
    edges = torch.zeros_like(depth, dtype=torch.bool)
    if relative is not None:
        edges = edges | (spread / depth > relative)
    if absolute is not None:
        edges = edges | (spread > absolute)
    return edges


def point_normals(
    points: Float[Tensor, "*b h w 3"], valid: Bool[Tensor, "*b h w"]
) -> tuple[Float[Tensor, "*b h w 3"], Bool[Tensor, "*b h w"]]:
    """Unit normals of a dense point map from the four triangles around each pixel, and where there is one.

    Frame and handedness are those of `points`; a normal needs the pixel and two perpendicular neighbours.
    """
    around = F.pad(points, (0, 0, 1, 1, 1, 1))
    is_valid = F.pad(valid, (1, 1, 1, 1))
    height, width = valid.shape[-2:]

    def neighbour(row: int, column: int) -> tuple[Tensor, Tensor]:
        rows, columns = slice(1 + row, 1 + row + height), slice(1 + column, 1 + column + width)
        return around[..., rows, columns, :] - points, is_valid[..., rows, columns] & valid

    ring = [neighbour(-1, 0), neighbour(0, -1), neighbour(1, 0), neighbour(0, 1)]  # up, left, down, right
    total = torch.zeros_like(points)
    has_normal = torch.zeros_like(valid)
    for (first, first_valid), (second, second_valid) in zip(ring, [*ring[1:], ring[0]]):
        both = first_valid & second_valid
        total = total + F.normalize(torch.linalg.cross(first, second), dim=-1) * both[..., None]
        has_normal = has_normal | both
    return F.normalize(total, dim=-1) * has_normal[..., None], has_normal


def normal_edges(
    normals: Float[Tensor, "*b h w 3"], has_normal: Bool[Tensor, "*b h w"], angle: float
) -> Bool[Tensor, "*b h w"]:
    """Pixels near which two neighbouring normals differ by more than `angle` radians.

    A pixel without a normal counts as perpendicular to its neighbours, so the rim of every hole is an edge.
    """
    batch = normals.shape[:-3]
    height, width = normals.shape[-3:-1]
    flat = normals.reshape(-1, height, width, 3)
    around = F.pad(flat.movedim(-1, 1), (1, 1, 1, 1), mode="replicate").movedim(1, -1)
    valid = F.pad(has_normal.reshape(-1, 1, height, width).to(flat.dtype), (1, 1, 1, 1), mode="replicate")[:, 0] > 0
    largest = torch.zeros_like(flat[..., 0])
    for row in range(3):
        for column in range(3):
            rows, columns = slice(row, row + height), slice(column, column + width)
            cosine = (flat * around[:, rows, columns]).sum(-1).clamp(-1, 1)
            difference = torch.where(valid[:, rows, columns], cosine.acos(), 0.0)
            largest = torch.maximum(largest, difference)
    return (_maximum_3x3(largest) > min(angle, math.pi)).reshape(*batch, height, width) & has_normal


def _maximum_3x3(values: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    """Largest value of each 3x3 neighbourhood, clipped at the border."""
    height, width = values.shape[-2:]
    return F.max_pool2d(values.reshape(-1, 1, height, width), 3, stride=1, padding=1).reshape(values.shape)
