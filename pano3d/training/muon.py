"""Muon with its matrix products in the precision that the device multiplies fast."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with Nesterov momentum and AdamW's update size, matrices of one shape in one product.

    PyTorch's own multiplies in bfloat16, one matrix after the other. A CPU without instructions for it is many times
    slower at that than in float32, one with them twice as fast (`pano3d bench --full --only training_step`): it
    uses bfloat16 only where the network, too, is trained in it. A GPU always does.

    Args:
        groups: of parameters, each with "lr" and "weight_decay".
        precision: of the products on a CPU.

    Source: Jordan et al. 2024; update scale of Liu et al., arXiv 2502.16982.
    """

    def __init__(self, groups: list[dict[str, object]], precision: torch.dtype = torch.float32) -> None:
        super().__init__(groups, adjust_lr_fn="match_rms_adamw")
        self._precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, parameters in by_shape.items():
                directions = orthogonalize(torch.stack(self._momenta(parameters, group["momentum"])), self._precision)
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(directions), alpha=-rate)

    def _momenta(self, parameters: list[Tensor], momentum: float) -> list[Tensor]:
        gradients, means = [], []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
            gradients.append(parameter.grad)
            means.append(state["momentum_buffer"])
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, means, momentum))


def orthogonalize(
    matrices: Float[Tensor, "n rows columns"], precision: torch.dtype = torch.float32
) -> Float[Tensor, "n rows columns"]:
    """Each matrix with its singular values brought near 1 by Newton-Schulz iterations.

    To 0.68 to 1.2 where they are above a 500th of the matrix' norm; smaller ones grow 3.4 times an iteration.
    """
    a, b, c = COEFFICIENTS
    flipped = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if flipped else matrices
    found = found / torch.linalg.matrix_norm(found, keepdim=True).clamp(min=1e-7)
    found = found.to(torch.bfloat16 if found.is_cuda else precision)
    for _ in range(ITERATIONS):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return (found.mT if flipped else found).to(matrices)
