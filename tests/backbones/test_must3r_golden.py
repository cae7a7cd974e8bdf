"""MUSt3R against the public package: every recorded scenario, training call, gradient, loss and camera."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.must3r_decoder import GroupPass, ViewGroup
from pano3d.backbones.must3r_memory import Memory
from pano3d.backbones.must3r_schedule import offline_memory, online_memory, render_views
from pano3d.types import Views
from tests.doors import must3r as door

GOLDEN = Path(__file__).parents[1] / "golden" / "must3r"
CONFIG = json.loads((GOLDEN / "config.json").read_text())
INPUTS = load_file(GOLDEN / "inputs.safetensors")
OUTPUTS = load_file(GOLDEN / "outputs.safetensors")
WEIGHTS = load_file(GOLDEN / "weights.safetensors")
BATCH2 = [
    tuple(
        source[f"batch2.{name}.{view}"]
        for source, name in zip((OUTPUTS, OUTPUTS, INPUTS), ("enc.tokens", "enc.pos", "true_shape"))
    )
    for view in range(4)
]


def state_dict(part: str, scales: Sequence[Sequence[Any]] = ()) -> dict[str, Tensor]:
    state = {}
    for name, value in WEIGHTS.items():
        if name.startswith(f"{part}."):
            name = name.removeprefix(f"{part}.")
            for text, factor in scales:
                value = value * factor if text in name else value
            state[name] = value
    return state


def build(scenario: Mapping[str, Any] = MappingProxyType({})) -> door.Must3rDoor:
    parts = ("encoder", "decoder")
    configs = [CONFIG[part] | scenario.get(part, {}) for part in parts]
    return door.build(*configs, *(state_dict(part, scenario.get("scale", {}).get(part, [])) for part in parts))


def assert_close(actual: Tensor, expected: Tensor, name: str, tolerance: float = 3e-5) -> None:
    """Tighter than the recorded tolerance of 1e-4: float32 rounding is below 6e-6, other CPUs may add to it."""
    assert actual.shape == expected.shape, name
    error = (actual - expected).abs().max().item() / max(1.0, expected.abs().max().item())
    assert error <= tolerance, f"{name}: {error:.2e}"


def groups_of(encoded: list[tuple[Tensor, Tensor, Tensor]], groups: list[list[int]]) -> list[list[Tensor]]:
    return [[torch.stack([encoded[view][part] for view in group], dim=1) for group in groups] for part in range(3)]


@pytest.mark.parametrize("scenario", CONFIG["scenarios"], ids=lambda scenario: scenario["name"])
@torch.no_grad()
def test_scenario(scenario: dict[str, Any]) -> None:
    name = scenario["name"]
    source = "landscape" if name.startswith("landscape") else name
    model = build(scenario)
    encoded = []
    for view in range(len(scenario["view_shapes"])):
        shape = INPUTS[f"{source}.true_shape.{view}"]
        tokens, positions = model.encode(INPUTS[f"{source}.img.{view}"].float().div(255).sub(0.5).div(0.5), shape)
        encoded.append((tokens, positions, shape))
        if f"{name}.enc.tokens.{view}" in OUTPUTS:
            assert_close(tokens, OUTPUTS[f"{name}.enc.tokens.{view}"], f"{name}.enc.tokens.{view}")
            assert torch.equal(positions, OUTPUTS[f"{name}.enc.pos.{view}"])
    memories: dict[str | None, Any] = {None: None}
    num_compared = 0
    for step in scenario["steps"]:
        prefix = f"{name}.{step['name']}"
        memory, raw, features = model.decode(
            *groups_of(encoded, step["groups"]), memories[step["mem_in"]], step["render"]
        )
        actual: dict[str, Tensor] = {}
        if not step["render"]:
            memories[step["mem_out"]] = memory
            actual |= {f"mem.{layer}": value for layer, value in enumerate(model.memory_values(memory))}
            assert torch.equal(model.memory_labels(memory), OUTPUTS[f"{prefix}.mem_labels"])
        for group, (maps, levels) in enumerate(zip(raw, features)):
            actual |= {f"raw.{group}": maps, f"raw_sub.{group}": maps[..., ::5, ::7, :]}
            actual |= {f"feats.{level}.{group}": value for level, value in enumerate(levels)}
            actual[f"feats.last.{group}"] = levels[-1]
            points = model.postprocess(maps, "norm_exp", False)
            actual |= {f"{key}.{group}": value[:, :, ::5, ::7] for key, value in points.items()}
        for key, value in actual.items():
            if f"{prefix}.{key}" in OUTPUTS:
                assert_close(value, OUTPUTS[f"{prefix}.{key}"], f"{prefix}.{key}")
                num_compared += 1
    assert num_compared >= 2 * len(scenario["steps"])


@torch.no_grad()
def test_backbone_at_inference() -> None:
    """RGB in [0, 1] in, pointmaps out: the same as the recorded calls of the `landscape` scenario, one by one."""
    model = Must3r(Must3rConfig.from_constructor(CONFIG["encoder"], CONFIG["decoder"])).eval()
    model.encoder.load_state_dict(state_dict("encoder"))
    model.decoder.load_state_dict(state_dict("decoder"))
    images = torch.stack([INPUTS[f"landscape.img.{view}"] for view in range(4)], dim=1).float() / 255
    output = model(Views(images))
    assert_close(output.points_world[:, :, ::5, ::7], OUTPUTS["landscape.render.pts3d.0"], "points_world")
    assert_close(output.points_camera[:, :, ::5, ::7], OUTPUTS["landscape.render.pts3d_local.0"], "points_camera")
    assert_close(output.confidence[:, :, ::5, ::7], OUTPUTS["landscape.render.conf.0"], "confidence")
    assert_close(output.encoder_tokens, OUTPUTS["landscape.render.feats.0.0"], "encoder_tokens")
    assert_close(output.decoder_tokens, OUTPUTS["landscape.render.feats.3.0"], "decoder_tokens")


@pytest.mark.parametrize(("scale", "key"), [(1.0, "rope.f0_1"), (0.5, "rope.f0_half")])
def test_rope(scale: float, key: str) -> None:
    assert_close(build().rope(INPUTS["rope.tokens"], INPUTS["rope.pos"], scale), OUTPUTS[key], key, 1e-6)


@pytest.mark.parametrize("activation", ["norm_exp", "linear"])
def test_postprocess(activation: str) -> None:
    named = build().postprocess(INPUTS["post.raw"], activation, activation == "norm_exp")
    expected = {key for key in OUTPUTS if key.startswith(f"post.{activation}.")}
    assert {f"post.{activation}.{key}" for key in named} == expected
    for key, value in named.items():
        assert_close(value, OUTPUTS[f"post.{activation}.{key}"], key)


@pytest.mark.parametrize(
    ("tag", "blocks"),
    [
        ("causal", [[0, 1, 2, 3]]),
        ("causal_blocks", [[0, 1], [2, 3]]),
        ("causal_drop_temp", [[0, 1], [2, 3]]),
        ("causal_drop_perm", [[0, 1], [2, 3]]),
    ],
)
@torch.no_grad()
def test_causal(tag: str, blocks: list[list[int]]) -> None:
    model = build()

    def recorded(call: int) -> list[tuple[Tensor, Tensor]] | None:
        stem = f"{tag}.dropout_call{call}"
        drops = [OUTPUTS[f"{stem}.drop.{i}"] for i in range(4) if f"{stem}.drop.{i}" in OUTPUTS]
        return [(drop, OUTPUTS[f"{stem}.keep.{i}"]) for i, drop in enumerate(drops)] or None

    memory = None
    for block, views in enumerate(blocks):
        memory, raw = model.causal(*groups_of(BATCH2, [views]), memory, recorded(block))
        assert memory is not None
        assert_close(raw[0][..., ::5, ::7, :], OUTPUTS[f"{tag}.block{block}.raw_sub"], f"{tag}.block{block}.raw")
        assert torch.equal(model.memory_labels(memory), OUTPUTS[f"{tag}.block{block}.mem_labels"])
        for layer in (0, 2):
            assert_close(
                model.memory_values(memory)[layer], OUTPUTS[f"{tag}.block{block}.mem.{layer}"], f"{tag} memory {layer}"
            )
    _, raw = model.causal(*groups_of(BATCH2, [[0, 1, 2, 3]]), memory, recorded(len(blocks)), render=True)
    assert_close(raw[0][..., ::5, ::7, :], OUTPUTS[f"{tag}.render.raw_sub"], f"{tag}.render")


def test_gradients() -> None:
    model = build()
    memory, first = model.causal(*groups_of(BATCH2, [[0, 1, 2]]), None, None)
    _, second = model.causal(*groups_of(BATCH2, [[0, 1, 2, 3]]), memory, None, render=True)

    def weight(maps: Tensor) -> Tensor:
        return torch.cos(0.37 * torch.arange(maps.numel(), dtype=torch.float64)).float().reshape(maps.shape)

    loss = (first[0] * weight(first[0])).mean() + (second[0] * weight(second[0])).mean()
    loss.backward()
    assert_close(loss.detach().reshape(1), OUTPUTS["grad.loss"], "loss", 1e-6)
    parameters = dict(model.decoder.named_parameters())
    names = [key.removeprefix("grad.param.") for key in OUTPUTS if key.startswith("grad.param.")]
    assert names
    for name in names:
        gradient, expected = parameters[name].grad, OUTPUTS[f"grad.param.{name}"]
        assert gradient is not None
        assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max(), name


@pytest.mark.parametrize("tag", CONFIG["losses"])
def test_loss(tag: str) -> None:
    keys = ("camera_pose", "pts3d", "valid_mask", "sky_mask", "is_metric_scale")
    truth = [{key: INPUTS[f"loss.gt.{view}.{key}"] for key in keys} for view in range(3)]
    raw = INPUTS["loss.raw"].clone().requires_grad_()
    loss = build().loss(raw, truth, **CONFIG["losses"][tag])
    loss.backward()
    assert raw.grad is not None
    assert_close(loss.detach().reshape(1), OUTPUTS[f"loss.{tag}.value"], tag, 1e-6)
    expected = OUTPUTS[f"loss.{tag}.grad_raw"]
    assert (raw.grad - expected).abs().max() <= 3e-5 * expected.abs().max(), tag


def video_views(model: door.Must3rDoor) -> list[ViewGroup]:
    views = []
    for view in range(CONFIG["sequence"]["n"]):
        image = INPUTS[f"video.img.{view}"].float().div(255).sub(0.5).div(0.5)
        tokens, positions = model.encode(image, INPUTS[f"video.true_shape.{view}"])
        views.append(ViewGroup(tokens[:, None], positions[0], (48, 64)))
    return views


def assert_memory(memory: Memory, tag: str) -> None:
    assert memory.labels.tolist() == OUTPUTS[f"{tag}.mem_labels"][0].tolist()
    for layer in (0, 2):
        assert_close(memory.values[layer], OUTPUTS[f"{tag}.mem.{layer}"], f"{tag} memory {layer}")


def assert_maps(passes: list[GroupPass], key: str) -> None:
    maps = torch.cat([one.raw for one in passes], dim=1)[0]
    assert_close(maps[:, ::5, ::7], OUTPUTS[key], key)


@pytest.mark.parametrize(("tag", "refinements"), [("offline", 0), ("offline_ref1", 1)])
@torch.no_grad()
def test_offline_schedule(tag: str, refinements: int) -> None:
    model = build()
    views = video_views(model)
    chunks = CONFIG["sequence"]["off"]
    passes, memory = offline_memory(model.decoder, views[: sum(chunks)], refinements=refinements, chunks=chunks)
    assert_maps(passes, f"{tag}.first_pass.raw_sub")
    assert_memory(memory, tag)
    assert_maps(render_views(model.decoder, views, memory), f"{tag}.render.raw_sub")
    assert_maps(render_views(model.decoder, views, memory, chunk=3), f"{tag}.render.raw_sub")


@pytest.mark.parametrize(
    ("tag", "local_context", "refinements"), [("video", 2, 0), ("video_ref1", 2, 1), ("video_ctx0", 0, 0)]
)
@torch.no_grad()
def test_online_schedule(tag: str, local_context: int, refinements: int) -> None:
    model = build()
    passes, memory = online_memory(
        model.decoder,
        video_views(model),
        lambda number, _: number % CONFIG["sequence"]["every"] == 0,
        local_context=local_context,
        refinements=refinements,
    )
    assert_maps(passes, f"{tag}.raw_sub")
    assert_memory(memory, tag)
