"""The linear layer of the backbones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_WIDE = 512
_MANY = 20480  # entries, up to which PyTorch has a convolution of its own instead of oneDNN's


class Linear(nn.Linear):
    """`nn.Linear` whose wide products are faster on a CPU at inference, see `linear`."""

    def forward(self, input: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        return linear(input, self.weight, self.bias)


def linear(
    tokens: Float[Tensor, "... c"], weight: Float[Tensor, "d c"], bias: Float[Tensor, " d"] | None
) -> Float[Tensor, "... d"]:
    """`tokens @ weight.T + bias`.

    PyTorch gives float32 products on a CPU to MKL, which leaves the wide registers of other makers' processors unused,
    and convolutions to oneDNN, which does not: here a wide product is a convolution with a kernel of one pixel. With
    gradients, below 512 channels or for few tokens that gains nothing.
    """
    if not _is_faster_as_convolution(tokens, weight):
        return F.linear(tokens, weight, bias)
    row = tokens.reshape(1, 1, -1, tokens.shape[-1]).permute(0, 3, 1, 2)  # channels last: nothing is moved
    return F.conv2d(row, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*tokens.shape[:-1], -1)


def _is_faster_as_convolution(tokens: Tensor, weight: Tensor) -> bool:
    return (
        tokens.device.type == "cpu"
        and tokens.dtype == weight.dtype == torch.float32
        and min(weight.shape) >= _WIDE
        and tokens.numel() > _MANY
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()
        and torch.get_num_threads() > 1  # alone, PyTorch takes its own convolution too
    )
