from __future__ import annotations

import numpy as np
import pytest

from pano3d.metrics.confidence import (
    REMOVED,
    aggregate_confidence,
    aligned_point_error,
    ause,
    border_distance,
    compare_scene,
    confidence_rank,
    normalised_confidence,
    object_centres,
    silhouettes,
    sparsification,
    spearman,
)
from pano3d.types import DataError


def test_rank_is_free_of_scale_and_shares_ties() -> None:
    confidence = np.array([[[1.0, 5.0, 5.0, 100.0]]])
    np.testing.assert_allclose(confidence_rank(confidence), [[[0, 0.5, 0.5, 1]]])
    np.testing.assert_allclose(confidence_rank(np.log(confidence)), confidence_rank(confidence))
    assert confidence_rank(np.random.default_rng(0).normal(size=99)).mean() == pytest.approx(0.5)
    with pytest.raises(DataError, match="finite"):
        confidence_rank(np.array([1.0, np.inf]))


def test_both_scales_normalise_to_the_logistic() -> None:
    raw = np.linspace(-4, 4, 9)
    np.testing.assert_allclose(
        normalised_confidence(1 + np.exp(raw), "confidence"), normalised_confidence(raw, "conf_logits")
    )
    with pytest.raises(DataError, match="confidence_kind"):
        normalised_confidence(raw, "confidence")


def test_silhouette_is_two_pixels_on_each_side() -> None:
    row = np.zeros((1, 3, 12), int)
    row[..., :6], row[..., 6:] = 1, 2
    assert silhouettes(row)[0, 1].astype(int).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    assert not silhouettes(np.ones((2, 4, 4), int)).any()
    assert np.isinf(border_distance(np.ones((1, 4, 4), int))).all()


def test_centre_is_the_farthest_tenth_per_view_and_segment() -> None:
    ids = np.zeros((2, 30, 30), int)
    ids[:, 5:25, 5:25] = 7  # 400 pixels: 40 in the centre of the square
    ids[1] = 7  # no border in this view: no centre
    centre = object_centres(ids)
    assert centre[0].sum() == 40
    assert not centre[1].any()
    ys, xs = np.nonzero(centre[0])
    assert np.abs(ys - 14.5).max() < 5
    assert np.abs(xs - 14.5).max() < 5
    assert not object_centres(np.zeros((1, 4, 4), int)).any()


def test_centre_by_slow_twin() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4, (2, 5, 6)).repeat(4, 1).repeat(4, 2)
    distance, centre = border_distance(ids), object_centres(ids)
    for view in range(2):
        for segment in (1, 2, 3):
            inside = ids[view] == segment
            chosen = centre[view] & inside
            assert chosen.sum() == np.ceil(0.1 * inside.sum())
            assert distance[view][chosen].min() >= distance[view][inside & ~chosen].max()


def test_ause_is_zero_for_the_oracle_and_grows_with_disorder() -> None:
    rng = np.random.default_rng(0)
    error = rng.exponential(size=2000)
    shuffled, reversed_ = ause(rng.permutation(error), error), ause(error, error)
    assert ause(-error, error) == pytest.approx(0)
    assert 0.2 < shuffled < reversed_
    # without any order the remaining mean stays the mean
    np.testing.assert_allclose(sparsification(np.ones(2000), error), 1)
    assert np.isnan(ause(np.ones(3), np.zeros(3)))


def test_sparsification_by_hand() -> None:
    # errors 1, 2, 3, 4 with confidences 4, 3, 2, 1: after removing half, 1 and 2 are left: 1.5 / 2.5
    curve = sparsification(np.array([4.0, 3, 2, 1]), np.array([1.0, 2, 3, 4]))
    assert curve[np.argmin(np.abs(REMOVED - 0.5))] == pytest.approx(0.6)
    assert curve[0] == 1


def test_spearman_by_hand() -> None:
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 15])) == pytest.approx(0.5)
    assert spearman(np.array([1.0, 2]), np.array([5.0, 4])) == pytest.approx(-1)
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_point_error_ignores_the_frame() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(2, 5, 6, 3))
    valid = rng.random((2, 5, 6)) > 0.2
    error = aligned_point_error(3 * true + 1, true, valid)
    assert np.nanmax(error) < 1e-9
    np.testing.assert_array_equal(np.isfinite(error), valid)
    assert np.isnan(aligned_point_error(true, true, np.zeros_like(valid))).all()


def scene(name: str, lift: float, control: bool = False):
    rng = np.random.default_rng(ord(name))
    frozen = rng.normal(size=(2, 10, 12))
    region = np.zeros((2, 10, 12), bool)
    region[:, :4] = True
    confidence = {"frozen": frozen, "joint": frozen + lift * region}
    if control:
        confidence["control"] = frozen + 0.5 * lift * region
    error = {model: np.exp(-value) for model, value in confidence.items()}
    return compare_scene(name, confidence, "conf_logits", error, {"ambiguous": region, "shadow": region & False})


def test_raised_confidence_is_seen_where_it_was_raised() -> None:
    values = scene("a", 3.0, control=True).values
    assert values["change_ambiguous"] > 0.2
    assert 0 < values["change_ambiguous_over_control"] < values["change_ambiguous"]
    assert values["raised_ambiguous"] > 0.9
    assert values["pixels_ambiguous"] == pytest.approx(0.4)
    assert values["spearman_joint"] == pytest.approx(-1)
    assert values["ause_joint"] == pytest.approx(0, abs=1e-9)
    assert np.isnan(values["change_shadow"])
    same = scene("a", 0.0).values
    assert same["change_ambiguous"] == 0
    assert same["raised_ambiguous"] == 0  # where nothing moved, nothing rose


def test_aggregation_has_intervals_and_a_seed() -> None:
    scenes = [scene(name, lift) for name, lift in (("a", 0.5), ("b", 1.0), ("c", 2.0))]
    first, again = aggregate_confidence(scenes, 3), aggregate_confidence(scenes, 3)
    assert (
        first.values["change_ambiguous_low"] < first.values["change_ambiguous"] < first.values["change_ambiguous_high"]
    )
    np.testing.assert_equal(first.values, again.values)
    assert first.values["change_ambiguous"] == pytest.approx(np.mean([s.values["change_ambiguous"] for s in scenes]))
    assert np.isnan(first.values["change_shadow_low"])
    assert first.curves["joint"].shape == REMOVED.shape


def test_bad_input() -> None:
    maps = {"frozen": np.zeros((1, 2, 2)), "joint": np.zeros((1, 2, 2))}
    with pytest.raises(DataError, match="frozen and joint"):
        compare_scene("a", {"joint": maps["joint"]}, "conf_logits", {"joint": maps["joint"]}, {})
    with pytest.raises(DataError, match="same scene"):
        compare_scene("a", maps, "conf_logits", maps | {"joint": np.zeros((1, 2, 3))}, {})
    with pytest.raises(DataError, match="no scenes"):
        aggregate_confidence([], 0)
    with pytest.raises(DataError, match="different models"):
        aggregate_confidence([scene("a", 1.0), scene("b", 1.0, control=True)], 0)
