"""Pi3 as a backbone: what it promises whatever its weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pano3d.backbones.dinov2 import DinoV2Config
from pano3d.backbones.pi3 import Pi3, Pi3Config, Pi3DecoderConfig, Pi3HeadsConfig
from pano3d.backbones.pi3_images import pi3_image_size
from pano3d.geometry.projection import transform_points
from pano3d.types import BackboneOutput, ConfigError, DataError, Views

CONFIG = Pi3Config(
    encoder=DinoV2Config(width=32, depth=2, num_heads=2, position_grid=4, num_registers=2),
    decoder=Pi3DecoderConfig(depth=4, num_heads=2, num_registers=3, layer_scale=1.0),
    heads=Pi3HeadsConfig(width=24, depth=1, num_heads=2, point_width=16, camera_width=16),
)


def network(config: Pi3Config = CONFIG) -> Pi3:
    torch.manual_seed(0)
    return Pi3(config).eval()


def images(batch: int = 2, num_views: int = 3, height: int = 28, width: int = 42) -> Tensor:
    return torch.rand(batch, num_views, 3, height, width, generator=torch.Generator().manual_seed(1))


def dense(output: BackboneOutput) -> dict[str, Tensor]:
    names = ("encoder_tokens", "decoder_tokens", "points_world", "points_camera", "confidence", "world_from_camera")
    return {name: getattr(output, name) for name in names}


@torch.no_grad()
def test_output_is_consistent() -> None:
    model = network()
    output = model(Views(images()))
    assert output.token_grid == (2, 3)
    assert output.encoder_tokens.shape == (2, 3, 6, model.encoder_width)
    assert output.decoder_tokens.shape == (2, 3, 6, model.decoder_width)
    assert output.confidence_kind == model.confidence_kind == "conf_logits"
    assert output.view_index.tolist() == [0, 1, 2]
    assert (output.points_camera[..., 2] > 0).all()
    assert output.world_from_camera is not None
    moved = transform_points(output.world_from_camera, output.points_camera)
    torch.testing.assert_close(output.points_world, moved)


@torch.no_grad()
def test_reordering_views_reorders_outputs() -> None:
    model, order = network(), torch.tensor([2, 0, 1])
    first, second = dense(model(Views(images()))), dense(model(Views(images()[:, order])))
    for name in first:
        torch.testing.assert_close(first[name][:, order], second[name], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_views_see_each_other_but_scenes_do_not() -> None:
    model, changed = network(), images()
    changed[0, 2] = 0.5
    first, second = model(Views(images())), model(Views(changed))
    assert torch.equal(first.encoder_tokens[0, :2], second.encoder_tokens[0, :2])
    assert not torch.allclose(first.decoder_tokens[0, 0], second.decoder_tokens[0, 0], atol=1e-4)
    torch.testing.assert_close(first.decoder_tokens[1], second.decoder_tokens[1])


@torch.no_grad()
def test_chunks_of_views_change_nothing() -> None:
    whole, chunked = network(), network(replace(CONFIG, views_per_chunk=2))
    first, second = dense(whole(Views(images()))), dense(chunked(Views(images())))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_last_two_blocks_as_features() -> None:
    last, both = network(), network(replace(CONFIG, decoder_feature="last_two"))
    assert both.decoder_width == 2 * last.decoder_width
    first, second = last(Views(images())).decoder_tokens, both(Views(images())).decoder_tokens
    assert torch.equal(first, second[..., last.decoder_width :])


def test_recomputing_blocks_gives_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        model = network(replace(CONFIG, recompute_blocks=recompute)).train()
        model(Views(images())).points_world.square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_every_parameter_is_in_one_part_and_learns() -> None:
    model = network().train()
    parts = model.parts()
    listed = [parameter for part in parts.values() for parameter in part]
    assert len(listed) == len({id(p) for p in listed}) == len(list(model.parameters()))
    output = model(Views(images()))
    total = output.points_world.square().mean() + output.confidence.square().mean()
    total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_heads_answer_in_float32_under_autocast() -> None:
    model = network()
    exact = model(Views(images()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(Views(images()))
    for tensor in (output.points_world, output.points_camera, output.confidence, output.world_from_camera):
        assert tensor.dtype == torch.float32
    torch.testing.assert_close(output.points_camera, exact.points_camera, rtol=0.1, atol=0.1)
    torch.testing.assert_close(output.confidence, exact.confidence, rtol=0.1, atol=0.1)
    torch.testing.assert_close(output.world_from_camera, exact.world_from_camera, rtol=0.1, atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("views_per_window", [0, 2])
def test_cameras_and_points_agree_under_autocast(views_per_window: int) -> None:
    model = network(replace(CONFIG, views_per_window=views_per_window, window_overlap=1 if views_per_window else 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(Views(images()))
    assert output.world_from_camera is not None
    rotation = output.world_from_camera[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), rtol=0, atol=1e-5)
    moved = transform_points(output.world_from_camera, output.points_camera)
    torch.testing.assert_close(output.points_world, moved, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_confidence_branch_starts_as_the_point_branch() -> None:
    model = network()
    point, conf = model.point_decoder.state_dict(), model.conf_decoder.state_dict()
    assert all(torch.equal(value, conf[name]) for name, value in point.items())
    assert point["projects.weight"].data_ptr() != conf["projects.weight"].data_ptr()


def test_training_works_after_an_inference_mode_call() -> None:
    model = network()
    with torch.inference_mode():
        model(Views(images()))
    model.train()(Views(images())).points_world.mean().backward()


def test_one_view_is_enough() -> None:
    assert network()(Views(images(num_views=1))).points_world.isfinite().all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.rand(1, 2, 3, 30, 42), "multiples of 14, got 30 and 42"),
        (torch.rand(1, 0, 3, 28, 42), "at least one view"),
        (torch.full((1, 1, 3, 28, 42), torch.nan), "NaN or infinity"),
    ],
)
def test_refuses_bad_images(bad: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        network()(Views(bad))


def test_refuses_impossible_sizes() -> None:
    with pytest.raises(ConfigError, match="even"):
        replace(CONFIG, decoder=replace(CONFIG.decoder, depth=3))
    with pytest.raises(ConfigError, match="multiple of 4"):
        replace(CONFIG, decoder=replace(CONFIG.decoder, num_heads=16))
    with pytest.raises(ConfigError, match="num_heads"):
        DinoV2Config(width=30, depth=1, num_heads=4, position_grid=2)


@pytest.mark.parametrize("size", [(0, 10), (100_000, 10)])
def test_refuses_photos_that_cannot_be_resized(size: tuple[int, int]) -> None:
    with pytest.raises(DataError):
        pi3_image_size(*size)
