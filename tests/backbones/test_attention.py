"""Attention in bfloat16 with gradients takes another way on a CPU: the same numbers, and only there."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from pano3d.backbones import attention
from pano3d.backbones.attention import attend


def operands(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, tokens, 16).to(dtype).requires_grad_() for tokens in (20, 30, 30)]


def is_fused(tensors: list[torch.Tensor]) -> bool:
    with profile(activities=[ProfilerActivity.CPU]) as record:
        attend(*tensors)
    return any("flash_attention" in event.key for event in record.key_averages())


@pytest.mark.parametrize(
    ("dtype", "cached_pairs"),
    [(torch.float32, 3600), (torch.bfloat16, 3600), (torch.bfloat16, 3599), (torch.bfloat16, 599)],
    ids=["fused", "all heads at once", "one head at a time", "fused in bfloat16"],
)
def test_attention_and_its_gradients_are_those_in_double_precision(
    dtype: torch.dtype, cached_pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_CACHED_PAIRS", cached_pairs)  # of 2 * 3 heads with 20 * 30 each
    narrow = operands(dtype)
    wide = [x.detach().double().requires_grad_() for x in narrow]
    found, expected = attend(*narrow), functional.scaled_dot_product_attention(*wide)
    weight = torch.randn_like(expected)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert found.dtype == dtype
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    ours = torch.autograd.grad(found, narrow, weight.to(dtype))
    for gradient, one in zip(ours, torch.autograd.grad(expected, wide, weight.to(dtype).double()), strict=True):
        assert (gradient - one).abs().max() <= tolerance * one.abs().max()


def test_only_training_in_bfloat16_leaves_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_fused(operands(torch.float32))
    assert not is_fused(operands(torch.bfloat16))
    with torch.no_grad():
        assert is_fused(operands(torch.bfloat16))
    monkeypatch.setattr(attention, "_CACHED_PAIRS", 600)
    assert not is_fused(operands(torch.bfloat16))
    monkeypatch.setattr(attention, "_CACHED_PAIRS", 599)
    assert is_fused(operands(torch.bfloat16))


def test_heads_of_one_at_a_time_need_no_more_than_their_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_CACHED_PAIRS", 600)
    largest: list[int] = []
    plainly = attention._attend_plainly
    monkeypatch.setattr(
        attention,
        "_attend_plainly",
        lambda q, k, v: (largest.append(q[..., 0].numel() * k.shape[-2]), plainly(q, k, v))[1],
    )
    attend(*operands(torch.bfloat16))
    assert largest == [600] * 6
