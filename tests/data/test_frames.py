"""Resizing keeps a camera and its pixels together; the cache forgets the oldest frame first."""

import numpy as np
import pytest

from pano3d.data.archive import write_scene
from pano3d.data.frames import FrameCache, fit_frame

from .scenes import make_scene


def project(intrinsics, point):
    u = intrinsics @ point
    return u[:2] / u[2]


@pytest.mark.parametrize(("width", "height"), [(64, 48), (16, 12), (126, 98), (30, 40)])
def test_the_camera_follows_the_pixels(width, height):
    """The pixel of a 3D point, found in the resized ids, is where the resized camera projects it."""
    frame = make_scene().frames[0]
    rows, columns = np.nonzero(frame.segment_id == 2)
    center = np.array([columns.mean(), rows.mean()])  # of the box, in pixels
    ray = np.linalg.inv(frame.intrinsics) @ np.array([*center, 1.0])
    fitted = fit_frame(frame, width, height)
    assert fitted.color.shape == (height, width, 3)
    rows, columns = np.nonzero(fitted.segment_id == 2)
    if width / height == 32 / 24:  # otherwise the crop may cut the box
        np.testing.assert_allclose(project(fitted.intrinsics, ray), [columns.mean(), rows.mean()], atol=0.51)


def test_pixels_stay_square():
    fitted = fit_frame(make_scene().frames[0], 126, 98)
    assert fitted.intrinsics[0, 0] == pytest.approx(fitted.intrinsics[1, 1], rel=0.02)


def test_depth_and_ids_are_never_averaged():
    frame = make_scene().frames[0]
    fitted = fit_frame(frame, 17, 13)
    assert set(np.unique(fitted.depth_mm)) <= set(np.unique(frame.depth_mm))
    assert set(np.unique(fitted.segment_id)) <= {0, 1, 2}


def test_same_size_is_untouched():
    frame = make_scene().frames[0]
    assert fit_frame(frame, 32, 24) is frame


def test_cache_stays_within_its_budget(tmp_path):
    write_scene(tmp_path / "a.zip", make_scene(views=3))
    one_frame = 32 * 24 * (3 + 2 + 2)
    cache = FrameCache([tmp_path / "a.zip"], 32, 24, budget_bytes=2 * one_frame)
    first = cache.frame(0, 0)
    assert cache.frame(0, 0) is first
    cache.frame(0, 1)
    cache.frame(0, 2)  # pushes frame 0 out
    assert cache.frame(0, 0) is not first
    np.testing.assert_array_equal(cache.frame(0, 0).color, first.color)
