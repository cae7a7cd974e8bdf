"""MUSt3R's geometry loss: confidence-weighted regression of global and local pointmaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pano3d.types import BackboneOutput, ConfigError, GeometryTarget


@dataclass(frozen=True)
class Must3rLossConfig:
    """How predicted and true pointmaps are compared.

    normalisation: `metric` divides both by the true scale, so that metres are learnt (for metric samples); `relative`
        divides each by its own mean distance from the origin.
    log_space: which pointmaps are compared as direction times log1p(distance).
    alpha: reward for confidence; larger keeps confidence up where errors are large.
    sky_distance: error charged for sky pixels (negative depth); 0 ignores them.
    """

    normalisation: Literal["metric", "relative"] = "metric"
    log_space: Literal["both", "world", "none"] = "both"
    alpha: float = 0.2
    sky_distance: float = 2.0

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.sky_distance < 0:
            raise ConfigError(
                f"configuring the MUSt3R loss: alpha and sky_distance must not be negative, got {self.alpha} and "
                f"{self.sky_distance}"
            )


@dataclass(frozen=True)
class PointmapPrediction:
    """Activated pointmaps; `points_world` in the reference camera's frame."""

    points_world: Float[Tensor, "b v h w 3"]
    points_camera: Float[Tensor, "b v h w 3"]
    confidence: Float[Tensor, "b v h w"]


@dataclass(frozen=True)
class PointmapTruth:
    """True points where `valid`; elsewhere anything, NaN included.

    points_world: in the reference camera's frame. points_camera: in each view's own.
    sky: nothing measurable there, but known to be far. is_metric: (B,) whether the truth is in metres.
    """

    points_world: Float[Tensor, "b v h w 3"]
    points_camera: Float[Tensor, "b v h w 3"]
    valid: Bool[Tensor, "b v h w"]
    sky: Bool[Tensor, "b v h w"]
    is_metric: Bool[Tensor, " b"]


def must3r_geometry_loss(
    output: BackboneOutput, target: GeometryTarget, config: Must3rLossConfig, reference: int
) -> dict[str, Tensor]:
    """Loss of every pass over every view.

    Args:
        output: predictions; `view_index` names the image behind each entry.
        target: sensor depth, 0 where missing, negative for sky; metric.
        config: how to compare.
        reference: view whose camera frame is the world of `output`.

    Returns:
        "total" (differentiable; can be negative, since confidence is rewarded) and detached parts for logs:
        "world" and "camera" (weighted terms), "world_distance" and "camera_distance" (plain errors after
        normalisation and log), "confidence" (mean). All zero when no pixel is valid.
    """
    prediction = PointmapPrediction(output.points_world, output.points_camera, output.confidence)
    return confident_regression(prediction, truth_from_depth(target, reference, output.view_index), config)


def truth_from_depth(target: GeometryTarget, reference: int, view_index: Tensor) -> PointmapTruth:
    """Pointmaps of `target`'s views at `view_index`, worlds being the camera frame of view `reference`."""
    depth = target.depth[:, view_index]
    height, width = depth.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=depth.device, dtype=depth.dtype),
        torch.arange(width, device=depth.device, dtype=depth.dtype),
        indexing="ij",
    )
    pixels = torch.stack((columns, rows, torch.ones_like(rows)), dim=-1)
    camera_from_pixel = torch.linalg.inv(target.intrinsics[:, view_index])
    rays = torch.einsum("bvij,hwj->bvhwi", camera_from_pixel, pixels)
    points_camera = rays * depth[..., None]
    # In float64: scan coordinates may be far from the origin.
    poses = target.scan_from_camera.double()
    reference_from_camera = (torch.linalg.inv(poses[:, reference])[:, None] @ poses[:, view_index]).to(depth.dtype)
    return PointmapTruth(
        points_world=_move(reference_from_camera, points_camera),
        points_camera=points_camera,
        valid=depth > 0,
        sky=depth < 0,
        is_metric=torch.ones(depth.shape[0], dtype=torch.bool, device=depth.device),
    )


