"""The recorded values notice what is easily got wrong: each change below makes a golden test of its backbone fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pano3d.backbones import attention, dinov2_block, must3r_encoder, pi3, pi3_heads
from pano3d.backbones.must3r_decoder import Must3rDecoder
from pano3d.backbones.rope import RopeTable, grid_positions, rotate
from tests.backbones import test_must3r_golden as must3r_golden
from tests.backbones import test_pi3_golden as pi3_golden
from tests.doors.must3r import Must3rDoor
from tests.doors.pi3 import Pi3Door

Patch = pytest.MonkeyPatch


def norms(model: nn.Module, eps: float) -> list[nn.LayerNorm]:
    return [layer for layer in model.modules() if isinstance(layer, nn.LayerNorm) and layer.eps == eps]


def set_eps(model: nn.Module, old: float, new: float) -> None:
    chosen = norms(model, old)
    assert chosen
    for layer in chosen:
        layer.eps = new


def rotate_neighbours(tokens: Tensor, table: RopeTable) -> Tensor:
    """Pairs channels 2j and 2j + 1 instead of j and j + half: the other common convention."""
    half = tokens.unflatten(-1, (2, tokens.shape[-1] // 2))
    to_halves = torch.cat((half[..., 0::2], half[..., 1::2]), dim=-1).flatten(-2)
    turned = rotate(to_halves, table).unflatten(-1, (2, 2, tokens.shape[-1] // 4))
    return torch.stack((turned[..., 0, :], turned[..., 1, :]), dim=-1).flatten(-3)


def rotate_backwards(tokens: Tensor, table: RopeTable) -> Tensor:
    return rotate(tokens, RopeTable(table.cos, -table.sin))


def columns_first(height: int, width: int, device: torch.device | None = None) -> Tensor:
    return grid_positions(height, width, device).flip(-1)


def gelu_by_tanh(monkeypatch: Patch) -> None:
    exact = functional.gelu
    monkeypatch.setattr(functional, "gelu", lambda x: exact(x, approximate="tanh"))


# Pi3: what is changed on the network, given the means to change functions too.
def swap_within_and_across(network: Pi3Door) -> None:
    for index in range(0, len(network.decoder), 2):
        network.decoder[index], network.decoder[index + 1] = network.decoder[index + 1], network.decoder[index]


def patches_from_zero(monkeypatch: Patch) -> None:
    def positions(self: pi3.Pi3, grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
        registers = torch.zeros(self.config.decoder.num_registers, 2, dtype=torch.int64)
        return torch.cat((registers, grid_positions(*grid)))

    monkeypatch.setattr(pi3.Pi3, "token_positions", positions)


def zero_(parameter: Tensor) -> None:
    with torch.no_grad():
        parameter.zero_()


def drop_query_key_norms(network: Pi3Door) -> None:
    for block in network.decoder:
        block.attn.q_norm = block.attn.k_norm = nn.Identity()


def triples_as_columns(monkeypatch: Patch) -> None:
    right = pi3_heads.rotation_from_rows
    monkeypatch.setattr(pi3_heads, "rotation_from_rows", lambda raw: right(raw).mT)


def plain_bicubic(monkeypatch: Patch) -> None:
    right = functional.interpolate
    monkeypatch.setattr(functional, "interpolate", lambda *a, **k: right(*a, **(k | {"antialias": False})))


PI3: dict[str, Callable[[Pi3Door, Patch], None]] = {
    "eps 1e-5 in the blocks": lambda n, m: set_eps(n, 1e-6, 1e-5),
    "eps 1e-6 on queries and keys": lambda n, m: set_eps(n.decoder, 1e-5, 1e-6),
    "no norm on queries and keys": lambda n, m: drop_query_key_norms(n),
    "rotary pairs of neighbours": lambda n, m: m.setattr(dinov2_block, "rotate", rotate_neighbours),
    "rotary angles backwards": lambda n, m: m.setattr(dinov2_block, "rotate", rotate_backwards),
    "rotary rows and columns exchanged": lambda n, m: m.setattr(pi3, "grid_positions", columns_first),
    "patches counted from 0": lambda n, m: patches_from_zero(m),
    "no registers in the decoder": lambda n, m: zero_(n.register_token),
    "no registers in the encoder": lambda n, m: zero_(n.encoder.register_tokens),
    "no class token": lambda n, m: zero_(n.encoder.cls_token),
    "position table without antialiasing": lambda n, m: plain_bicubic(m),
    "within and across exchanged": lambda n, m: swap_within_and_across(n),
    "images not normalised": lambda n, m: zero_(n.image_mean),
    "rotation from columns": lambda n, m: triples_as_columns(m),
    "GELU by tanh": lambda n, m: gelu_by_tanh(m),
}


@pytest.mark.parametrize("name", PI3)
def test_pi3_notices(name: str, monkeypatch: Patch) -> None:
    network = pi3_golden.door.factory(pi3_golden.CONFIG)
    network.load_state_dict(pi3_golden.load_file(pi3_golden.GOLDEN / "model.safetensors"), strict=True)
    network.eval()
    PI3[name](network, monkeypatch)
    with pytest.raises(AssertionError):
        pi3_golden.test_outputs(network, "a")


# MUSt3R: which scenario notices, and what is changed on the built network.
def deepest_output(monkeypatch: Patch) -> None:
    """Feedback from the last block's output instead of its input."""
    right = Must3rDecoder._entries

    def wrong(self: Must3rDecoder, inputs: list[Tensor]) -> list[Tensor]:
        own = self.blocks_dec[-1]
        moved = inputs[-1] + own.mlp(own.norm3(inputs[-1]))
        return [*right(self, [*inputs[:-1], moved])[:-1], right(self, inputs)[-1]]

    monkeypatch.setattr(Must3rDecoder, "_entries", wrong)


