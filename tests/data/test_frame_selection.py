"""Choosing frames, on numbers a reader can follow."""

import numpy as np
import pytest

from pano3d.data.frame_selection import FrameSelection, laplacian_variance, seen_cells, select_frames
from pano3d.types import ConfigError

USABLE = np.array([0, 1, 3, 4, 5, 8, 9], np.int64)


def never(frame):
    raise AssertionError("was not to be asked")


def choose(kind, step, count, sharpness=never, places=never):
    return select_frames(FrameSelection(kind, step, count), USABLE, sharpness, places).tolist()


def test_every_third():
    assert choose("every", 3, 1) == [0, 4, 9]


def test_spread_over_the_recording():
    assert choose("spread", 1, 3) == [0, 4, 9]
    assert choose("spread", 1, 50) == USABLE.tolist()


def test_the_sharpest_of_each_window():
    sharp = {0: 1, 1: 5, 3: 2, 4: 9, 5: 3, 8: 1, 9: 1}
    assert choose("sharpest", 4, 1, sharp.__getitem__) == [1, 4, 8]  # windows 0-3, 4-7, 8-11; of equals the earlier


def test_coverage_takes_what_shows_most_that_is_new():
    shown = {0: [1, 2], 1: [1, 2, 3, 4], 3: [3, 4, 5], 4: [9], 5: [9], 8: [], 9: [1]}

    def places(frame):
        return np.array(shown[frame], np.int64)

    assert choose("coverage", 1, 10, places=places) == [1, 3, 4]
    assert choose("coverage", 1, 2, places=places) == [1, 3]
    assert choose("coverage", 2, 10, places=places) == [0, 3, 5]


def test_blur_lowers_sharpness():
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    smooth = np.full_like(picture, 128)
    assert laplacian_variance(picture) > 1000 > laplacian_variance(smooth) == 0


def test_cells_of_a_wall_two_metres_away():
    intrinsics = np.array([[40.0, 0, 40], [0, 40, 40], [0, 0, 1]])
    pose = np.eye(4)
    cells = seen_cells(np.full((81, 81), 2.05), intrinsics, pose)
    assert 100 <= len(cells) <= 121  # 11 x 11 samples over 4.1 m; neighbours may share a cell
    pose[0, 3] = 100.0
    assert not len(np.intersect1d(cells, seen_cells(np.full((81, 81), 2.05), intrinsics, pose)))
    assert not len(seen_cells(np.zeros((81, 81)), intrinsics, pose))


def test_refuses_what_chooses_nothing():
    with pytest.raises(ConfigError, match="must be 1 or more"):
        FrameSelection("every", 0, 1)
