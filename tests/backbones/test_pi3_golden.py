"""Pi3 against the public code: outputs, every intermediate, the small pieces, and the full-size parameter list."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pano3d.backbones.pi3_heads import rotation_from_rows
from pano3d.backbones.pi3_images import pi3_image_size
from pano3d.backbones.rope import grid_positions, rope_table, rotate
from pano3d.geometry.edges import depth_edges, normal_edges, point_normals
from pano3d.geometry.rays import fit_pinhole
from tests.doors import pi3 as door

GOLDEN = Path(__file__).parents[1] / "golden" / "pi3"
CONFIG = json.loads((GOLDEN / "config.json").read_text())
INPUTS, OUTPUTS = load_file(GOLDEN / "inputs.safetensors"), load_file(GOLDEN / "outputs.safetensors")
UNITS = load_file(GOLDEN / "units.safetensors")
CASES = ("a", "b")


@pytest.fixture(scope="module")
def network() -> door.Pi3Door:
    network = door.factory(CONFIG)
    network.load_state_dict(load_file(GOLDEN / "model.safetensors"), strict=True)
    return network.eval()


def assert_close(ours: Tensor, reference: Tensor, tolerance: float = 5e-6) -> None:
    assert ours.shape == reference.shape
    bound = tolerance * max(1.0, reference.abs().max().item())
    assert (ours - reference).abs().max().item() <= bound


@pytest.mark.parametrize("case", CASES)
def test_outputs(network: door.Pi3Door, case: str) -> None:
    with torch.no_grad():
        outputs = network(INPUTS[f"{case}.imgs"])
    for name, value in outputs.items():
        assert_close(value, OUTPUTS[f"{case}.{name}"])


@pytest.mark.parametrize("case", CASES)
def test_intermediates(network: door.Pi3Door, case: str) -> None:
    seen: dict[str, Tensor] = {}
    modules = {
        "encoder.patch_embed": network.encoder.patch_embed,
        "encoder.x_norm_patchtokens": network.encoder,
        "point_head.raw": network.point_head,
        "camera_head.fc_t": network.camera_head.fc_t,
        "camera_head.fc_rot": network.camera_head.fc_rot,
        **{f"encoder.block.{i}": block for i, block in enumerate(network.encoder.blocks)},
        **{f"{task}_decoder": getattr(network, f"{task}_decoder") for task in ("point", "conf", "camera")},
    }
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out.detach()))
        for name, module in modules.items()
    ]
    # Blocks across views run in two halves, so that the halves are observed at their inputs: the next block's norm.
    for i, block in enumerate(network.decoder):
        hooks.append(
            block.norm1.register_forward_hook(
                lambda _, args, __, name=f"decoder.input.{i}": seen.__setitem__(name, args[0].detach())
            )
        )
    hooks.append(
        network.point_decoder.projects.register_forward_hook(
            lambda _, args, __: seen.__setitem__("decoder.concat", args[0].detach())
        )
    )
    try:
        network(INPUTS[f"{case}.imgs"])
    finally:
        for hook in hooks:
            hook.remove()
    for name, value in seen.items():
        if name.startswith("decoder.input."):
            index = int(name.rpartition(".")[2]) - 1
            if index >= 0:
                reference = OUTPUTS[f"{case}.decoder.block.{index}"]
                assert_close(value.reshape(reference.shape), reference)
        else:
            assert_close(value, OUTPUTS[f"{case}.{name}"])
    patch = network.patch_size
    grid = tuple(side // patch for side in INPUTS[f"{case}.imgs"].shape[-2:])
    reference_positions = OUTPUTS[f"{case}.decoder.pos"]
    assert torch.equal(network.token_positions(grid).expand_as(reference_positions), reference_positions)


def test_full_size_names_and_shapes() -> None:
    with torch.device("meta"):
        network = door.factory({})
    expected = json.loads((GOLDEN / "state_dict_full.json").read_text())
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in network.parameters()) == 958_696_732


@pytest.mark.parametrize("case", ["rope", "rope64"])
def test_rope(case: str) -> None:
    tokens = UNITS[f"{case}.tokens"]
    assert_close(rotate(tokens, rope_table(UNITS[f"{case}.positions"], tokens.shape[-1])), UNITS[f"{case}.out"])


def test_patch_positions() -> None:
    assert torch.equal(grid_positions(2, 3)[None], UNITS["positions.h2w3"])


def test_rotations() -> None:
    assert_close(rotation_from_rows(UNITS["svd.raw"]), UNITS["svd.rot"])


@pytest.mark.parametrize(("grid", "step"), [((3, 4), 1), ((5, 2), 1), ((12, 16), 1), ((37, 37), 37)])
def test_position_table(network: door.Pi3Door, grid: tuple[int, int], step: int) -> None:
    table = network.encoder.position_table(grid)[:, ::step]
    assert_close(table, UNITS[f"pos_embed.{grid[0]}x{grid[1]}"])


def test_edges() -> None:
    depth, mask, points = UNITS["edge.depth"], UNITS["edge.mask"].bool(), UNITS["edge.points"]
    normals, has_normal = point_normals(points, mask)
    assert_close(normals, UNITS["edge.normals"])
    depth_edge = depth_edges(depth, mask, relative=0.03)
    normal_edge = normal_edges(normals, has_normal, math.radians(5))
    for name, ours in {
        "depth_edge_rtol0.03": depth_edges(depth, relative=0.03),
        "depth_edge_rtol0.03_masked": depth_edge,
        "depth_edge_atol0.1": depth_edges(depth, absolute=0.1),
        "normals_mask": has_normal,
        "normal_edge_5deg": normal_edge,
        "depth_normal_edge": depth_edge & normal_edge,
    }.items():
        assert torch.equal(ours, UNITS[f"edge.{name}"].bool()), name


def test_intrinsics() -> None:
    assert_close(fit_pinhole(UNITS["edge.points"]), UNITS["intrinsics.free"])
    assert_close(fit_pinhole(UNITS["edge.points"], centred=True), UNITS["intrinsics.centred"])


def test_image_sizes() -> None:
    table = json.loads((GOLDEN / "resize_table.json").read_text())
    for row in table["table"]:
        assert list(pi3_image_size(*row["input_wh"])) == row["output_wh"]
        assert list(pi3_image_size(*row["input_wh"], pixel_limit=100000)) == row["output_wh_limit_100000"]
