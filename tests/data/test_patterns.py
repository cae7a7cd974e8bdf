"""A pattern is paint on a surface: the same in all views, on half of the segments, fading with distance."""

import numpy as np

from pano3d.data.patterns import GAINS, PERIODS, pattern_segments

INTRINSICS = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
SHAPE = (48, 64)


def _wall(distance: float, shift: float = 0.0, color: int = 150) -> dict[str, np.ndarray]:
    """A camera `distance` in front of a wall in the plane y = 0 of the scan, moved along it by `shift`; 16 segments."""
    pose = np.array([[1.0, 0, 0, shift], [0, 0, 1, -distance], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    x = (np.arange(SHAPE[1]) - 31.5) * distance / 60 + shift
    segment = 1 + (np.floor(x / 0.15).astype(int) % 16)
    return {
        "colors": np.full((*SHAPE, 3), color, np.uint8),
        "segment_id": np.broadcast_to(segment, SHAPE).astype(np.uint16),
        "depth": np.full(SHAPE, distance, np.float32),
        "intrinsics": INTRINSICS,
        "scan_from_camera": pose,
    }


def _views(*views: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.stack([view[name] for view in views]) for name in views[0]}


def _painted(views: dict[str, np.ndarray], seed: int) -> np.ndarray:
    return pattern_segments(**views, generator=np.random.default_rng(seed))


def test_a_surface_carries_its_pattern_from_view_to_view():
    # 0.5 m along a wall 3 m away are 10 pixels: both cameras see the same points.
    views = _views(_wall(3.0), _wall(3.0, shift=0.5))
    for seed in range(10):
        first, second = _painted(views, seed).astype(int)
        assert np.abs(first[:, 10:] - second[:, :-10]).max() <= 1  # by 1 where a rounding differs
        assert first.std() > 5
    nearer = _views(_wall(3.0), _wall(1.5))
    first, second = (view.astype(int) for view in _painted(nearer, 0))
    # The middle half of the far view fills the near one, twice as large.
    blocks = second.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    far = first[12:36, 16:48]
    assert np.corrcoef(blocks.ravel(), far.ravel())[0, 1] > 0.9


def test_half_of_the_segments_are_covered_and_void_never():
    view = _views(_wall(3.0))
    view["segment_id"] = view["segment_id"].copy()
    view["segment_id"][:, :10] = 0
    shares = []
    for seed in range(40):
        painted = _painted(view, seed)
        assert (painted[:, :10] == 150).all()
        changed = [(painted[view["segment_id"] == segment] != 150).any() for segment in range(1, 17)]
        shares.append(np.mean(changed))
    assert 0.4 < np.mean(shares) < 0.6
    assert len(set(shares)) > 1


def test_gains_stay_within_their_range_and_reach_its_ends():
    view = _views(_wall(2.0, color=100))
    painted = np.stack([_painted(view, seed) for seed in range(60)])
    assert 100 * GAINS[0] - 1 <= painted.min() < 55
    assert 140 < painted.max() <= 100 * GAINS[1] + 1
    assert len(np.unique(painted.reshape(-1, 3) @ (1, 256, 65536))) > 1000  # channels differ
    view["colors"][:] = 250
    bright = np.stack([_painted(view, seed) for seed in range(20)])
    assert bright[bright < 250].min() >= 250 * GAINS[0] - 1
    assert bright.max() == 255  # no wrapping round


def test_patterns_vary_and_repeat_with_their_seed():
    view = _views(_wall(3.0))
    view["segment_id"] = np.ones((1, *SHAPE), np.uint16)
    drawn = [_painted(view, seed) for seed in range(30)]
    for seed, one in enumerate(drawn):
        np.testing.assert_array_equal(one, _painted(view, seed))
    assert len({one.tobytes() for one in drawn}) > 10  # those not covered are alike


def test_a_pattern_finer_than_a_pixel_is_a_plain_tint():
    far = _views(_wall(200.0))  # a pixel is 3.3 m wide
    assert 200 / INTRINSICS[0, 0] > 4 * PERIODS[1]
    for seed in range(10):
        painted = _painted(far, seed)
        for segment in range(1, 17):
            assert len(np.unique(painted[far["segment_id"] == segment], axis=0)) == 1
        tints = np.unique(painted[painted.min(axis=-1) != 150], axis=0)
        assert len(tints) > 2  # every segment has its own


def test_missing_depth_is_bridged_and_a_view_without_depth_keeps_its_colours():
    whole = _views(_wall(3.0), _wall(3.0, shift=0.5))
    holes = {name: values.copy() for name, values in whole.items()}
    holes["depth"][0, 20:23, 30:33] = 0
    holes["depth"][1] = 0
    for seed in range(5):
        np.testing.assert_array_equal(_painted(holes, seed)[0], _painted(whole, seed)[0])
        assert (_painted(holes, seed)[1] == 150).all()


def test_what_is_given_is_not_written_to():
    view = _views(_wall(3.0))
    kept = {name: values.copy() for name, values in view.items()}
    _painted(view, 0)
    for name, values in kept.items():
        np.testing.assert_array_equal(view[name], values)
