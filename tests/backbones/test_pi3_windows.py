"""Windows of a long sequence: they cover it, and joining undoes each window's own frame and scale."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scipy.spatial.transform import Rotation

from pano3d.backbones.pi3_windows import join_windows, window_spans
from pano3d.geometry.projection import transform_points
from pano3d.types import BackboneOutput, ConfigError, Views

from .test_pi3 import CONFIG, images, network


@pytest.mark.parametrize(("views", "size", "overlap"), [(5, 8, 2), (8, 8, 2), (9, 8, 2), (50, 8, 3), (21, 5, 1)])
def test_spans_cover_and_overlap(views: int, size: int, overlap: int) -> None:
    spans = window_spans(views, size, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == views
    for (first, stop), (start, end) in pairwise(spans):
        assert first < start
        assert overlap <= stop - start
        assert end - start == size


def test_joining_undoes_frames_and_scales() -> None:
    whole, spans = _scene(9), window_spans(9, 4, 2)
    windows = []
    for index, (start, stop) in enumerate(spans):
        part = _cut(whole, start, stop)
        windows.append(part if index == 0 else _moved(part, seed=index))
    joined = join_windows(windows, spans)
    for name in ("points_world", "points_camera", "world_from_camera", "decoder_tokens", "confidence"):
        torch.testing.assert_close(getattr(joined, name), getattr(whole, name), rtol=1e-4, atol=1e-4)
    assert joined.view_index.tolist() == list(range(9))


def test_unsure_points_do_not_count() -> None:
    whole, spans = _scene(6), window_spans(6, 4, 2)
    windows = [_cut(whole, *spans[0]), _moved(_cut(whole, *spans[1]), seed=1)]
    wrong = windows[1].points_world.clone()
    wrong[:, :2, :3] += 5.0  # the upper rows of the shared views, which the window itself doubts
    unsure = windows[1].confidence.clone()
    unsure[:, :2, :3] = -10.0
    windows[1] = replace(windows[1], points_world=wrong, confidence=unsure)
    joined = join_windows(windows, spans)
    torch.testing.assert_close(joined.points_world[:, 4:], whole.points_world[:, 4:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_network_in_windows() -> None:
    views = Views(images(batch=1, num_views=7))
    model = network(replace(CONFIG, views_per_window=4, window_overlap=2))
    output, first = model(views), network()(Views(views.images[:, :4]))
    assert output.points_world.shape[:2] == (1, 7)
    torch.testing.assert_close(output.points_world[:, :4], first.points_world)
    assert output.world_from_camera is not None
    moved = transform_points(output.world_from_camera, output.points_camera)
    torch.testing.assert_close(output.points_world, moved, rtol=1e-3, atol=1e-3)
    # Enough views for one window: nothing changes.
    torch.testing.assert_close(
        network(replace(CONFIG, views_per_window=7))(views).points_world, network()(views).points_world
    )


def test_an_overlap_is_needed() -> None:
    with pytest.raises(ConfigError, match="window_overlap 0 must be at least 1"):
        replace(CONFIG, views_per_window=4, window_overlap=0)


def _scene(views: int) -> BackboneOutput:
    draws = torch.Generator().manual_seed(0)
    camera = torch.rand(2, views, 6, 8, 3, generator=draws) + torch.tensor([0.0, 0.0, 1.0])
    poses = torch.eye(4).repeat(2, views, 1, 1)
    poses[..., :3, :3] = torch.from_numpy(Rotation.random(2 * views, random_state=3).as_matrix()).reshape(
        2, views, 3, 3
    )
    poses[..., :3, 3] = torch.randn(2, views, 3, generator=draws)
    return BackboneOutput(
        encoder_tokens=torch.rand(2, views, 4, 5, generator=draws),
        decoder_tokens=torch.rand(2, views, 4, 5, generator=draws),
        token_grid=(2, 2),
        points_world=transform_points(poses, camera),
        points_camera=camera,
        confidence=torch.rand(2, views, 6, 8, generator=draws),
        confidence_kind="conf_logits",
        world_from_camera=poses,
        view_index=torch.arange(views),
    )


_OF_VIEWS = ("encoder_tokens", "decoder_tokens", "points_world", "points_camera", "confidence", "world_from_camera")


def _cut(output: BackboneOutput, start: int, stop: int) -> BackboneOutput:
    parts = {name: getattr(output, name)[:, start:stop] for name in _OF_VIEWS}
    return replace(output, **parts, view_index=torch.arange(stop - start))


def _moved(output: BackboneOutput, seed: int) -> BackboneOutput:
    """The same reconstruction in a frame and a scale of its own, another for each scene."""
    turn = torch.from_numpy(Rotation.random(2, random_state=seed).as_matrix()).float()
    scale, offset = torch.tensor([0.5, 3.0]), torch.tensor([[1.0, -2.0, 0.5], [4.0, 0.0, 1.0]])
    assert output.world_from_camera is not None
    poses = output.world_from_camera.clone()
    poses[..., :3, 3] = scale[:, None, None] * torch.einsum("bij,bvj->bvi", turn, poses[..., :3, 3]) + offset[:, None]
    poses[..., :3, :3] = turn[:, None] @ poses[..., :3, :3]
    camera = output.points_camera * scale[:, None, None, None, None]
    return replace(output, points_camera=camera, world_from_camera=poses, points_world=transform_points(poses, camera))
