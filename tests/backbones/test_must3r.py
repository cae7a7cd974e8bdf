"""The MUSt3R backbone: schedules, order, reference, chunks, precision, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_config import Must3rConfig, parse_rope
from pano3d.backbones.must3r_order import evenly_spaced
from pano3d.losses.must3r_geometry import Must3rLossConfig, must3r_geometry_loss
from pano3d.types import BackboneOutput, ConfigError, DataError, GeometryTarget, Views

TINY = Must3rConfig(
    encoder_width=32,
    encoder_depth=2,
    encoder_heads=2,
    decoder_width=24,
    decoder_depth=3,
    decoder_heads=2,
    training_memory_views=(2, 4),
    training_block_views=2,
    memory_dropout=0.0,
)


def network(config: Must3rConfig = TINY, generator: torch.Generator | None = None) -> Must3r:
    torch.manual_seed(0)
    model = Must3r(config, generator)
    with torch.no_grad():  # nothing at zero or identity, so that every path shows
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def photos(num_views: int, batch: int = 1, height: int = 48, width: int = 64) -> Tensor:
    return torch.rand(batch, num_views, 3, height, width, generator=torch.Generator().manual_seed(1))


def assert_same(a: BackboneOutput, b: BackboneOutput, order: list[int] | None = None, tolerance: float = 2e-5) -> None:
    for name in ("encoder_tokens", "decoder_tokens", "points_world", "points_camera", "confidence"):
        first, second = getattr(a, name), getattr(b, name)
        torch.testing.assert_close(first, second if order is None else second[:, order], rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_inference_returns_every_view_once_in_the_callers_order() -> None:
    output = network()(Views(photos(4, batch=2)))
    assert output.view_index.tolist() == [0, 1, 2, 3]
    assert output.token_grid == (3, 4)
    assert output.encoder_tokens.shape == (2, 4, 12, 32)
    assert output.decoder_tokens.shape == (2, 4, 12, 24)
    assert output.points_world.shape == output.points_camera.shape == (2, 4, 48, 64, 3)
    assert output.confidence.shape == (2, 4, 48, 64)
    assert (output.confidence >= 1).all()
    assert output.world_from_camera is None


@torch.no_grad()
def test_reference_is_the_one_asked_for() -> None:
    model, images = network(), photos(4)
    moved = model(Views(images[:, [2, 0, 1, 3]], reference=0))
    assert_same(model(Views(images, reference=2)), moved, order=[1, 2, 0, 3])
    other = model(Views(images, reference=0))
    assert (other.points_world - model(Views(images, reference=2)).points_world).abs().max() > 1e-3


@torch.no_grad()
def test_mixed_sizes_keep_order_and_reference() -> None:
    model, images = network(), photos(3)
    assert_each = zip(model.reconstruct_mixed(list(images[0]), reference=1), range(3))
    together = model(Views(images, reference=1))
    for one, view in assert_each:
        torch.testing.assert_close(one.points_world[:, 0], together.points_world[:, view], rtol=1e-5, atol=1e-5)
    mixed = [photos(1, height=64, width=48)[0, 0], images[0, 0], images[0, 1]]
    outputs = model.reconstruct_mixed(mixed, reference=0)
    assert [tuple(one.confidence.shape) for one in outputs] == [(1, 1, 64, 48), (1, 1, 48, 64), (1, 1, 48, 64)]
    # Another order of the same photos with the same reference first: a different frame would show.
    again = model.reconstruct_mixed([mixed[1], mixed[0], mixed[2]], reference=1)
    torch.testing.assert_close(again[1].points_world, outputs[0].points_world, rtol=1e-5, atol=1e-5)
    with pytest.raises(DataError, match="reference view 3"):
        model.reconstruct_mixed(mixed, reference=3)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["norm_y", "raw"])
def test_memory_modes_agree(mode: Any) -> None:
    model, images = network(), photos(4)
    other = Must3r(replace(TINY, memory_mode=mode)).eval()
    other.load_state_dict(model.state_dict())
    assert_same(model(Views(images)), other(Views(images)))


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_of_views_change_nothing(chunk: int) -> None:
    model, images = network(), photos(5, batch=2)
    other = Must3r(replace(TINY, views_per_chunk=chunk)).eval()
    other.load_state_dict(model.state_dict())
    assert_same(model(Views(images)), other(Views(images)))


@torch.no_grad()
def test_memory_in_bfloat16_is_half_the_size_and_close() -> None:
    model, images = network(), photos(3)
    other = Must3r(replace(TINY, memory_dtype="bfloat16")).eval()
    other.load_state_dict(model.state_dict())
    group = model.encode(images)
    full, half = model.remember(group, [0, 1, 2]), other.remember(group, [0, 1, 2])
    assert half.num_bytes * 2 == full.num_bytes
    assert_same(model(Views(images)), other(Views(images)), tolerance=0.05)


@torch.no_grad()
def test_one_view_and_fewer_memory_views() -> None:
    model = network()
    assert model(Views(photos(1))).points_world.isfinite().all()
    sparse = Must3r(replace(TINY, memory_views=2)).eval()
    sparse.load_state_dict(model.state_dict())
    images = photos(5)
    assert sparse(Views(images)).view_index.tolist() == [0, 1, 2, 3, 4]
    memory = sparse.remember(sparse.encode(images), evenly_spaced([0, 1, 2, 3, 4], 2))
    assert memory.num_views == 2


def test_training_returns_update_and_render_passes() -> None:
    model = network(replace(TINY, training_memory_views=(3, 3))).train()
    output = model(Views(photos(4, batch=2), reference=1))
    assert output.view_index.tolist() == [1, 0, 2, 0, 1, 2, 3]
    assert output.points_world.shape == (2, 7, 48, 64, 3)
    torch.testing.assert_close(output.encoder_tokens[:, 0], output.encoder_tokens[:, 4])
    assert (output.decoder_tokens[:, 0] - output.decoder_tokens[:, 4]).abs().max() > 1e-3


def test_training_on_two_memory_views_renders_like_inference() -> None:
    """A causal first call of two views is the inference initial pair, so two views give the same render."""
    model, images = network(replace(TINY, training_memory_views=(2, 2))), photos(2)
    with torch.no_grad():
        expected = model(Views(images))
        trained = model.train()(Views(images))
    torch.testing.assert_close(trained.points_world[:, 2:], expected.points_world, rtol=1e-5, atol=1e-5)


def test_training_draws_come_from_the_generator() -> None:
    config = replace(TINY, training_memory_views=(1, 4), memory_dropout=0.5)
    images = photos(4)

    def run(seed: int) -> BackboneOutput:
        with torch.no_grad():
            return network(config, torch.Generator().manual_seed(seed)).train()(Views(images))

    assert_same(run(3), run(3))
    assert len({tuple(run(seed).view_index.tolist()) for seed in range(12)}) == 4
    full = network(replace(config, memory_dropout=0.0), torch.Generator().manual_seed(3)).train()
    with torch.no_grad():
        assert (full(Views(images)).points_world[:, -4:] - run(3).points_world[:, -4:]).abs().max() > 1e-4


@pytest.mark.parametrize("mode", ["temporary", "permanent"])
def test_every_parameter_learns(mode: Any) -> None:
    config = replace(TINY, training_memory_views=(4, 4), memory_dropout=0.2, memory_dropout_mode=mode)
    model = network(config).train()
    output = model(Views(photos(4)))
    (output.points_world.square().mean() + output.points_camera.mean() + output.confidence.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_recomputed_blocks_give_the_same_gradients() -> None:
    images = photos(3)
    gradients = []
    for recompute in (False, True):
        model = network(replace(TINY, recompute_blocks=recompute)).train()
        output = model(Views(images))
        (output.points_world.mean() + output.confidence.mean()).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-7)


def test_learns_one_scene() -> None:
    """A tilted plane seen by two cameras: the distances halve within some steps."""
    torch.manual_seed(0)
    model = Must3r(replace(TINY, training_memory_views=(2, 2))).train()
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    depth = (2 + 0.01 * columns + 0.02 * rows).expand(1, 2, 48, 64)
    intrinsics = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]).expand(1, 2, 3, 3)
    poses = torch.eye(4).repeat(1, 2, 1, 1)
    poses[0, 1, 0, 3] = 0.5
    target, views = GeometryTarget(depth, intrinsics, poses), Views(photos(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    distances = []
    for _ in range(30):
        parts = must3r_geometry_loss(model(views), target, Must3rLossConfig(), reference=0)
        optimizer.zero_grad()
        parts["total"].backward()
        optimizer.step()
        distances.append(float(parts["world_distance"] + parts["camera_distance"]))
    assert distances[-1] < distances[0] / 2


def test_parts_cover_every_parameter_once() -> None:
    model = network()
    listed = [id(parameter) for part in model.parts().values() for parameter in part]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())
    assert {id(p) for p in model.parts()["geometry_head"]} == {id(p) for p in model.decoder.head_dec.parameters()}


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = Must3r(TINY)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            assert layer.bias.abs().max() == 0, name
    feedback = model.decoder.feedback_layer
    assert feedback is not None
    assert feedback.fc2.weight.abs().max() == 0
    assert 0.01 < model.decoder.image2_embed.std() < 0.03
    eps = {name: layer.eps for name, layer in model.named_modules() if isinstance(layer, nn.LayerNorm)}
    assert eps.pop("decoder.feedback_norm") == 1e-5
    assert set(eps.values()) == {1e-6}


@torch.no_grad()
def test_autocast_keeps_encoder_and_head_in_float32() -> None:
    model, images = network(), photos(3)
    plain = model(Views(images))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(Views(images))
    assert mixed.points_world.dtype == torch.float32
    torch.testing.assert_close(mixed.encoder_tokens, plain.encoder_tokens)
    assert_same(mixed, plain, tolerance=0.1)


@pytest.mark.parametrize(
    ("images", "reference", "message"),
    [
        (torch.zeros(1, 0, 3, 48, 64), 0, "at least one"),
        (torch.zeros(1, 2, 3, 50, 64), 0, "resize to 64x48"),
        (torch.zeros(1, 2, 3, 48, 64), 2, "reference view 2 does not exist"),
        (torch.zeros(1, 2, 3, 48, 64).index_fill(1, torch.tensor([1]), float("nan")), 0, "scene 0, view 1"),
    ],
)
def test_bad_views_are_refused(images: Tensor, reference: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        network()(Views(images, reference))


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoder_heads": 3},
        {"decoder_width": 12, "decoder_heads": 2},
        {"encoder_depth": 0},
        {"memory_dropout": 1.0},
        {"training_memory_views": (3, 2)},
        {"views_per_chunk": -1},
        {"rope_scale": 0.0},
    ],
)
def test_bad_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(TINY, **wrong)


def test_constructor_arguments_of_checkpoints() -> None:
    config = Must3rConfig.from_constructor(
        {"img_size": (512, 512), "patch_embed": "PatchEmbedDust3R", "pos_embed": "RoPE100_512:768"},
        {
            "feedback_type": "single_mlp",
            "pointmaps_activation": "ActivationType.LINEAR",
            "pos_embed": "RoPE100_512:768",
        },
    )
    assert (config.encoder_width, config.decoder_depth, config.activation) == (1024, 12, "linear")
    assert config.rope_scale == pytest.approx(2 / 3)
    assert Must3rConfig.from_constructor({}, {}).feedback == "none"
    for encoder, decoder in (
        ({}, {"output_dim": 1024}),
        ({"pos_embed": "RoPE100_2:3"}, {}),
        ({}, {"memory_mode": "x"}),
    ):
        with pytest.raises(ConfigError):
            Must3rConfig.from_constructor(encoder, decoder)
    with pytest.raises(ConfigError, match="cosine"):
        parse_rope("cosine")


def test_portraits_stored_transposed_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected transposed_portrait=false, got true"):
        Must3r(replace(TINY, transposed_portrait=True))


def test_released_sizes() -> None:
    with torch.device("meta"):
        model = Must3r(Must3rConfig())
    assert sum(p.numel() for p in model.encoder.parameters()) == 303_098_880
    assert sum(p.numel() for p in model.decoder.parameters()) == 120_331_264
    assert (len(model.encoder.state_dict()), len(model.decoder.state_dict())) == (292, 301)
