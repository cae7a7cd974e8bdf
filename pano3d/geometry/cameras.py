"""Focal length and pose of each view from its two pointmaps: closed form or reweighted least squares, never NaN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class RecoveredCameras:
    """Cameras of views, with what failed.

    intrinsics: (B V 3 3) square pixels, whose centres are integers; the principal point is the image centre, ((W-1)/2,
        (H-1)/2). Where the focal failed, the median focal of the other views of the scene, or a field of view of 60
        degrees if none is left.
    world_from_camera: (B V 4 4) rigid; the identity where registration failed.
    focal_ok, pose_ok: (B V) False where the pointmaps admit no trustworthy answer.
    """

    intrinsics: Float[Tensor, "b v 3 3"]
    world_from_camera: Float[Tensor, "b v 4 4"]
    focal_ok: Bool[Tensor, "b v"]
    pose_ok: Bool[Tensor, "b v"]


def recover_cameras(
    points_world: Float[Tensor, "b v h w 3"],
    points_camera: Float[Tensor, "b v h w 3"],
    confidence: Float[Tensor, "b v h w"],
) -> RecoveredCameras:
    """Cameras of every view from its pointmaps; confidence is >= 1 and weighs with confidence - 1."""
    batch, num_views, height, width = confidence.shape
    focal, focal_ok = recover_focals(points_camera)
    fallback = focal.new_full((batch, 1), (width / 2) / torch.tensor(torch.pi / 6).tan().item())
    known = torch.where(focal_ok, focal, torch.nan).nanmedian(dim=1, keepdim=True).values
    focal = torch.where(focal_ok, focal, torch.where(known.isnan(), fallback, known))
    intrinsics = focal.new_zeros(batch, num_views, 3, 3)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = focal
    intrinsics[..., 0, 2], intrinsics[..., 1, 2] = (width - 1) / 2, (height - 1) / 2
    intrinsics[..., 2, 2] = 1.0
    world_from_camera, pose_ok = register_views(points_world, points_camera, confidence)
    return RecoveredCameras(intrinsics, world_from_camera, focal_ok, pose_ok)


def recover_focals(
    points_camera: Float[Tensor, "*views h w 3"], iterations: int = 10
) -> tuple[Float[Tensor, "*views"], Bool[Tensor, "*views"]]:
    """Focal length in pixels of each view by reweighted least squares (Weiszfeld) over all pixels.

    Minimises sum |u - f q| with u the pixel coordinates from (W/2, H/2), as the public code has it (half a pixel beside
    the centre of the image, which the focal hardly notices), and q = (x/z, y/z).

    Returns:
        focal and ok; where ok is False (no pixel constrains it, or nothing finite and positive came out) focal is 1.
    """
    height, width = points_camera.shape[-3:-1]
    rows = torch.arange(height, device=points_camera.device, dtype=points_camera.dtype) - height / 2
    columns = torch.arange(width, device=points_camera.device, dtype=points_camera.dtype) - width / 2
    u = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    # x/z and y/z; infinities and undefined directions carry no information and are set to 0.
    q = (points_camera[..., :2] / points_camera[..., 2:]).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    qu, qq = (q * u).sum(-1), (q * q).sum(-1)
    focal = qu.mean(dim=(-1, -2)) / qq.mean(dim=(-1, -2))
    for _ in range(iterations):
        residual = torch.linalg.vector_norm(u - focal[..., None, None, None] * q, dim=-1)
        weight = 1.0 / residual.clamp(min=1e-8)
        focal = (weight * qu).mean(dim=(-1, -2)) / (weight * qq).mean(dim=(-1, -2))
    is_ok = focal.isfinite() & (focal > 0)
    return torch.where(is_ok, focal, 1.0), is_ok


def register_views(
    points_world: Float[Tensor, "*views h w 3"],
    points_camera: Float[Tensor, "*views h w 3"],
    confidence: Float[Tensor, "*views h w"],
) -> tuple[Float[Tensor, "*views 4 4"], Bool[Tensor, "*views"]]:
    """world_from_camera of each view: the rigid motion that best carries its camera points onto its world points.

    Weighted Kabsch with weights confidence - 1, rotation with determinant +1, no scale. Points that are not finite do
    not count.

    Returns:
        world_from_camera, dtype of the points, and ok; where ok is False (no weight, or points on one line) it is the
        identity.
    """
    dtype = points_world.dtype
    camera = points_camera.flatten(-3, -2).double()
    world = points_world.flatten(-3, -2).double()
    weight = (confidence.flatten(-2).double() - 1.0).clamp(min=0.0)
    usable = camera.isfinite().all(-1) & world.isfinite().all(-1) & weight.isfinite()
    weight = torch.where(usable, weight, 0.0)
    camera = torch.where(usable[..., None], camera, 0.0)
    world = torch.where(usable[..., None], world, 0.0)
    total = weight.sum(-1, keepdim=True)
    weight = weight / total.clamp(min=torch.finfo(torch.float64).tiny)
    camera_mean = (weight[..., None] * camera).sum(-2, keepdim=True)
    world_mean = (weight[..., None] * world).sum(-2, keepdim=True)
    covariance = torch.einsum("...p,...pi,...pj->...ij", weight, world - world_mean, camera - camera_mean)
    left, singular, right = torch.linalg.svd(covariance)
    sign = torch.ones_like(singular)
    sign[..., 2] = torch.linalg.det(left @ right).sign()
    rotation = left @ (sign[..., None] * right)
    translation = world_mean.squeeze(-2) - (rotation @ camera_mean.transpose(-1, -2)).squeeze(-1)
    # A rotation is determined as soon as the points span a plane: the second singular value must stand out.
    is_ok = (total.squeeze(-1) > 0) & (singular[..., 1] > 1e-9 * singular[..., 0]) & (singular[..., 0] > 0)
    motion = torch.eye(4, dtype=torch.float64, device=points_world.device).repeat(*rotation.shape[:-2], 1, 1)
    motion[..., :3, :3] = torch.where(is_ok[..., None, None], rotation, motion[..., :3, :3])
    motion[..., :3, 3] = torch.where(is_ok[..., None], translation, 0.0)
    return motion.to(dtype), is_ok
