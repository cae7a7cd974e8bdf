"""Rotations from free 3x3 matrices, with a derivative that stays finite."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def closest_rotation(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation nearest to each matrix in the Frobenius norm; never a mirror image.

    The derivative is the closed form of the projection, which needs sums of singular values only: equal ones, as at
    the identity, are harmless (the derivative of a general SVD divides by their difference).

    Computed in float32 at least, whatever the autocast dtype or that of `matrix`: products of 8 bits are no rotation.

    Source: orthogonal Procrustes, A = U S V', R = U diag(1, 1, det(U V')) V'.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        rotation: Tensor = _ClosestRotation.apply(matrix.to(torch.promote_types(matrix.dtype, torch.float32)))
    return rotation


class _ClosestRotation(torch.autograd.Function):
    """With p the signed singular values and A = R V diag(p) V', dR = R V (M / (p_i + p_j)) V', M the skew part."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        left, singular, right = torch.linalg.svd(matrix)
        sign = torch.ones_like(singular)
        sign[..., 2] = torch.det(left @ right).sign()
        rotation = (left * sign[..., None, :]) @ right
        ctx.save_for_backward(rotation, right.mT, singular * sign)
        return rotation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        rotation, basis, signed = ctx.saved_tensors
        total = signed[..., :, None] + signed[..., None, :]
        # Opposite smallest singular values leave the rotation undefined: bound its derivative there.
        smallest = 1e-6 * signed[..., :1, None].clamp(min=torch.finfo(signed.dtype).tiny)
        total = torch.where(total.abs() < smallest, smallest, total)
        core = basis.mT @ rotation.mT @ grad @ basis
        skew = (core - core.mT) / total
        return rotation @ basis @ skew @ basis.mT
