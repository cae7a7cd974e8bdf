"""MUSt3R's geometry loss by hand, at its edges, and its gradient. Recorded values: the golden tests of the backbone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pano3d.losses.must3r_geometry import (
    Must3rLossConfig,
    PointmapPrediction,
    confident_regression,
    must3r_geometry_loss,
    truth_from_depth,
)
from pano3d.types import BackboneOutput, ConfigError, GeometryTarget

PLAIN = Must3rLossConfig(normalisation="metric", log_space="none")


def target(num_views: int = 2, seed: int = 0) -> GeometryTarget:
    draw = torch.Generator().manual_seed(seed)
    poses = torch.eye(4).repeat(1, num_views, 1, 1)
    poses[:, :, :3, 3] = torch.randn(num_views, 3, generator=draw)
    intrinsics = torch.tensor([[8.0, 0, 2.0], [0, 8.0, 1.0], [0, 0, 1]]).repeat(1, num_views, 1, 1)
    return GeometryTarget(1 + torch.rand(1, num_views, 4, 6, generator=draw), intrinsics, poses)


def output(world: Tensor, camera: Tensor, confidence: Tensor, view_index: list[int]) -> BackboneOutput:
    tokens = torch.zeros(1, len(view_index), 1, 1)
    return BackboneOutput(
        tokens, tokens, (1, 1), world, camera, confidence, "confidence", None, torch.tensor(view_index)
    )


def test_truth_of_one_pixel_by_hand() -> None:
    """Pixel (x 3, y 1) at depth 2, focal 1, centre (1, 1): camera point (4, 0, 2). The camera sits at scan (1, 0, 0),
    the reference at (0, 0, 5) and looks along +x: its axes are x right = -z, y down = y, z forward = +x of the scan."""
    depth = torch.zeros(1, 2, 2, 4)
    depth[0, 1, 1, 3] = 2.0
    intrinsics = torch.tensor([[1.0, 0, 1], [0, 1, 1], [0, 0, 1]]).repeat(1, 2, 1, 1)
    poses = torch.eye(4).repeat(1, 2, 1, 1)
    poses[0, 0] = torch.tensor([[0.0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 5], [0, 0, 0, 1]])
    poses[0, 1, 0, 3] = 1.0
    truth = truth_from_depth(GeometryTarget(depth, intrinsics, poses), reference=0, view_index=torch.tensor([1, 0, 1]))
    assert truth.valid.sum(dim=(2, 3)).tolist() == [[1, 0, 1]]
    torch.testing.assert_close(truth.points_camera[0, 0, 1, 3], torch.tensor([4.0, 0, 2]))
    # scan point (5, 0, 2); relative to the reference (5, 0, -3); along its axes (3, 0, 5)
    torch.testing.assert_close(truth.points_world[0, 0, 1, 3], torch.tensor([3.0, 0, 5]))
    torch.testing.assert_close(truth.points_world[0, 2], truth.points_world[0, 0])


def test_perfect_prediction_leaves_only_the_reward() -> None:
    truth = truth_from_depth(target(), 0, torch.arange(2))
    for config in (PLAIN, Must3rLossConfig(), replace(PLAIN, normalisation="relative")):
        prediction = PointmapPrediction(
            truth.points_world, truth.points_camera, torch.full_like(truth.valid, 3.0, dtype=torch.float32)
        )
        parts = confident_regression(prediction, truth, config)
        assert parts["total"].item() == pytest.approx(-2 * 0.2 * math.log(3.0), abs=1e-5)
        assert parts["world_distance"].item() == pytest.approx(0, abs=1e-6)


def test_scale_counts_in_metric_mode_only() -> None:
    truth = truth_from_depth(target(), 0, torch.arange(2))
    doubled = PointmapPrediction(
        2 * truth.points_world, 2 * truth.points_camera, torch.ones_like(truth.points_world[..., 0])
    )
    # At twice the size each point is off by its own distance, whose mean is 1 after normalisation.
    metric = confident_regression(doubled, truth, PLAIN)
    assert metric["world_distance"].item() == pytest.approx(1.0, abs=1e-5)
    relative = confident_regression(doubled, truth, replace(PLAIN, normalisation="relative"))
    assert relative["world_distance"].item() == pytest.approx(0.0, abs=1e-5)
    unknown = replace(truth, is_metric=torch.tensor([False]))
    assert confident_regression(doubled, unknown, PLAIN)["total"].item() == pytest.approx(relative["total"].item())


def test_sky_costs_a_constant_and_negative_depth_is_sky() -> None:
    sensed = target()
    sensed.depth[0, 1] = -1.0
    truth = truth_from_depth(sensed, 0, torch.arange(2))
    prediction = PointmapPrediction(truth.points_world.clone(), truth.points_camera.clone(), torch.ones(1, 2, 4, 6))
    assert confident_regression(prediction, truth, PLAIN)["world_distance"].item() == pytest.approx(1.0)  # half at 2
    assert confident_regression(prediction, truth, replace(PLAIN, sky_distance=0.0))["total"].item() == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("normalisation", ["metric", "relative"])
@pytest.mark.parametrize("missing", ["one view", "everything", "nan"])
def test_missing_depth_is_safe(normalisation: str, missing: str) -> None:
    sensed = target()
    if missing == "one view":
        sensed.depth[:, 1] = 0
    elif missing == "everything":
        sensed.depth[:] = 0
    else:
        sensed.depth[:, 0, 0, 0] = float("nan")
    raw = [torch.randn(1, 3, 4, 6, 3, requires_grad=True), torch.randn(1, 3, 4, 6, 3, requires_grad=True)]
    confidence = (1 + torch.rand(1, 3, 4, 6)).requires_grad_()
    config = Must3rLossConfig(normalisation=normalisation)  # type: ignore[arg-type]
    parts = must3r_geometry_loss(output(raw[0], raw[1], confidence, [0, 0, 1]), sensed, config, reference=0)
    assert all(value.isfinite() for value in parts.values())
    parts["total"].backward()
    for tensor in (*raw, confidence):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    if missing == "everything":
        assert parts["total"] == 0
        assert raw[0].grad.abs().max() == 0
    if missing == "one view":
        assert raw[0].grad[:, 2].abs().max() == 0
        assert raw[0].grad[:, :2].abs().max() > 0


def test_passes_are_compared_with_the_image_behind_them() -> None:
    sensed = target()
    truth = truth_from_depth(sensed, 1, torch.tensor([1, 0, 1]))
    perfect = output(truth.points_world, truth.points_camera, torch.ones(1, 3, 4, 6), [1, 0, 1])
    assert must3r_geometry_loss(perfect, sensed, PLAIN, reference=1)["total"].item() == pytest.approx(0, abs=1e-6)
    assert must3r_geometry_loss(perfect, sensed, PLAIN, reference=0)["total"].item() > 0.01


@pytest.mark.parametrize("normalisation", ["metric", "relative"])
@pytest.mark.parametrize("log_space", ["both", "world", "none"])
def test_gradient(normalisation: str, log_space: str) -> None:
    config = Must3rLossConfig(normalisation=normalisation, log_space=log_space)  # type: ignore[arg-type]
    sensed = target()
    sensed.depth[0, 0, :2] = 0
    truth = truth_from_depth(sensed, 0, torch.arange(2))
    truth = replace(truth, points_world=truth.points_world.double(), points_camera=truth.points_camera.double())

    def loss(world: Tensor, camera: Tensor, confidence: Tensor) -> Tensor:
        return confident_regression(PointmapPrediction(world, camera, confidence), truth, config)["total"]

    draw = torch.Generator().manual_seed(4)
    points = [torch.randn(1, 2, 4, 6, 3, dtype=torch.float64, generator=draw, requires_grad=True) for _ in range(2)]
    confidence = (1 + torch.rand(1, 2, 4, 6, dtype=torch.float64, generator=draw)).requires_grad_()
    assert torch.autograd.gradcheck(loss, (*points, confidence))


def test_negative_settings_are_refused() -> None:
    with pytest.raises(ConfigError):
        Must3rLossConfig(alpha=-0.1)
