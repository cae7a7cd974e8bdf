from __future__ import annotations

import numpy as np
import pytest

from pano3d.metrics.instance_ap import (
    AP_THRESHOLDS,
    Examples,
    average_precision,
    instance_ap,
    instance_examples,
    overlaps_from_labels,
    overlaps_from_masks,
)
from pano3d.types import DataError


def scene(spans: list[tuple[int, int]], scores: list[float], classes: list[int] | None = None):
    """600 points: instance 1 = 0..199, instance 2 = 200..399, small instance 3 = 400..449, void from 450."""
    true = np.zeros(600, int)
    true[:200], true[200:400], true[400:450] = 1, 2, 3
    masks = np.zeros((len(spans), 600), bool)
    for mask, (start, stop) in zip(masks, spans):
        mask[start:stop] = True
    return overlaps_from_masks(masks, np.array(classes or [0] * len(spans), int), np.array(scores), true, true * 0)


def ap50(overlaps) -> float:
    return instance_ap([instance_examples(overlaps, 1)], 1).ap50


def test_thresholds_are_the_benchmarks() -> None:
    assert AP_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.25)


def test_one_of_two_found() -> None:
    # precision 1 at recall 1/2: area 1 * 1/2 * (1/2 - 0) + 1 * 1/2 * (1/2 - 0) = 1/2
    assert ap50(scene([(0, 200)], [0.9])) == pytest.approx(0.5)
    assert ap50(scene([(0, 200), (200, 400)], [0.9, 0.8])) == pytest.approx(1.0)


def test_iou_must_exceed_the_threshold() -> None:
    assert ap50(scene([(0, 100)], [0.9])) == 0  # IoU exactly 1/2
    assert ap50(scene([(0, 101)], [0.9])) > 0


def test_duplicate_is_a_false_alarm_with_the_lower_score() -> None:
    overlaps = scene([(0, 150), (0, 190)], [0.9, 0.5])
    examples = instance_examples(overlaps, 1)[0][0]
    assert sorted(zip(examples.score, examples.is_hit)) == [(0.5, False), (0.9, True)]
    assert examples.misses == 1


def test_small_predictions_and_predictions_on_void_or_small_truth_are_ignored() -> None:
    assert instance_examples(scene([(450, 549)], [0.9]), 1)[0][0].score == []  # 99 points
    assert instance_examples(scene([(450, 600)], [0.9]), 1)[0][0].score == []  # on void
    assert instance_examples(scene([(400, 520)], [0.9]), 1)[0][0].score == []  # on void and the small instance
    assert instance_examples(scene([(300, 500)], [0.9]), 1)[0][0].is_hit == [False]  # half on void, not more
    # 60 of 115 points on instance 2 (IoU 60/255), 55 excused: more than a quarter, less than half
    by_threshold = instance_examples(scene([(340, 455)], [0.9]), 1)
    assert by_threshold[AP_THRESHOLDS.index(0.25)][0].score == []
    assert by_threshold[AP_THRESHOLDS.index(0.5)][0].is_hit == [False]


def test_ignored_predictions_only_give_zero_and_no_truth_gives_nan() -> None:
    assert ap50(scene([(450, 600)], [0.9])) == 0
    assert ap50(scene([], [])) == 0
    nothing = overlaps_from_masks(
        np.ones((1, 300), bool), np.zeros(1, int), np.ones(1), np.zeros(300, int), np.zeros(300, int)
    )
    assert np.isnan(ap50(nothing))


def test_ties_count_together() -> None:
    tied = Examples([0.5, 0.5], [True, False], 0, True)
    # one point: precision 1/2, recall 1, and the end point: 1/2 * 1/2 * (1 - 0) + 1 * 1/2 * (1 - 0) = 3/4
    assert average_precision([tied]) == pytest.approx(0.75)


def test_pooling_is_concatenation() -> None:
    a, b = Examples([0.9, 0.2], [True, False], 1, True), Examples([0.5], [True], 0, True)
    both = Examples([0.9, 0.2, 0.5], [True, False, True], 1, True)
    assert average_precision([a, b]) == average_precision([both])


def test_label_maps_equal_masks() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 3000).repeat(2)
    segment = np.where(rng.random(6000) < 0.7, true, rng.integers(0, 6, 6000))
    classes, scores = np.zeros(5, int), rng.random(5)
    masks = segment == np.arange(1, 6)[:, None]
    from_masks = overlaps_from_masks(masks, classes, scores, true, true * 0)
    from_labels = overlaps_from_labels(segment, classes, scores, true, true * 0)
    np.testing.assert_array_equal(from_masks.intersection, from_labels.intersection)
    np.testing.assert_array_equal(from_masks.pred_void, from_labels.pred_void)


def test_bad_input() -> None:
    with pytest.raises(DataError, match="same scene"):
        overlaps_from_masks(np.ones((1, 3), bool), np.zeros(1, int), np.ones(1), np.ones(4, int), np.ones(4, int))
    with pytest.raises(DataError, match="ids >= 0"):
        overlaps_from_labels(np.ones(3, int), np.zeros(1, int), np.ones(1), -np.ones(3, int), np.zeros(3, int))
