"""The pinhole camera that best explains a dense point map in its own camera frame. Pixel centres are integers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fit_pinhole(points_camera: Float[Tensor, "*b h w 3"], *, centred: bool = False) -> Float[Tensor, "*b 3 3"]:
    """Intrinsics by least squares, u = focal * x / z + centre, axis by axis over all pixels.

    Pixels that are not finite or of no depth do not count; those behind the camera count as if they were before it. A
    view without two distinct rays per axis gives a focal of 0, which callers can test for; its principal point is the
    image centre.

    Args:
        points_camera: OpenCV axes; the scale does not matter.
        centred: fix the principal point at the image centre ((W-1)/2, (H-1)/2) and fit the focal lengths only.

    Returns:
        intrinsics in pixels, without skew.
    """
    height, width = points_camera.shape[-3:-1]
    points = points_camera.double()
    depth = points[..., 2].abs()
    usable = points.isfinite().all(-1) & (depth > 0)
    rows = torch.arange(height, dtype=torch.float64, device=points.device)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.float64, device=points.device)[None].expand(height, width)
    intrinsics = points.new_zeros(*points.shape[:-3], 3, 3)
    for axis, (pixel, size) in enumerate(((columns, width), (rows, height))):
        ray = torch.where(usable, points[..., axis] / torch.where(usable, depth, 1.0), 0.0)
        focal, centre = _fit_axis(ray, pixel, usable, (size - 1) / 2, centred)
        intrinsics[..., axis, axis], intrinsics[..., axis, 2] = focal, centre
    intrinsics[..., 2, 2] = 1.0
    return intrinsics.to(points_camera.dtype)


def _fit_axis(ray: Tensor, pixel: Tensor, usable: Tensor, middle: float, centred: bool) -> tuple[Tensor, Tensor]:
    """Focal length and centre (*B) of pixel = focal * ray + centre over the usable pixels."""
    weight = usable.to(ray.dtype)
    count = weight.sum((-1, -2)).clamp(min=1.0)
    if centred:
        ray_mean = torch.zeros_like(count)
        pixel_mean = torch.full_like(count, middle)
    else:
        ray_mean = (weight * ray).sum((-1, -2)) / count
        pixel_mean = (weight * pixel).sum((-1, -2)) / count
    ray_offset, pixel_offset = ray - ray_mean[..., None, None], pixel - pixel_mean[..., None, None]
    variance = (weight * ray_offset**2).sum((-1, -2))
    is_determined = variance > 1e-12 * count
    focal = (weight * ray_offset * pixel_offset).sum((-1, -2)) / torch.where(is_determined, variance, 1.0)
    focal = torch.where(is_determined, focal, 0.0)
    return focal, torch.where(is_determined, pixel_mean - focal * ray_mean, middle)
