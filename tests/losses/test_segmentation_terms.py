"""Mask and class terms by hand."""

import math
from typing import Literal

import pytest
import torch

from pano3d.losses.segmentation_terms import focal_class_loss, mask_losses, softmax_class_loss


def test_mask_terms_by_hand() -> None:
    # Two points, logits 0 (probability 1/2), truth 1 and 0: BCE ln 2; dice 1 - (2 * 1/2 + 1) / (1 + 1 + 1) = 1/3.
    logits, labels = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    bce, dice = mask_losses(logits, labels, torch.ones(1, 1, 2))
    torch.testing.assert_close(bce, torch.tensor([math.log(2)]))
    torch.testing.assert_close(dice, torch.tensor([1 / 3]))


@pytest.mark.parametrize("dice", ["per_view", "pooled"])
def test_view_without_a_labelled_point_does_not_exist(dice: Literal["per_view", "pooled"]) -> None:
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 3, 10, generator=g), torch.rand(4, 3, 10, generator=g)
    weight = torch.rand(4, 3, 10, generator=g)
    weight[:, 1] = 0
    with_view = mask_losses(logits, labels, weight, dice)
    without = mask_losses(logits[:, [0, 2]], labels[:, [0, 2]], weight[:, [0, 2]], dice)
    torch.testing.assert_close(with_view, without)


def test_softmax_by_hand() -> None:
    # Two queries with equal logits over (class 0, class 1, no object): ln 3 each, whatever the weights.
    wanted = torch.tensor([[[0, 2]]])
    both = torch.ones(1, 2, dtype=torch.bool)
    loss = softmax_class_loss(torch.zeros(1, 1, 2, 3), wanted, both, 0.1)
    torch.testing.assert_close(loss, torch.tensor([math.log(3)]))
    # Class 1 is not allowed: ln 2 each.
    loss = softmax_class_loss(torch.zeros(1, 1, 2, 3), wanted, torch.tensor([[True, False]]), 0.1)
    torch.testing.assert_close(loss, torch.tensor([math.log(2)]))
    # The unmatched query pays ln(1 + 2e) against ln(2 + e) - 1 of the matched one, at a tenth of its weight.
    logits = torch.tensor([[[[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]]])
    matched, unmatched = math.log(2 + math.e) - 1, math.log(1 + 2 * math.e)
    expected = (matched + 0.1 * unmatched) / 1.1
    torch.testing.assert_close(softmax_class_loss(logits, wanted, both, 0.1), torch.tensor([expected]))


def test_focal_by_hand() -> None:
    # Logit 0: probability 1/2, entropy ln 2, (1/2)^2; weight 1/4 for the true class, 3/4 for the other.
    loss = focal_class_loss(torch.zeros(1, 1, 1, 2), torch.tensor([[[1]]]), torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.tensor([math.log(2) / 4]))
    none = focal_class_loss(torch.zeros(1, 1, 1, 2), torch.tensor([[[2]]]), torch.tensor([[True, False]]))
    torch.testing.assert_close(none, torch.tensor([0.75 * math.log(2) / 4]))
