"""PQ by hand, against a slow twin, and its properties."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pano3d.metrics.panoptic_quality import annotated_counts, coco_counts, empty_counts, panoptic_quality, scene_counts
from pano3d.metrics.semantic import confusion_matrix, semantic_score
from pano3d.types import VOID, DataError

IS_THING = np.array([False, False, True, True, True])


def random_maps(seed: int, shape: tuple[int, ...] = (3, 24, 30)) -> tuple[np.ndarray, ...]:
    """Blocks of classes and instances with void, and a prediction that differs in some blocks."""
    rng = np.random.default_rng(seed)

    def blocks(low: int, high: int) -> np.ndarray:
        coarse = rng.integers(low, high, (shape[0], shape[1] // 6, shape[2] // 6))
        return coarse.repeat(6, 1).repeat(6, 2)

    true_class, true_instance = blocks(-1, 5), blocks(1, 4)
    redo = blocks(0, 4) == 0
    pred_class, pred_instance = np.where(redo, blocks(-1, 5), true_class), np.where(redo, blocks(1, 4), true_instance)
    shifted = np.roll(pred_class, 1, 2), np.roll(pred_instance, 1, 2)
    return (*shifted, true_class, true_instance)


def slow_scene(pred_class, pred_instance, true_class, true_instance, share, forgive):
    """Sets of pixels and plain loops: metrics.md section 1, read literally."""
    kept = [i for i in range(true_class.size) if true_class.flat[i] != VOID]
    rows = [[m.flat[i] for m in (pred_class, pred_instance, true_class, true_instance)] for i in kept]
    evaluated = []
    for c in range(len(IS_THING)):
        shares = [sum(r[k] == c for r in rows) / len(rows) for k in (0, 2)]
        if any(shares) and not any(0 < s < share for s in shares):
            evaluated.append(c)

    def segments(at: int) -> dict:
        found: dict = {}
        for i, r in enumerate(rows):
            c = r[at]
            key = "void" if c not in evaluated else (c, r[at + 1] if IS_THING[c] else 0)
            found.setdefault(key, set()).add(i)
        return found

    pred, true = segments(0), segments(2)
    pred_void, true_void = pred.pop("void", set()), true.pop("void", set())
    out = {}
    for c in evaluated:
        tp, iou_sum, hit_p, hit_g = 0, 0.0, set(), set()
        for kp, p in pred.items():
            for kg, g in true.items():
                if kp[0] == kg[0] == c:
                    union = len(p) - len(p & true_void) + len(g) - len(p & g)
                    union -= len(g & pred_void) if forgive else 0
                    if union and len(p & g) / union > 0.5:
                        tp, iou_sum = tp + 1, iou_sum + len(p & g) / union
                        hit_p.add(kp), hit_g.add(kg)
        fp = sum(k[0] == c and k not in hit_p and not 2 * len(p & true_void) > len(p) for k, p in pred.items())
        fn = sum(
            k[0] == c and k not in hit_g and not (forgive and 2 * len(g & pred_void) > len(g)) for k, g in true.items()
        )
        out[c] = (iou_sum, tp, fp, fn)
    return out


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("policy", "share"), [("scene", 0.0), ("scene", 0.12), ("scene_strict", 0.0)])
def test_scene_policy_equals_slow_twin(seed: int, policy: str, share: float) -> None:
    maps = random_maps(seed)
    counts = scene_counts(*maps, IS_THING, share, policy)
    expected = slow_scene(*maps, share, forgive=policy == "scene")
    assert np.flatnonzero(counts.evaluated).tolist() == sorted(expected)
    for c, (iou_sum, tp, fp, fn) in expected.items():
        assert counts.iou_sum[c] == pytest.approx(iou_sum, abs=1e-6)
        got = (counts.true_positive[c], counts.false_positive[c], counts.false_negative[c])
        assert got == (tp, fp, fn)


def test_coco_by_hand() -> None:
    # one image, 8 pixels; class 2 (thing): truth A = 0..3, B = 4..5, void 6..7
    true_instance = np.array([[1, 1, 1, 1, 2, 2, 0, 0]])
    true_class = np.array([[2, 2, 2, 2, 2, 2, VOID, VOID]])
    # predicted: P = 0..2 and pixel 6 (IoU with A = 3 / (4 + 4 - 3 - 1) = 0.75); Q = 7 lies on void: no FP; B is missed
    pred_instance = np.array([[5, 5, 5, 0, 0, 0, 5, 6]])
    pred_class = np.where(pred_instance > 0, 2, VOID)
    score = panoptic_quality(coco_counts(pred_class, pred_instance, true_class, true_instance, IS_THING), IS_THING)
    assert score.pq == pytest.approx(0.75 / 1.5)
    assert score.sq == pytest.approx(0.75)
    assert score.rq == pytest.approx(1 / 1.5)
    assert score.unpredicted_share == pytest.approx(3 / 6)
    assert (score.policy, score.num_classes) == ("coco", 1)
    assert np.isnan(score.pq_stuff)


def test_ids_reshuffled_between_views_hurt_the_scene_number_only() -> None:
    maps = list(random_maps(1))
    maps[0], maps[1] = maps[2], maps[3]
    reshuffled = maps[1] + 10 * np.arange(len(maps[1]))[:, None, None]
    per_image = [coco_counts(maps[0], ids, maps[2], maps[3], IS_THING) for ids in (maps[1], reshuffled)]
    scene = [scene_counts(maps[0], ids, maps[2], maps[3], IS_THING) for ids in (maps[1], reshuffled)]
    assert panoptic_quality(per_image[0], IS_THING).pq == panoptic_quality(per_image[1], IS_THING).pq == 1
    assert panoptic_quality(scene[0], IS_THING).pq == 1
    assert panoptic_quality(scene[1], IS_THING).pq_things < 0.2


@pytest.mark.parametrize("counting", [scene_counts, coco_counts])
def test_renaming_instances_changes_nothing_and_dtype_neither(counting) -> None:
    pred_class, pred_instance, true_class, true_instance = random_maps(2)
    names = np.random.default_rng(0).permutation(50000)[:10]
    base = counting(pred_class, pred_instance, true_class, true_instance, IS_THING)
    for dtype in (np.int32, np.int64, np.uint16):
        other = counting(
            pred_class.astype(np.int32),
            names[pred_instance].astype(dtype),
            true_class.astype(np.int16),
            names[true_instance].astype(dtype),
            IS_THING,
        )
        np.testing.assert_array_equal(base.true_positive, other.true_positive)
        np.testing.assert_allclose(base.iou_sum, other.iou_sum)
        np.testing.assert_array_equal(base.false_positive, other.false_positive)


def test_forgiveness_rewards_silence_and_the_strict_variant_does_not() -> None:
    true_class = np.repeat([2, 3], 50).reshape(1, 100)
    true_instance = np.repeat([1, 2], 50).reshape(1, 100)
    silent_class, silent_instance = true_class.copy(), true_instance.copy()
    silent_class[:, 60:], silent_instance[:, 60:] = VOID, 0  # 80 % of the second object left open
    scene, strict = (
        panoptic_quality(
            scene_counts(silent_class, silent_instance, true_class, true_instance, IS_THING, 0.0, p), IS_THING
        )
        for p in ("scene", "scene_strict")
    )
    assert scene.pq == 1  # 10 of the 10 pixels that were predicted at all
    assert strict.pq == pytest.approx(0.5)
    assert scene.unpredicted_share == pytest.approx(0.4)
    assert scene.counts.false_negative.sum() == 0
    assert strict.counts.false_negative[3] == 1


def test_exactly_half_on_void_is_not_excused() -> None:
    # truth: 4 pixels of class 2, 4 void; a prediction of class 3 with half of its 4 pixels on void, then 3 of 4
    true_class = np.array([[2, 2, 2, 2, VOID, VOID, VOID, VOID]])
    true_instance = (true_class > 0).astype(int)
    for start, false_positives in ((2, 1), (3, 0)):
        pred_instance = np.zeros((1, 8), int)
        pred_instance[0, start : start + 4] = 5
        pred_class = np.where(pred_instance > 0, 3, VOID)
        counts = coco_counts(pred_class, pred_instance, true_class, true_instance, IS_THING)
        assert counts.false_positive[3] == false_positives


def test_exactly_half_unpredicted_is_not_forgiven() -> None:
    true_class, true_instance = np.full((1, 8), 2), np.ones((1, 8), int)
    for open_pixels, misses in ((4, 1), (5, 0)):
        pred_class = np.where(np.arange(8) < open_pixels, VOID, 3)[None]  # the rest is called something else
        counts = scene_counts(pred_class, true_instance, true_class, true_instance, IS_THING)
        assert counts.false_negative[2] == misses


def test_edges_are_defined() -> None:
    void = np.full((2, 4, 4), VOID)
    zero = np.zeros((2, 4, 4), int)
    one = np.full((2, 4, 4), 2)
    for counting in (scene_counts, coco_counts):
        nothing = panoptic_quality(counting(one, zero, void, zero, IS_THING), IS_THING)
        assert np.isnan(nothing.pq)
        assert nothing.num_classes == 0
        missed = panoptic_quality(counting(void, zero, one, zero, IS_THING), IS_THING)
        assert missed.pq == 0
        assert missed.unpredicted_share == 1
    empty = np.zeros((0, 4, 4), int)
    assert np.isnan(panoptic_quality(coco_counts(empty, empty, empty, empty, IS_THING), IS_THING).pq)
    assert np.isnan(panoptic_quality(scene_counts(empty, empty, empty, empty, IS_THING), IS_THING).pq)


def test_bad_input_names_what_is_wrong() -> None:
    zero, one = np.zeros((2, 4, 4), int), np.full((2, 4, 4), 2)
    with pytest.raises(DataError, match=r"same scene"):
        scene_counts(zero[:1], zero[:1], one, zero, IS_THING)
    with pytest.raises(DataError, match=r"predicted classes.*\[-1, 5\).*2 to 7"):
        coco_counts(np.where(np.arange(32).reshape(2, 4, 4) > 3, 7, 2), zero, one, zero, IS_THING)
    with pytest.raises(DataError, match="policies"):
        empty_counts("coco", 5) + empty_counts("scene", 5)
    image = np.array([[1, 2]])
    with pytest.raises(DataError, match=r"unlisted segments \[2\]"):
        annotated_counts(image, image, {1: 0}, {1: 0, 2: 0}, [], 5)
    with pytest.raises(DataError, match="no pixels"):
        annotated_counts(image, image, {1: 0, 2: 0, 9: 0}, {1: 0, 2: 0}, [], 5)


def test_crowd_absorbs_predictions_of_its_class() -> None:
    true = np.array([[1, 1, 1, 1, 2, 2, 2, 2]])
    pred = np.array([[0, 0, 0, 0, 7, 7, 8, 8]])
    counts = annotated_counts(pred, true, {7: 2, 8: 3}, {1: 2, 2: 2}, [2], 5)
    assert counts.false_negative[2] == 1  # segment 1; the crowd is never missed
    assert counts.false_positive[2] == 0  # 7 lies on the crowd of its class
    assert counts.false_positive[3] == 1  # 8 does not


@pytest.mark.slow
def test_a_whole_scene_of_200_classes_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 300, (50, 24, 32))
    true_instance = coarse.repeat(16, 1).repeat(16, 2).astype(np.int32)  # 50 x 384 x 512
    true_class = (true_instance % 200).astype(np.int32)
    pred_instance, pred_class = np.roll(true_instance, 2, 2), np.roll(true_class, 2, 2)
    is_thing = np.arange(200) >= 2
    start = time.process_time()
    scene_counts(pred_class, pred_instance, true_class, true_instance, is_thing)
    coco_counts(pred_class, pred_instance, true_class, true_instance, is_thing)
    semantic_score(confusion_matrix(pred_class, true_class, 200))
    assert time.process_time() - start < 5
