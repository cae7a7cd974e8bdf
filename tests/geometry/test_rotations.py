"""The closest rotation and its derivative."""

from __future__ import annotations

import pytest
import torch

from pano3d.geometry.rotations import closest_rotation


def test_is_a_rotation_and_keeps_rotations() -> None:
    matrix = torch.randn(50, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotation = closest_rotation(matrix)
    identity = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(rotation @ rotation.mT, identity.expand_as(matrix))
    assert (torch.det(rotation) > 0).all()
    torch.testing.assert_close(closest_rotation(rotation), rotation)


def test_gradient_is_that_of_the_projection() -> None:
    matrix = torch.randn(8, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(closest_rotation, (matrix.requires_grad_(),))


def test_gradient_at_the_identity_is_finite() -> None:
    # All singular values are equal: the derivative of a general SVD does not exist here, the projection's does.
    matrix = torch.eye(3, dtype=torch.float64)[None].requires_grad_()
    assert torch.autograd.gradcheck(closest_rotation, (matrix,))


def test_gradient_stays_finite_where_the_rotation_is_not_unique() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1.0, -1.0]))[None].requires_grad_()
    closest_rotation(matrix)[0, 0, 1].backward()
    assert matrix.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_a_rotation_in_float32(dtype: torch.dtype) -> None:
    matrix = torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(2))
    expected = closest_rotation(matrix.to(dtype).float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(closest_rotation(matrix.to(dtype)), expected)
        assert torch.equal(closest_rotation(matrix.to(dtype).float()), expected)
    assert expected.dtype == torch.float32
    torch.testing.assert_close(expected @ expected.mT, torch.eye(3).expand(8, 3, 3), rtol=0, atol=1e-5)
