"""Feature fusion: the gate, the sources, the shapes, the order of pixels."""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from pano3d.panoptic.fusion import FeatureFusion, FusionConfig, PixelShuffleUpscaler, gate_gradient
from pano3d.types import ConfigError
from tests.panoptic.scenes import backbone_output

CONFIG = FusionConfig(token_width=12, mask_width=6)


def fusion(config: FusionConfig = CONFIG) -> FeatureFusion:
    torch.manual_seed(0)
    return FeatureFusion(config, encoder_width=10, decoder_width=8)


def test_gate_keeps_the_value_and_scales_the_gradient() -> None:
    value = torch.tensor([1.0, -2.0], requires_grad=True)
    gated = gate_gradient(value, 0.1)
    torch.testing.assert_close(gated, value)
    (3 * gated.sum()).backward()
    torch.testing.assert_close(value.grad, torch.tensor([0.3, 0.3]))


@pytest.mark.parametrize("gate", [0.0, 0.1, 1.0])
def test_only_the_decoder_tokens_are_gated(gate: float) -> None:
    output = backbone_output(3, 8, 12)
    gradients = {}
    for factor in (gate, 1.0):
        leaves = replace(
            output,
            encoder_tokens=output.encoder_tokens.clone().requires_grad_(),
            decoder_tokens=output.decoder_tokens.clone().requires_grad_(),
        )
        tokens, features = fusion(replace(CONFIG, gradient_gate=factor))(leaves)
        (tokens.square().sum() + features.square().sum()).backward()
        zero = torch.zeros_like(output.decoder_tokens)
        decoder_gradient = zero if leaves.decoder_tokens.grad is None else leaves.decoder_tokens.grad
        gradients[factor] = (leaves.encoder_tokens.grad, decoder_gradient)
    torch.testing.assert_close(gradients[gate][0], gradients[1.0][0])
    torch.testing.assert_close(gradients[gate][1], gate * gradients[1.0][1])


@pytest.mark.parametrize("source", ["both", "encoder", "decoder"])
def test_sources(source: Literal["both", "encoder", "decoder"]) -> None:
    output = backbone_output(2, 8, 12)
    network = fusion(replace(CONFIG, source=source))
    tokens, features = network(output)
    assert tokens.shape == (1, 2, 6, 12)
    assert features.shape == (1, 2, 6, 8, 12)  # four times the 2x3 grid
    blind = replace(output, encoder_tokens=torch.zeros_like(output.encoder_tokens))
    deaf = replace(output, decoder_tokens=torch.zeros_like(output.decoder_tokens))
    assert torch.equal(network(blind)[0], tokens) == (source == "decoder")
    assert torch.equal(network(deaf)[0], tokens) == (source == "encoder")


def test_view_by_view_without_gradients_equals_all_at_once() -> None:
    output = backbone_output(3, 8, 12)
    network = fusion(replace(CONFIG, upscale_widths=(9, 7), upscale_factor=2, upscale_from="concatenated"))
    tokens, features = network(output)
    with torch.no_grad():
        lean_tokens, lean_features = network(output)
    assert features.shape[-2:] == (16, 24)
    torch.testing.assert_close(lean_tokens, tokens)
    torch.testing.assert_close(lean_features, features)


def test_a_token_paints_its_own_square() -> None:
    torch.manual_seed(0)
    upscaler = PixelShuffleUpscaler([5, 3], factor=4, hidden_factor=2)
    grid = torch.zeros(1, 2, 3, 5)
    base = upscaler(grid)
    grid[0, 1, 2] = 1.0
    changed = (upscaler(grid) - base).abs().sum(1)[0] > 0
    assert changed[4:, 8:].all()
    assert changed.sum() == 16


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="gradient_gate"):
        replace(CONFIG, gradient_gate=1.5)
    with pytest.raises(ConfigError, match="positive"):
        replace(CONFIG, mask_width=0)