def feedback_for_the_last_layer_too(monkeypatch: Patch) -> None:
    right = Must3rDecoder._entries

    def wrong(self: Must3rDecoder, inputs: list[Tensor]) -> list[Tensor]:
        told = inputs[-1] + self.feedback_layer(self.feedback_norm(inputs[-1]))  # type: ignore[misc]
        return [*right(self, inputs)[:-1], right(self, [*inputs[:-1], told])[-1]]

    monkeypatch.setattr(Must3rDecoder, "_entries", wrong)


def no_reference(monkeypatch: Patch) -> None:
    right = Must3rDecoder._embed
    monkeypatch.setattr(Must3rDecoder, "_embed", lambda self, groups, is_first_call: right(self, groups, False))


def reference_kept_when_rendered(monkeypatch: Patch) -> None:
    right = Must3rDecoder._embed
    monkeypatch.setattr(Must3rDecoder, "_embed", lambda self, groups, is_first_call: right(self, groups, True))


def keys_without_their_norm(model: Must3rDoor) -> None:
    for block in model.decoder.blocks_dec:
        block.norm_y = block.norm2


MUST3R: dict[str, tuple[str, Callable[[Must3rDoor, Patch], None]]] = {
    "eps 1e-5 in the encoder": ("tiny_activations", lambda d, m: set_eps(d.encoder, 1e-6, 1e-5)),
    "eps 1e-5 in the decoder": ("tiny_activations", lambda d, m: set_eps(d.decoder, 1e-6, 1e-5)),
    "eps 1e-6 in the feedback": ("tiny_activations", lambda d, m: set_eps(d.decoder, 1e-5, 1e-6)),
    "rotary pairs of neighbours": ("landscape", lambda d, m: m.setattr(attention, "rotate", rotate_neighbours)),
    "rotary angles backwards": ("landscape", lambda d, m: m.setattr(attention, "rotate", rotate_backwards)),
    "rotary rows and columns exchanged": (
        "landscape",
        lambda d, m: m.setattr(must3r_encoder, "grid_positions", columns_first),
    ),
    "feedback from the output": ("landscape", lambda d, m: deepest_output(m)),
    "feedback for the last layer too": ("landscape", lambda d, m: feedback_for_the_last_layer_too(m)),
    "no reference view": ("landscape", lambda d, m: no_reference(m)),
    "reference kept when rendered": ("landscape", lambda d, m: reference_kept_when_rendered(m)),
    "memory through another norm": ("landscape", lambda d, m: keys_without_their_norm(d)),
    "GELU by tanh": ("landscape", lambda d, m: gelu_by_tanh(m)),
}


@pytest.mark.parametrize("name", MUST3R)
def test_must3r_notices(name: str, monkeypatch: Patch) -> None:
    scenario_name, change = MUST3R[name]
    scenario = next(one for one in must3r_golden.CONFIG["scenarios"] if one["name"] == scenario_name)
    model = must3r_golden.build(scenario)
    change(model, monkeypatch)
    monkeypatch.setattr(must3r_golden, "build", lambda scenario: model)
    with pytest.raises(AssertionError):
        must3r_golden.test_scenario(scenario)


@pytest.mark.parametrize("scenario_name", sorted({name for name, _ in MUST3R.values()}))
def test_must3r_unchanged_passes(scenario_name: str) -> None:
    """So that the failures above come from the changes."""
    must3r_golden.test_scenario(next(s for s in must3r_golden.CONFIG["scenarios"] if s["name"] == scenario_name))
