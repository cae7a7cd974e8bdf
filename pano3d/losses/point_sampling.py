"""Values of maps and of segment images at random points, and where those points lie.

Points are (x, y) in [0, 1] of the image; pixel centre i lies at (i + 0.5) / size; sampling is bilinear with zeros
outside, as `torch.nn.functional.grid_sample` does with `align_corners=False`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pano3d.types import VOID


@runtime_checkable
class PointSource(Protocol):
    """Where random points come from; tests and recorded cases bring their own."""

    def matching(self, layers: int, shape: tuple[int, int, int]) -> Float[Tensor, "l b v p 2"]:
        """Points per view for (B, V, P), shared by all masks; the first axis is 1 (all layers) or `layers`."""
        ...

    def candidates(
        self, layer: int, shape: tuple[int, int, int, int], query: Int[Tensor, "b m"]
    ) -> Float[Tensor, "b m v p 2"]:
        """Points of each segment's own in each view, for (B, M, V, P); `query` says who answers for the segment."""
        ...

    def tail(
        self, layer: int, shape: tuple[int, int, int, int], query: Int[Tensor, "b m"]
    ) -> Float[Tensor, "b m v p 2"]:
        """The uniform points that follow the selected ones, for (B, M, V, P)."""
        ...


class UniformPoints:
    """Uniform points from one generator; one draw of matching points serves all layers."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator = generator
        self.device = device

    def matching(self, layers: int, shape: tuple[int, int, int]) -> Float[Tensor, "1 b v p 2"]:
        return draw_points((1, *shape), self.generator, self.device)

    def candidates(self, layer: int, shape: tuple[int, int, int, int], query: Tensor) -> Float[Tensor, "b m v p 2"]:
        return draw_points(shape, self.generator, self.device)

    def tail(self, layer: int, shape: tuple[int, int, int, int], query: Tensor) -> Float[Tensor, "b m v p 2"]:
        return draw_points(shape, self.generator, self.device)


def draw_points(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Float[Tensor, "*shape 2"]:
    """Uniform points on `device`; a GPU is not waited for, whatever it has begun."""
    points = torch.rand(*shape, 2, generator=generator, device=generator.device)
    if device.type == "cuda" and not points.is_cuda:
        points = points.pin_memory()
    return points.to(device, non_blocking=True)


def sample_at_points(maps: Float[Tensor, "n c h w"], points: Float[Tensor, "n p 2"]) -> Float[Tensor, "n c p"]:
    """Bilinear values of `maps` at `points`."""
    grid = (2 * points - 1)[:, :, None]
    return functional.grid_sample(maps, grid, mode="bilinear", align_corners=False)[..., 0]


def select_uncertain(
    logits: Float[Tensor, "n p"], candidates: Float[Tensor, "n p 2"], keep: int
) -> Float[Tensor, "n s 2"]:
    """The `keep` candidates with the smallest absolute logit."""
    order = (-logits.abs()).topk(keep, dim=-1).indices
    return candidates.gather(1, order[..., None].expand(-1, -1, 2))


def segment_corners(
    segment_index: Int[Tensor, "n h w"], points: Float[Tensor, "n p 2"]
) -> tuple[Int[Tensor, "n p 4"], Float[Tensor, "n p 4"]]:
    """Segments of the four pixels around each point and their bilinear weights (0 outside the image)."""
    h, w = segment_index.shape[1:]
    position = torch.stack((points[..., 0] * w, points[..., 1] * h), dim=-1) - 0.5
    low = position.floor()
    fraction = position - low
    indices, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            x = low[..., 0].long() + dx
            y = low[..., 1].long() + dy
            inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
            flat = y.clamp(0, h - 1) * w + x.clamp(0, w - 1)
            indices.append(segment_index.flatten(1).gather(1, flat))
            weight_x = fraction[..., 0] if dx else 1 - fraction[..., 0]
            weight_y = fraction[..., 1] if dy else 1 - fraction[..., 1]
            weights.append(weight_x * weight_y * inside)
    return torch.stack(indices, dim=-1), torch.stack(weights, dim=-1)


def sample_segments(
    segment_index: Int[Tensor, "n h w"], points: Float[Tensor, "n p 2"], num_segments: int, ignore_void: bool
) -> tuple[Float[Tensor, "n m p"], Float[Tensor, "n p"]]:
    """Truth of every segment at the points, without a mask per segment.

    Returns:
        labels: bilinear value of each segment's mask; where void is ignored, as if it were not there.
        weight: labelled part of the point's neighbourhood; all ones when void counts as background.
    """
    indices, weights = segment_corners(segment_index, points)
    n, p = points.shape[:2]
    share = weights.new_zeros(n, p, num_segments + 1).scatter_add_(2, indices - VOID, weights)
    labels = share[..., 1:].transpose(1, 2)
    if not ignore_void:
        return labels, torch.ones_like(share[..., 0])
    labelled = 1 - share[..., 0] / share.sum(-1)
    return _among_labelled(labels, labelled[:, None]), labelled


def sample_own_segment(
    segment_index: Int[Tensor, "n h w"],
    points: Float[Tensor, "n p 2"],
    segment: Int[Tensor, " n"],
    ignore_void: bool,
) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n p"]]:
    """As `sample_segments`, for one segment per row at points of its own: (labels, weight)."""
    indices, weights = segment_corners(segment_index, points)
    label = (weights * (indices == segment[:, None, None])).sum(-1)
    if not ignore_void:
        return label, torch.ones_like(label)
    labelled = 1 - (weights * (indices == VOID)).sum(-1) / weights.sum(-1)
    return _among_labelled(label, labelled), labelled


def _among_labelled(share: Tensor, labelled: Tensor) -> Tensor:
    return (share / labelled.clamp_min(1e-6)).clamp_max(1.0)
