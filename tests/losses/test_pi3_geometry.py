"""Pi3's geometry loss: the public values and gradients, and what must hold whatever the numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pano3d.geometry.projection import invert_rigid, transform_points, unproject_depth
from pano3d.losses.pi3_geometry import (
    Pi3GeometryLossConfig,
    align_scale,
    geometry_terms,
    inverse_depth_weight,
    normalise_prediction,
    normalise_truth,
    pi3_geometry_loss,
    relative_pose_losses,
    world_points_loss,
)
from pano3d.losses.weighted_scale import solve_scale, spread_indices
from pano3d.types import BackboneOutput, ConfigError, GeometryTarget

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "pi3" / "losses.safetensors")
VALID, SKY = GOLDEN["in.valid_mask"].bool(), GOLDEN["in.sky_mask"].bool()
FULL = Pi3GeometryLossConfig(world_points=1.0)


def assert_relative(ours: Tensor, reference: Tensor, tolerance: float) -> None:
    assert (ours - reference).abs().max().item() <= tolerance * reference.abs().max().item()


@pytest.mark.parametrize("kind", ["noconf", "conf"])
def test_reference_values_and_gradients(kind: str) -> None:
    pose = GOLDEN["in.camera_pose"]
    truth = normalise_truth(transform_points(invert_rigid(pose), GOLDEN["in.pts3d"]), pose, VALID)
    assert_relative(truth.points_camera, GOLDEN["gt.local_points"], 2e-6)
    assert_relative(truth.world_from_camera, GOLDEN["gt.camera_poses"], 2e-6)

    points = GOLDEN["in.pred_local_points"].clone().requires_grad_()
    poses = GOLDEN["in.pred_camera_poses"].clone().requires_grad_()
    logits = GOLDEN["in.pred_conf"].clone().requires_grad_()
    prediction = normalise_prediction(points, poses, VALID)
    assert_relative(prediction.points_camera, GOLDEN["norm.local_points"], 2e-6)
    assert_relative(prediction.world_from_camera, GOLDEN["norm.camera_poses"], 2e-6)
    weight = inverse_depth_weight(truth.points_camera[..., 2], VALID)
    assert_relative(weight[VALID], GOLDEN["weights"][VALID], 2e-6)
    scale = align_scale(prediction.points_camera.detach(), truth.points_camera, weight, VALID)
    assert_relative(scale, GOLDEN["scale"], 2e-6)

    config = Pi3GeometryLossConfig(confidence=0.05 if kind == "conf" else 0.0)
    has_normals = torch.tensor([True, False])
    terms = geometry_terms(prediction, truth, logits[..., 0], VALID, has_normals, SKY, config)
    names = {"points": "local_pts_loss", "normals": "normal_loss", "translation": "trans_loss", "total": "total"}
    if kind == "conf":
        names["confidence"] = "local_conf_loss"
    for ours, reference in names.items():
        assert_relative(terms[ours], GOLDEN[f"{kind}.{reference}"], 1e-5)
    assert_relative(terms["rotation"], GOLDEN[f"{kind}.rot_loss"], 1e-4)
    terms["total"].backward()
    assert_relative(points.grad, GOLDEN[f"{kind}.grad.local_points"], 3e-5)
    assert_relative(poses.grad[..., :3, :], GOLDEN[f"{kind}.grad.camera_poses"], 3e-5)
    if kind == "conf":
        assert_relative(logits.grad, GOLDEN["conf.grad.conf"], 3e-5)


def test_scale_solver_matches_reference() -> None:
    assert_relative(solve_scale(*(GOLDEN[f"solver.{name}"] for name in "xyw")), GOLDEN["solver.scale"], 1e-6)


def test_scale_solver_by_hand() -> None:
    # |2s - 2| + 3 |s + 1|, as rows of weights 1 and 3: the kinks are 1 (mass 2) and -1 (mass 3); 3 of 5 decides.
    scale = solve_scale(torch.tensor([[2.0, 1.0]]), torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 3.0]]))
    assert scale.item() == -1.0
    assert solve_scale(torch.ones(1, 3), torch.ones(1, 3), torch.zeros(1, 3)).item() == 0.0


def test_spread_indices_cover_valid_entries_in_order() -> None:
    valid = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 0, 0, 1, 0, 0]], dtype=torch.bool)
    assert spread_indices(valid, 4).tolist() == [[1, 2, 4, 5], [3, 3, 3, 3]]
    assert spread_indices(valid, 2).tolist() == [[1, 4], [3, 3]]


def scene(seed: int = 0, batch: int = 2, num_views: int = 3) -> tuple[BackboneOutput, GeometryTarget]:
    """A prediction that is the truth up to scale and world frame, and the truth."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 12, 16
    depth = 1 + torch.rand(batch, num_views, height, width, generator=generator)
    intrinsics = torch.tensor([[14.0, 0, 7.5], [0, 14.0, 5.5], [0, 0, 1]]).expand(batch, num_views, 3, 3)
    motions = torch.eye(4).repeat(batch, num_views + 1, 1, 1)
    rotation, _ = torch.linalg.qr(torch.randn(batch, num_views + 1, 3, 3, generator=generator))
    motions[..., :3, :3] = rotation * torch.det(rotation)[..., None, None]
    motions[..., :3, 3] = torch.randn(batch, num_views + 1, 3, generator=generator)
    scan_from_camera, other_from_scan = motions[:, :-1], motions[:, -1:]
    world_from_camera = other_from_scan @ scan_from_camera
    world_from_camera[..., :3, 3] *= 2.5
    points = 2.5 * unproject_depth(depth, intrinsics)
    tokens = torch.zeros(batch, num_views, 1, 4)
    output = BackboneOutput(
        encoder_tokens=tokens,
        decoder_tokens=tokens,
        token_grid=(1, 1),
        points_world=transform_points(world_from_camera, points),
        points_camera=points,
        confidence=torch.full_like(depth, 20.0),
        confidence_kind="conf_logits",
        world_from_camera=world_from_camera,
        view_index=torch.arange(num_views),
    )
    return output, GeometryTarget(depth, intrinsics, scan_from_camera)


