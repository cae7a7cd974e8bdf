"""What Pi3 is trained on: points up to one scale per scene, normals, relative poses, and its own reliability.

Prediction and truth are each brought to unit size; one further scale per scene carries prediction onto truth. Relative
poses make the choice of world frame irrelevant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from pano3d.geometry.projection import invert_rigid, transform_points, unproject_depth
from pano3d.losses.pi3_normals import normal_loss
from pano3d.losses.weighted_scale import solve_scale, spread_indices
from pano3d.types import BackboneOutput, ConfigError, GeometryTarget

TRANSLATION_WEIGHT, HUBER_DELTA = 100.0, 0.1
SCALE_POINTS = 4096


@dataclass(frozen=True)
class Pi3GeometryLossConfig:
    """Weights of the terms; the defaults are the published ones.

    normals: weight of the normal term; set 0 for depth without clean surfaces.
    world_points: weight of an L1 term on points in the frame of view 0. Not in the published recipe (0); it ties poses
        to points and keeps training from scratch out of a poor optimum.
    confidence: weight of the reliability term. It must not be 0 while points train, or confidence goes stale.
    confidence_error: a pixel is reliable when its depth-weighted error is below this.
    """

    normals: float = 1.0
    camera: float = 0.1
    world_points: float = 0.0
    confidence: float = 0.05
    confidence_error: float = 0.02

    def __post_init__(self) -> None:
        if min(self.normals, self.camera, self.world_points, self.confidence) < 0 or self.confidence_error <= 0:
            raise ConfigError("Pi3 geometry loss: weights must be 0 or more and confidence_error positive")


@dataclass(frozen=True)
class ScaledGeometry:
    """Points and poses of one side (prediction or truth) after scaling.

    points_camera: (B V H W 3). world_from_camera: (B V 4 4), translations in the same unit.
    """

    points_camera: Float[Tensor, "b v h w 3"]
    world_from_camera: Float[Tensor, "b v 4 4"]


def pi3_geometry_loss(
    output: BackboneOutput, target: GeometryTarget, config: Pi3GeometryLossConfig
) -> dict[str, Tensor]:
    """Loss of a reconstruction against what the sensor saw.

    Pixels without depth, or with depth that is not finite, do not count; a scene without any counts for nothing.

    Returns:
        Scalars: "total" (weighted) and, unweighted, "points", "normals", "translation", "rotation", "world_points" (if
        weighted), "confidence".
    """
    if output.world_from_camera is None:
        raise ConfigError("Pi3 geometry loss: the backbone gives no poses; use the loss of its own family")
    views = output.view_index
    depth = target.depth[:, views]
    valid = depth.isfinite() & (depth > 0)
    points = unproject_depth(torch.where(valid, depth, 0.0), target.intrinsics[:, views])
    truth = normalise_truth(points, target.scan_from_camera[:, views], valid)
    prediction = normalise_prediction(output.points_camera, output.world_from_camera, valid)
    has_normals = torch.ones(len(depth), dtype=torch.bool, device=depth.device)
    return geometry_terms(prediction, truth, output.confidence, valid, has_normals, None, config)


def geometry_terms(
    prediction: ScaledGeometry,
    truth: ScaledGeometry,
    conf_logits: Float[Tensor, "b v h w"],
    valid: Bool[Tensor, "b v h w"],
    has_normals: Bool[Tensor, " b"],
    sky: Bool[Tensor, "b v h w"] | None,
    config: Pi3GeometryLossConfig,
) -> dict[str, Tensor]:
    """The terms on prediction and truth of unit size.

    Args:
        has_normals: scenes whose true surfaces are clean enough for the normal term.
        sky: pixels without depth that should be called unreliable.
    """
    weight = inverse_depth_weight(truth.points_camera[..., 2], valid)
    scale = align_scale(prediction.points_camera.detach(), truth.points_camera, weight, valid)
    points = prediction.points_camera * scale[:, None, None, None, None]
    error = weight[..., None] * torch.where(valid[..., None], points - truth.points_camera, 0.0).abs()
    terms = {"points": error.sum() / (3 * valid.sum().clamp(min=1))}
    if config.normals:
        terms["normals"] = normal_loss(points, truth.points_camera, valid, has_normals)
    poses = _scale_translation(prediction.world_from_camera, scale)
    is_seen = valid.flatten(1).any(1)
    terms["translation"], terms["rotation"] = relative_pose_losses(poses, truth.world_from_camera, is_seen)
    total = terms["points"] + config.camera * (TRANSLATION_WEIGHT * terms["translation"] + terms["rotation"])
    if config.normals:
        total = total + config.normals * terms["normals"]
    if config.world_points:
        terms["world_points"] = world_points_loss(points, poses, truth, valid, weight)
        total = total + config.world_points * terms["world_points"]
    if config.confidence:
        is_reliable = error.detach().mean(-1) < config.confidence_error
        terms["confidence"] = reliability_loss(conf_logits, is_reliable, valid, sky)
        total = total + config.confidence * terms["confidence"]
    return {"total": total, **terms}


def normalise_truth(
    points_camera: Float[Tensor, "b v h w 3"],
    scan_from_camera: Float[Tensor, "b v 4 4"],
    valid: Bool[Tensor, "b v h w"],
) -> ScaledGeometry:
    """Truth in the frame of view 0, in units of its points' mean distance from there."""
    first_from_camera = invert_rigid(scan_from_camera[:, :1]) @ scan_from_camera
    size = _mean_distance(transform_points(first_from_camera, points_camera), valid)
    return ScaledGeometry(
        points_camera / size[:, None, None, None, None], _scale_translation(first_from_camera, 1 / size)
    )


