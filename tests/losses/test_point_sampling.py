"""Sampling by hand, against masks per segment, and its commuting with the dot product."""

import pytest
import torch

from pano3d.losses.point_sampling import (
    UniformPoints,
    sample_at_points,
    sample_own_segment,
    sample_segments,
    select_uncertain,
)
from pano3d.types import VOID


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_values_by_hand() -> None:
    # Pixel centres of a 1x2 map lie at x = 1/4 and 3/4; half way between them is the mean, the border fades to zero.
    maps = torch.tensor([[[[2.0, 4.0]]]])
    points = torch.tensor([[[0.25, 0.5], [0.5, 0.5], [1.0, 0.5]]])
    torch.testing.assert_close(sample_at_points(maps, points), torch.tensor([[[2.0, 3.0, 2.0]]]))


def test_sampling_commutes_with_the_dot_product() -> None:
    g = generator()
    features, queries = torch.randn(3, 8, 6, 9, generator=g), torch.randn(5, 8, generator=g)
    points = torch.rand(3, 40, 2, generator=g)
    late = sample_at_points(torch.einsum("qd,vdhw->vqhw", queries, features), points)
    early = queries @ sample_at_points(features, points)
    torch.testing.assert_close(early, late, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ignore_void", [True, False])
def test_segments_equal_sampled_masks(ignore_void: bool) -> None:
    g = generator()
    index = torch.randint(VOID, 4, (2, 6, 9), generator=g)
    points = torch.rand(2, 50, 2, generator=g)
    labels, weight = sample_segments(index, points, 4, ignore_void)
    masks = torch.stack([index == m for m in range(VOID, 4)], 1).float()
    sampled = sample_at_points(masks, points)
    if ignore_void:
        labelled = 1 - sampled[:, 0] / sampled.sum(1)
        torch.testing.assert_close(weight, labelled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(labels * labelled[:, None], sampled[:, 1:], rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(labels, sampled[:, 1:])
        assert (weight == 1).all()
    for segment in range(4):
        own, own_weight = sample_own_segment(index, points, torch.tensor([segment, segment]), ignore_void)
        torch.testing.assert_close(own, labels[:, segment])
        torch.testing.assert_close(own_weight, weight)


def test_uncertain_points_are_those_near_zero() -> None:
    candidates = torch.rand(1, 4, 2, generator=generator())
    selected = select_uncertain(torch.tensor([[3.0, -0.1, 0.5, -2.0]]), candidates, keep=2)
    torch.testing.assert_close(selected[0], candidates[0, [1, 2]])


def test_uniform_points_follow_their_generator() -> None:
    first = UniformPoints(generator(1), torch.device("cpu")).matching(3, (2, 4, 500))
    again = UniformPoints(generator(1), torch.device("cpu")).matching(3, (2, 4, 500))
    assert first.shape == (1, 2, 4, 500, 2)
    torch.testing.assert_close(first, again)
    assert first.min() >= 0
    assert first.max() <= 1
    assert (first.mean((0, 1, 2, 3)) - 0.5).abs().max() < 0.02
