"""The layer that takes wide products to oneDNN: the same numbers, and only where that is faster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from pano3d.backbones.linear import Linear, linear


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def operators(tokens: torch.Tensor, layer: torch.nn.Module) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as record:
        layer(tokens)
    return {event.key for event in record.key_averages()}


@pytest.mark.parametrize("shape", [(27,), (100,), (2, 30), (2, 3, 40)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_wide_products_are_the_same(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(768, 512, bias=with_bias)
    tokens = torch.randn(*shape, 768)
    with torch.no_grad():
        assert "aten::mkldnn_convolution" in operators(tokens, layer)
        found = layer(tokens)
    expected = functional.linear(tokens.double(), layer.weight.double(), layer.bias.double() if with_bias else None)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_parts_of_other_tensors_are_read_right() -> None:
    torch.manual_seed(0)
    tokens, weight = torch.randn(3, 40, 1024)[:, 1:, ::2], torch.randn(1200, 512)[::2]
    with torch.no_grad():
        found = linear(tokens, weight, None)
    torch.testing.assert_close(found, functional.linear(tokens, weight), rtol=1e-4, atol=1e-4)


def test_training_narrow_layers_and_few_tokens_keep_the_product() -> None:
    wide, narrow = torch.randn(100, 512), torch.randn(1000, 192)
    assert "aten::mkldnn_convolution" not in operators(wide, Linear(512, 512))
    with torch.no_grad():
        assert "aten::mkldnn_convolution" not in operators(narrow, Linear(192, 768))
        assert "aten::mkldnn_convolution" not in operators(wide, Linear(512, 192))
        assert "aten::convolution" not in operators(wide[:5], Linear(512, 512))
        assert Linear(512, 512)(wide[:0]).shape == (0, 512)
        torch.set_num_threads(1)
        assert "aten::convolution" not in operators(wide, Linear(512, 512))
        torch.set_num_threads(2)
        with torch.autocast("cpu", torch.bfloat16):
            assert Linear(512, 512)(wide).dtype == torch.bfloat16
