from __future__ import annotations

import numpy as np
import pytest

from pano3d.metrics.semantic import confusion_matrix, filtered_miou, semantic_score, topk_confusion
from pano3d.types import VOID, DataError


def test_iou_by_hand() -> None:
    # class 0: 3 true, 2 hit, 1 false alarm -> 2/4; class 1: 2 true, 1 hit, 0 false alarms -> 1/2; class 2 nowhere
    true = np.array([0, 0, 0, 1, 1, VOID])
    pred = np.array([0, 0, VOID, 1, 0, 2])
    score = semantic_score(confusion_matrix(pred, true, 3))
    np.testing.assert_allclose(score.iou, [0.5, 0.5, np.nan])
    np.testing.assert_allclose(score.accuracy, [2 / 3, 0.5, np.nan])
    assert score.miou == 0.5
    assert score.unpredicted_share == pytest.approx(0.2)


def test_permuting_classes_permutes_the_scores() -> None:
    rng = np.random.default_rng(0)
    true, pred = rng.integers(-1, 5, 500), rng.integers(-1, 5, 500)
    order = np.append(rng.permutation(5), VOID)
    base = semantic_score(confusion_matrix(pred, true, 5))
    moved = semantic_score(confusion_matrix(order[pred], order[true], 5))
    np.testing.assert_allclose(moved.iou[order[:5]], base.iou)
    assert moved.miou == pytest.approx(base.miou)


def test_topk_takes_the_first_hit() -> None:
    true = np.array([[0, 1], [2, VOID], [0, VOID]])
    pred = np.array([[2, 1], [1, 2], [1, 2]])
    top1, top2 = (topk_confusion(pred, true, 3, k) for k in (1, 2))
    np.testing.assert_array_equal(top1[:, :3], [[0, 1, 1], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(top2[:, :3], [[0, 1, 0], [0, 1, 0], [0, 0, 1]])


def test_filtered_miou_counts_a_frequent_hole_as_a_class_of_zero() -> None:
    true = np.repeat([1, 2], 50)
    pred = true.copy()
    pred[:10] = 0
    assert filtered_miou(pred, true, 3) == pytest.approx((0.8 + 1 + 0) / 3)


def test_edges_are_defined() -> None:
    void = np.full(4, VOID)
    assert np.isnan(semantic_score(confusion_matrix(void, void, 3)).miou)
    assert np.isnan(filtered_miou(np.zeros(4, int), np.zeros(4, int), 3))
    with pytest.raises(DataError, match="same scene"):
        confusion_matrix(void[:2], void, 3)
    with pytest.raises(DataError, match="label space"):
        confusion_matrix(void + 9, void, 3)
    with pytest.raises(DataError, match="guesses"):
        topk_confusion(np.zeros((4, 1), int), np.zeros((4, 3), int), 3, 3)
