"""Who reads whom: plans by hand, and the statistics of memory dropout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pano3d.backbones.must3r_reading import (
    Reading,
    causal_plan,
    draw_kept,
    draw_survivors,
    mutual_plan,
    render_plan,
    survivors,
)


def read_by(plan: list[Reading], num_keys: int) -> list[list[int]]:
    """Keys seen by each reading, through `select` on a numbered source."""
    source = torch.arange(num_keys)[None, :, None]
    return [reading.select(source).flatten().tolist() for reading in plan]


def test_inference_updates() -> None:
    assert read_by(mutual_plan(0, [2]), 2) == [[0, 1]]  # alone: itself
    assert read_by(mutual_plan(0, [2, 2]), 4) == [[2, 3], [0, 1]]  # the initial pair: each other
    assert read_by(mutual_plan(3, [2]), 5) == [[0, 1, 2]]
    assert read_by(mutual_plan(1, [1, 2, 1]), 5) == [[0, 2, 3, 4], [0, 1, 4], [0, 1, 2, 3]]
    assert [reading.queries for reading in mutual_plan(1, [1, 2, 1])] == [(0, 1), (1, 3), (3, 4)]


def test_training_updates() -> None:
    assert read_by(causal_plan(0, [2]), 2) == [[0, 1]]
    assert read_by(causal_plan(0, [2, 1, 1]), 4) == [[2], [0, 1], [0, 1, 2]]
    assert read_by(causal_plan(2, [1, 1]), 4) == [[0, 1], [0, 1, 2]]
    hidden = [torch.tensor([1]), torch.tensor([0, 2, 3])]
    assert read_by(causal_plan(2, [1, 1], hidden), 4) == [[1], [0, 2]]  # never itself, whatever was kept


def test_rendering() -> None:
    assert read_by(render_plan(3, 5), 3) == [[0, 1, 2]]
    assert read_by(render_plan(3, 5, torch.tensor([0, 2])), 3) == [[0, 2]]
    assert [reading.end for reading in (*render_plan(3, 5), *render_plan(3, 5, torch.tensor([0, 1])))] == [3, 2]
    assert survivors(torch.tensor([1, 7]), 4).tolist() == [0, 2, 3]


def test_dropout_spares_the_reference_and_keeps_its_rate() -> None:
    kept = draw_survivors(10_000, 100, 0.3, torch.Generator().manual_seed(0))
    assert kept[:100].tolist() == list(range(100))
    assert kept.numel() == pytest.approx(100 + 0.7 * 9900, rel=0.02)
    assert torch.equal(kept, kept.unique())


def test_temporary_dropout_draws_afresh() -> None:
    kept = draw_kept(200, [50, 50], 50, 0.5, "temporary", torch.Generator().manual_seed(0))
    assert [int(indices.max()) < 200 + 50 * view for view, indices in enumerate(kept)] == [True, True]
    returned = set(kept[1].tolist()) - set(kept[0].tolist())
    assert any(index < 200 for index in returned)  # what one view missed the next may see


def test_permanent_dropout_only_loses() -> None:
    kept = draw_kept(200, [50, 50], 50, 0.5, "permanent", torch.Generator().manual_seed(0))
    assert len(kept) == 3
    assert kept[0].tolist() == list(range(200))

    def old(indices: Tensor, below: int) -> set[int]:
        return {index for index in indices.tolist() if index < below}

    assert old(kept[1], 200) < old(kept[0], 200)
    assert old(kept[2], 250) < old(kept[1], 250)
    assert any(index >= 250 for index in kept[2].tolist())
    assert all(set(range(50)) <= set(indices.tolist()) for indices in kept)