def test_truth_up_to_similarity_costs_nothing() -> None:
    output, target = scene()
    losses = pi3_geometry_loss(output, target, FULL)
    assert losses["points"] < 1e-6
    assert losses["world_points"] < 2e-6
    assert losses["translation"] < 1e-10
    assert losses["rotation"] < 2e-3  # the arc cosine is clamped near 1
    assert losses["confidence"] < 1e-6
    assert losses["normals"] < 1e-3  # one degree, the smallest counted angle


def test_each_mistake_moves_its_own_term() -> None:
    output, target = scene()
    base = pi3_geometry_loss(output, target, FULL)
    moved = output.world_from_camera.clone()
    moved[:, 1, :3, 3] += 0.5
    shifted = pi3_geometry_loss(replace(output, world_from_camera=moved), target, FULL)
    assert shifted["translation"] > base["translation"] + 1e-3
    assert shifted["world_points"] > 1e-2
    assert shifted["points"] == base["points"]
    bent = output.points_camera * torch.linspace(1, 1.5, 16)[:, None]
    losses = pi3_geometry_loss(replace(output, points_camera=bent), target, FULL)
    assert losses["points"] > 1e-2
    assert losses["confidence"] > 1.0  # it claims to be sure of wrong points
    assert losses["rotation"] == base["rotation"]


def test_order_of_views_does_not_matter() -> None:
    output, target = scene(1)
    bent = replace(output, points_camera=output.points_camera * torch.linspace(1, 1.2, 16)[:, None])
    order = torch.tensor([0, 2, 1])  # view 0 stays: it sets the unit of the truth
    shuffled = replace(
        bent,
        points_camera=bent.points_camera[:, order],
        confidence=bent.confidence[:, order],
        world_from_camera=bent.world_from_camera[:, order],
        view_index=order,  # each entry finds its own view of the target
    )
    first, second = pi3_geometry_loss(bent, target, FULL), pi3_geometry_loss(shuffled, target, FULL)
    for name in ("translation", "rotation", "confidence"):
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("case", ["one view empty", "one scene empty", "all empty", "one view only", "NaN depth"])
def test_gradients_are_finite_without_depth(case: str) -> None:
    output, target = scene(num_views=1 if case == "one view only" else 3)
    depth = target.depth.clone()
    if case == "one view empty":
        depth[0, 1] = 0
    elif case == "one scene empty":
        depth[1] = 0
    elif case == "all empty":
        depth[:] = 0
    elif case == "NaN depth":
        depth[0, 0, :4] = torch.nan
    points = (output.points_camera * 1.3 + 0.1).requires_grad_()
    poses = output.world_from_camera.clone().requires_grad_()
    logits = torch.zeros_like(output.confidence).requires_grad_()
    output = replace(output, points_camera=points, world_from_camera=poses, confidence=logits)
    losses = pi3_geometry_loss(output, replace(target, depth=depth), FULL)
    assert all(value.isfinite() for value in losses.values())
    losses["total"].backward()
    assert all(tensor.grad.isfinite().all() for tensor in (points, poses, logits))
    if case == "one scene empty":
        assert not points.grad[1].any()
        assert not poses.grad[1].any()
        assert points.grad[0].any()


def test_world_points_term_by_hand() -> None:
    # One pixel in one of two views; its pose is off by 1 along x: |1| * weight 0.5 over 3 coordinates.
    _, target = scene(batch=1, num_views=2)
    truth = normalise_truth(unproject_depth(target.depth, target.intrinsics), target.scan_from_camera, target.depth > 0)
    valid = torch.zeros_like(target.depth, dtype=torch.bool)
    valid[0, 1, 3, 4] = True
    poses = truth.world_from_camera.clone()
    poses[0, 1, 0, 3] += 1.0
    loss = world_points_loss(truth.points_camera, poses, truth, valid, torch.full_like(target.depth, 0.5))
    assert loss.item() == pytest.approx(0.5 / 3, rel=1e-4)


def test_rotation_angle_by_hand() -> None:
    truth = torch.eye(4).repeat(1, 2, 1, 1)
    turned = truth.clone()
    turned[0, 1, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    translation, rotation = relative_pose_losses(turned, truth, torch.tensor([True]))
    assert translation.item() == 0.0
    assert rotation.item() == pytest.approx(torch.pi / 2, abs=1e-6)


def test_refuses_a_backbone_without_poses() -> None:
    output, target = scene()
    with pytest.raises(ConfigError, match="no poses"):
        pi3_geometry_loss(replace(output, world_from_camera=None), target, FULL)


def test_refuses_negative_weights() -> None:
    with pytest.raises(ConfigError, match="0 or more"):
        Pi3GeometryLossConfig(camera=-1.0)