def truth_from_points(
    points_scan: Float[Tensor, "b v h w 3"],
    scan_from_camera: Float[Tensor, "b v 4 4"],
    reference: int,
    valid: Bool[Tensor, "b v h w"],
    sky: Bool[Tensor, "b v h w"],
    is_metric: Bool[Tensor, " b"],
) -> PointmapTruth:
    """Truth from points in the scan frame."""
    camera_from_scan = torch.linalg.inv(scan_from_camera)
    reference_from_scan = camera_from_scan[:, reference, None]
    return PointmapTruth(
        points_world=_move(reference_from_scan, points_scan),
        points_camera=_move(camera_from_scan, points_scan),
        valid=valid,
        sky=sky,
        is_metric=is_metric,
    )


def confident_regression(
    prediction: PointmapPrediction, truth: PointmapTruth, config: Must3rLossConfig
) -> dict[str, Tensor]:
    """mean(distance * confidence - alpha log confidence) over valid and sky pixels, for both pointmaps.

    Source: MUSt3R's training loss, with the normalisation of DUSt3R (mean distance from the origin).
    """
    valid = truth.valid & truth.points_world.isfinite().all(-1) & truth.points_camera.isfinite().all(-1)
    true_world = torch.where(valid[..., None], truth.points_world, 0.0)
    true_camera = torch.where(valid[..., None], truth.points_camera, 0.0)
    true_scale = _mean_distance(true_world, valid)
    scale = _mean_distance(prediction.points_world, valid)
    if config.normalisation == "metric":
        scale = torch.where(truth.is_metric, true_scale, scale)
    scale, true_scale = (s[:, None, None, None, None] for s in (scale, true_scale))
    pairs = {
        "world": (prediction.points_world / scale, true_world / true_scale),
        "camera": (prediction.points_camera / scale, true_camera / true_scale),
    }
    sky = truth.sky & ~valid if config.sky_distance > 0 else torch.zeros_like(valid)
    counted = valid | sky
    reward = config.alpha * prediction.confidence.log()
    parts = {}
    for name, (predicted, true) in pairs.items():
        if config.log_space == "both" or config.log_space == name:
            predicted, true = _log_distance(predicted), _log_distance(true)
        distance = torch.where(sky, config.sky_distance, _norm(predicted - true))
        parts[name] = _mean(distance * prediction.confidence - reward, counted)
        parts[f"{name}_distance"] = _mean(distance.detach(), counted)
    parts["confidence"] = _mean(prediction.confidence.detach(), counted)
    total = parts["world"] + parts["camera"]
    return {"total": total} | {name: value.detach() for name, value in parts.items()}


def _move(target_from_source: Tensor, points: Tensor) -> Tensor:
    """Apply (B V 4 4) transforms (or (B 1 4 4), shared by all views) to (B V H W 3) points."""
    rotation, translation = target_from_source[..., :3, :3], target_from_source[..., :3, 3]
    return points @ rotation.transpose(-1, -2)[:, :, None] + translation[:, :, None, None]


def _norm(points: Tensor) -> Tensor:
    """Length of each (.. 3) vector; its gradient at the zero vector is zero."""
    x, y, z = points.unbind(-1)
    return (x * x + y * y + z * z).clamp(min=1e-24).sqrt()


def _mean_distance(points: Tensor, valid: Tensor) -> Tensor:
    """Mean distance from the origin over all valid pixels of a scene, at least 1e-8: (B,)."""
    distance = torch.where(valid, _norm(points), 0.0)
    return (distance.sum(dim=(1, 2, 3)) / (valid.sum(dim=(1, 2, 3)) + 1e-8)).clamp(min=1e-8)


def _log_distance(points: Tensor) -> Tensor:
    norm = _norm(points)
    return points * (norm.log1p() / norm.clamp(min=1e-8))[..., None]


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted pixels; zero, with a zero gradient, over none."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)