def normalise_prediction(
    points_camera: Float[Tensor, "b v h w 3"],
    world_from_camera: Float[Tensor, "b v 4 4"],
    valid: Bool[Tensor, "b v h w"],
) -> ScaledGeometry:
    """Prediction in units of its points' mean distance from their own cameras; the unit is differentiated through."""
    size = _mean_distance(points_camera, valid)
    return ScaledGeometry(
        points_camera / size[:, None, None, None, None], _scale_translation(world_from_camera, 1 / size)
    )


def inverse_depth_weight(depth: Float[Tensor, "b v h w"], valid: Bool[Tensor, "b v h w"]) -> Float[Tensor, "b v h w"]:
    """1 / depth, bounded by a tenth of each view's mean depth: far points may err more. 0 where not valid."""
    depth = torch.where(valid, depth, 0.0)
    mean = depth.sum((-1, -2), keepdim=True) / valid.sum((-1, -2), keepdim=True).clamp(min=1)
    return torch.where(valid, 1 / (torch.maximum(depth, 0.1 * mean) + 1e-6), 0.0)


@torch.no_grad()
def align_scale(
    prediction: Float[Tensor, "b v h w 3"],
    truth: Float[Tensor, "b v h w 3"],
    weight: Float[Tensor, "b v h w"],
    valid: Bool[Tensor, "b v h w"],
) -> Float[Tensor, " b"]:
    """One positive scale per scene from prediction to truth, from points spread evenly over the valid pixels."""
    index = spread_indices(valid.flatten(1), SCALE_POINTS)
    samples = index[..., None].expand(-1, -1, 3)
    source = prediction.flatten(1, 3).gather(1, samples)
    target = truth.flatten(1, 3).gather(1, samples)
    weights = weight.flatten(1).gather(1, index)[..., None].expand(-1, -1, 3)
    return solve_scale(source.flatten(1), target.flatten(1), weights.flatten(1)).abs()


def relative_pose_losses(
    prediction: Float[Tensor, "b v 4 4"], truth: Float[Tensor, "b v 4 4"], is_seen: Bool[Tensor, " b"]
) -> tuple[Tensor, Tensor]:
    """Huber loss of translations and mean rotation angle (radians) over all ordered pairs of views.

    Args:
        is_seen: scenes that count; those without any depth have no scale.
    """
    num_views = prediction.shape[1]
    relative = invert_rigid(prediction)[:, :, None] @ prediction[:, None]
    expected = invert_rigid(truth)[:, :, None] @ truth[:, None]
    counts = ~torch.eye(num_views, dtype=torch.bool, device=prediction.device) & is_seen[:, None, None]
    pairs = counts.sum().clamp(min=1)
    huber = F.huber_loss(relative[..., :3, 3], expected[..., :3, 3], reduction="none", delta=HUBER_DELTA)
    trace = (relative[..., :3, :3] * expected[..., :3, :3]).sum((-1, -2))
    # Inside the open interval, where the arc cosine has a derivative.
    angle = ((trace - 1) / 2).clamp(-1 + 1e-6, 1 - 1e-6).acos()
    translation = torch.where(counts[..., None], huber, 0.0).sum() / (3 * pairs)
    return translation, torch.where(counts, angle, 0.0).sum() / pairs


def world_points_loss(
    points: Float[Tensor, "b v h w 3"],
    poses: Float[Tensor, "b v 4 4"],
    truth: ScaledGeometry,
    valid: Bool[Tensor, "b v h w"],
    weight: Float[Tensor, "b v h w"],
) -> Tensor:
    """Depth-weighted L1 distance of points carried into the camera frame of view 0 by each side's own poses."""
    first_from_camera = invert_rigid(poses[:, :1]) @ poses
    difference = transform_points(first_from_camera, points) - transform_points(
        truth.world_from_camera, truth.points_camera
    )
    error = weight[..., None] * torch.where(valid[..., None], difference, 0.0).abs()
    return error.sum() / (3 * valid.sum().clamp(min=1))


def reliability_loss(
    conf_logits: Float[Tensor, "b v h w"],
    is_reliable: Bool[Tensor, "b v h w"],
    valid: Bool[Tensor, "b v h w"],
    sky: Bool[Tensor, "b v h w"] | None,
) -> Tensor:
    """Binary cross entropy on valid pixels, plus the one towards "unreliable" on sky without depth."""
    entropy = F.binary_cross_entropy_with_logits(conf_logits, is_reliable.to(conf_logits.dtype), reduction="none")
    loss = torch.where(valid, entropy, 0.0).sum() / valid.sum().clamp(min=1)
    if sky is None:
        return loss
    empty = sky & ~valid
    return loss + torch.where(empty, F.softplus(conf_logits), 0.0).sum() / empty.sum().clamp(min=1)


def _mean_distance(points: Float[Tensor, "b v h w 3"], valid: Bool[Tensor, "b v h w"]) -> Float[Tensor, " b"]:
    """Mean norm of each scene's valid points; 1 where there is none."""
    distance = torch.where(valid[..., None], points, 1.0).norm(dim=-1)
    count = valid.flatten(1).sum(1)
    mean = torch.where(valid, distance, 0.0).flatten(1).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, 1.0).clamp(min=1e-8)


def _scale_translation(target_from_source: Float[Tensor, "b v 4 4"], scale: Float[Tensor, " b"]) -> Tensor:
    translation = target_from_source[..., :3, 3:] * scale[:, None, None, None]
    top = torch.cat((target_from_source[..., :3, :3], translation), dim=-1)
    return torch.cat((top, target_from_source[..., 3:, :]), dim=-2)
