"""Small attention in bfloat16 with gradients takes another way on a CPU: the same numbers, and only there."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from pano3d.backbones.attention import attend


def operands(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, tokens, 16).to(dtype).requires_grad_() for tokens in (20, 30, 30)]


def is_fused(dtype: torch.dtype, copies: int = 1) -> bool:
    tensors = [x.detach().repeat(copies, 1, 1, 1).requires_grad_() for x in operands(dtype)]
    with profile(activities=[ProfilerActivity.CPU]) as record:
        attend(*tensors)
    return any("flash_attention" in event.key for event in record.key_averages())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_and_its_gradients_are_those_in_double_precision(dtype: torch.dtype) -> None:
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


def test_only_training_in_bfloat16_leaves_the_fused_kernel() -> None:
    assert is_fused(torch.float32)
    assert not is_fused(torch.bfloat16)
    assert not is_fused(torch.bfloat16, copies=1165)  # 2 * 3 * 20 * 30 pairs each: 4,194,000
    assert is_fused(torch.bfloat16, copies=1166)
    with torch.no_grad():
        assert is_fused(torch.bfloat16)
