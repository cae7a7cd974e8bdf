"""Matching against trying every assignment, and the sums against plain formulas."""

import math
from itertools import permutations

import pytest
import torch
from torch.nn import functional

from pano3d.losses.matching import MaskCostSums, assign_queries, class_cost
from pano3d.types import TrainingError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(3))
def test_assignment_is_the_cheapest_of_all(seed: int) -> None:
    costs = torch.randn(2, 2, 5, 4, generator=generator(seed))
    present = torch.tensor([[True, True, True, True], [True, False, True, True]])
    query = assign_queries(costs, present, torch.ones(2, 2, dtype=torch.bool))
    for layer in range(2):
        for scene in range(2):
            columns = present[scene].nonzero()[:, 0].tolist()
            best = min(
                sum(costs[layer, scene, q, m].item() for q, m in zip(rows, columns))
                for rows in permutations(range(5), len(columns))
            )
            found = sum(costs[layer, scene, query[layer, scene, m], m].item() for m in columns)
            assert found == pytest.approx(best)
            assert len(set(query[layer, scene, columns].tolist())) == len(columns)
    assert (query[:, 1, 1] == -1).all()


def test_more_segments_than_queries_keeps_the_cheapest() -> None:
    costs = torch.tensor([[[[5.0, 1.0, 3.0]]]])
    query = assign_queries(costs, torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool))
    assert query.tolist() == [[[-1, 0, -1]]]


def test_sums_over_views_equal_all_points_at_once() -> None:
    g = generator()
    logits, weight = torch.randn(3, 6, 20, generator=g), torch.rand(3, 20, generator=g)
    labels = torch.rand(3, 4, 20, generator=g)
    sums = MaskCostSums()
    for view in range(3):
        sums.add(logits[view], labels[view], weight[view])
    bce, dice = sums.bce_and_dice()
    for q in range(6):
        for m in range(4):
            raw = functional.binary_cross_entropy_with_logits(logits[:, q], labels[:, m], reduction="none")
            assert bce[q, m].item() == pytest.approx(((raw * weight).sum() / weight.sum()).item(), rel=1e-4)
            p, t = logits[:, q].sigmoid() * weight, labels[:, m]
            plain = 1 - (2 * (p * t).sum() + 1) / (p.sum() + (t * weight).sum() + 1)
            assert dice[q, m].item() == pytest.approx(plain.item(), rel=1e-4)


def test_class_cost_by_hand() -> None:
    # Softmax of (0, ln 3) is (1/4, 3/4).
    logits = torch.tensor([[0.0, math.log(3.0)]])
    torch.testing.assert_close(class_cost(logits, torch.tensor([1, 0])), torch.tensor([[-0.75, -0.25]]))


def test_what_is_not_finite_stops() -> None:
    present, healthy = torch.ones(2, 1, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
    costs = torch.zeros(1, 2, 2, 1)
    costs[0, 1, 0, 0] = float("inf")
    with pytest.raises(TrainingError, match="layer 0, scene 1"):
        assign_queries(costs, present, healthy)
    with pytest.raises(TrainingError, match="layer 0, scene 0"):
        assign_queries(torch.zeros(1, 2, 2, 1), present, torch.tensor([[False, True]]))
    with pytest.raises(TrainingError, match="one view"):
        MaskCostSums().bce_and_dice()
