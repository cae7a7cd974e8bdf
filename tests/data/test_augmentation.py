"""Augmentation leaves geometry alone, or moves camera and pixels together."""

import numpy as np
import pytest

from pano3d.data.augmentation import (
    RECOLOR_GAIN,
    AugmentationConfig,
    augment_colors,
    flatten_segments,
    mirror_camera,
    recolor_segments,
)
from pano3d.types import ConfigError

NONE = AugmentationConfig(*[0.0] * 11)
ALL = AugmentationConfig(0.4, 0.4, 0.4, 0.2, 0.05, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
COLORS = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), dtype=np.uint8)


def test_all_switched_off_changes_nothing():
    np.testing.assert_allclose(augment_colors(COLORS, NONE, np.random.default_rng(0)), COLORS / 255.0, atol=1e-6)


def test_stays_in_range_and_repeats_with_its_seed():
    for seed in range(5):
        images = augment_colors(COLORS, ALL, np.random.default_rng(seed))
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1
        np.testing.assert_array_equal(images, augment_colors(COLORS, ALL, np.random.default_rng(seed)))


def test_a_segment_is_dyed_alike_in_all_views_and_void_stays():
    segment_id = np.zeros((2, 12, 16), np.uint16)
    segment_id[:, :, 4:], segment_id[1, 6:, 10:] = 3, 7
    colors = np.full((2, 12, 16, 3), 100, np.uint8)
    dyed = recolor_segments(colors, segment_id, np.random.default_rng(0))
    assert (dyed[segment_id == 0] == 100).all()
    found = {segment: np.unique(dyed[segment_id == segment], axis=0) for segment in (3, 7)}
    assert all(len(one) == 1 for one in found.values())
    assert (found[3] != found[7]).any()
    several = np.stack([recolor_segments(colors, segment_id, np.random.default_rng(i))[0, 0, 8] for i in range(200)])
    assert 100 / RECOLOR_GAIN - 1 <= several.min() < 70
    assert 150 < several.max() <= 100 * RECOLOR_GAIN + 1
    assert len(np.unique(several @ (1, 256, 65536))) > 150  # each channel by itself
    bright = recolor_segments(np.full_like(colors, 250), segment_id, np.random.default_rng(0))
    assert bright[segment_id > 0].max() == 255  # no wrapping round


def test_a_flattened_segment_draws_near_its_mean_colour_in_all_views():
    segment_id = np.zeros((2, 12, 16), np.uint16)
    segment_id[:, :, 4:], segment_id[1, 6:, 10:] = 3, 7
    for share in (0.0, 0.25, 0.7, 1.0):
        flat = flatten_segments(COLORS, segment_id, share)
        np.testing.assert_array_equal(flat[segment_id == 0], COLORS[segment_id == 0])
        for segment in (3, 7):
            before, after = (colors[segment_id == segment].astype(float) for colors in (COLORS, flat))
            np.testing.assert_allclose(after, before + share * (before.mean(axis=0) - before), atol=0.51)


def test_mirrored_camera_sees_the_mirrored_point():
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation * np.sign(np.linalg.det(rotation)), generator.normal(size=3)
    intrinsics = np.array([[30.0, 0.5, 15.0], [0, 31, 11], [0, 0, 1]])
    point_camera = np.array([0.3, -0.2, 2.0])
    point_scan = pose[:3, :3] @ point_camera + pose[:3, 3]
    pixel = (intrinsics @ point_camera / point_camera[2])[:2]

    flipped, mirrored_pose = mirror_camera(intrinsics, pose, width=32)
    assert np.linalg.det(mirrored_pose[:3, :3]) == pytest.approx(1)
    seen = np.linalg.inv(mirrored_pose) @ np.array([-point_scan[0], *point_scan[1:], 1.0])
    mirrored_pixel = (flipped @ seen[:3] / seen[2])[:2]
    np.testing.assert_allclose(mirrored_pixel, [31 - pixel[0], pixel[1]])


def test_strengths_are_checked():
    with pytest.raises(ConfigError, match=r"augmentation\.noise is 2"):
        AugmentationConfig(0.0, 0.0, 0.0, 0.0, 2.0, *[0.0] * 6)
    with pytest.raises(ConfigError, match=r"augmentation\.recolor is -1"):
        AugmentationConfig(*[0.0] * 8, recolor=-1.0, flatten=0.0, pattern=0.0)
