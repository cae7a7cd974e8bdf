"""View sampling: connected by overlap, seeded, and defined on the edges."""

import numpy as np
import pytest

from pano3d.data.sampling import sample_connected_views, spread_views
from pano3d.types import DataError


def chain(count):
    """View i overlaps only its neighbours i-1 and i+1."""
    index = np.arange(count)
    return (np.abs(index[:, None] - index[None]) <= 1).astype(np.float16) * 0.5


@pytest.mark.parametrize("seed", range(20))
def test_a_chain_gives_a_run_of_neighbours(seed):
    views = sample_connected_views(chain(12), 5, np.random.default_rng(seed))
    assert len(set(views)) == 5
    assert max(views) - min(views) == 4  # connected in a chain means consecutive


def test_overlap_must_hold_in_both_directions():
    overlap = np.eye(3, dtype=np.float16)
    overlap[0, 1] = overlap[0, 2] = 0.9  # 0 sees 1 and 2, they do not see 0
    overlap[1, 0], overlap[2, 0] = 0.05, 0.3
    for seed in range(20):
        views = list(sample_connected_views(overlap, 2, np.random.default_rng(seed), minimum_overlap=0.2))
        if views[0] == 0:
            assert 1 not in views


def test_falls_back_to_the_best_connected_view():
    overlap = np.full((3, 3), 0.01, np.float16)
    assert len(set(sample_connected_views(overlap, 3, np.random.default_rng(0)))) == 3


def test_repeats_views_when_there_are_too_few():
    views = sample_connected_views(chain(2), 5, np.random.default_rng(0))
    assert len(views) == 5
    assert set(views) == {0, 1}


def test_same_seed_same_views():
    draws = [sample_connected_views(chain(30), 8, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*draws)


def test_no_views():
    with pytest.raises(DataError, match="from a scene with 0"):
        sample_connected_views(np.zeros((0, 0), np.float16), 2, np.random.default_rng(0))


def test_spread():
    np.testing.assert_array_equal(spread_views(9, 3), [0, 4, 8])
    np.testing.assert_array_equal(spread_views(3, 8), [0, 1, 2])
