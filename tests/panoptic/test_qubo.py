"""Annealing against trying every set."""

from itertools import product

import numpy as np
import pytest
import torch

from pano3d.panoptic.qubo import AnnealingConfig, anneal, energy, overlap_matrix
from pano3d.types import ConfigError


@pytest.mark.parametrize("seed", range(4))
def test_reaches_the_exhaustive_optimum(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    masks = (torch.randn(11, 2, 6, 8, generator=g) * 3).sigmoid()
    matrix = overlap_matrix(lambda v, q: masks[q, v], 2, torch.arange(11)).double().numpy()
    every = np.array(list(product([0.0, 1.0], repeat=11)))
    best = every[energy(matrix, every, 1e-3).argmin()]
    np.testing.assert_array_equal(anneal(matrix, AnnealingConfig(flips=2000, restarts=8), seed), best > 0)


def test_overlap_matrix_by_hand() -> None:
    # Two masks over two pixels: (1, 0.5) and (0.25, 1). Areas 1.5 and 1.25; overlap 0.25 + 0.5; divided by 2 pixels.
    masks = torch.tensor([[[[1.0, 0.5]]], [[[0.25, 1.0]]]])
    matrix = overlap_matrix(lambda v, q: masks[q, v], 1, torch.arange(2), penalty=2.0)
    torch.testing.assert_close(matrix, torch.tensor([[-0.75, 0.75], [0.75, -0.625]]))


def test_impossible_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="annealing"):
        AnnealingConfig(start_temperature=0.1, end_temperature=1.0)
