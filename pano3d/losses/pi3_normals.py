"""The normal term of Pi3's loss: angles between predicted and true surface at the corners of 2x2 pixel squares."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pano3d.geometry.edges import depth_edges

EDGE_RELATIVE = 0.03
BETA, SMALLEST, LARGEST = math.radians(3), math.radians(1), math.radians(90)


def normal_loss(
    points: Float[Tensor, "b v h w 3"],
    truth: Float[Tensor, "b v h w 3"],
    valid: Bool[Tensor, "b v h w"],
    counts: Bool[Tensor, " b"],
) -> Tensor:
    """Mean over all squares of the robust corner angles of the scenes that count, over four times the longer side.

    A corner counts when its three pixels are valid and not on a depth edge of the truth.
    """
    height, width = valid.shape[-2:]
    if height < 2 or width < 2:
        return points.new_zeros(())
    usable = valid & ~depth_edges(truth[..., 2], relative=EDGE_RELATIVE) & counts[:, None, None, None]
    angles, corner_counts = _corner_angles(points, truth, usable)
    robust = torch.where(angles < BETA, angles**2 / (2 * BETA), angles - BETA / 2)
    squares = counts.sum() * valid.shape[1] * (height - 1) * (width - 1)
    return torch.where(corner_counts, robust, 0.0).sum() / (squares.clamp(min=1) * 4 * max(height, width))


def _corner_angles(
    points: Tensor, truth: Tensor, usable: Tensor
) -> tuple[Float[Tensor, "four b v h1 w1"], Bool[Tensor, "four b v h1 w1"]]:
    """Angle between the two normals at each corner of every square, in [1, 90] degrees, and which corners count."""
    predicted, expected = _corner_normals(points), _corner_normals(truth)
    sine = torch.linalg.cross(predicted, expected).norm(dim=-1)
    angles = torch.atan2(sine + 1e-12, (predicted * expected).sum(-1)).clamp(SMALLEST, LARGEST)
    # Corners in the order of _corner_normals; each misses the pixel opposite to it.
    top_left, top_right, bottom_right, bottom_left = _square(usable, channels=False)
    corner_counts = torch.stack(
        (
            bottom_left & top_left & top_right,
            top_left & top_right & bottom_right,
            top_right & bottom_right & bottom_left,
            bottom_right & bottom_left & top_left,
        )
    )
    return angles, corner_counts


def _corner_normals(points: Tensor) -> Float[Tensor, "four b v h1 w1 3"]:
    """Cross product of the two edges that meet at each corner, all on the same side of the surface."""
    top_left, top_right, bottom_right, bottom_left = _square(points, channels=True)
    top, right = top_right - top_left, bottom_right - top_right
    bottom, left = bottom_left - bottom_right, top_left - bottom_left
    return torch.stack(
        (
            torch.linalg.cross(left, top),
            torch.linalg.cross(top, right),
            torch.linalg.cross(right, bottom),
            torch.linalg.cross(bottom, left),
        )
    )


def _square(grid: Tensor, channels: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four pixels of every 2x2 square, clockwise from the top left."""
    grid = grid if channels else grid[..., None]
    near, far = slice(None, -1), slice(1, None)
    corners = (grid[..., near, near, :], grid[..., near, far, :], grid[..., far, far, :], grid[..., far, near, :])
    return corners if channels else tuple(corner[..., 0] for corner in corners)  # type: ignore[return-value]
