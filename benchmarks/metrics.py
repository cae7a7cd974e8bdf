"""Panoptic quality and IoU of a long scene, checked against loops over segments on a small one.

The promise is 5 s for 50 views of 512x384 with 200 classes, PQ and IoU together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import ON_CPU, Case, Growth, Work, require, require_close
from pano3d.metrics.panoptic_quality import panoptic_quality, scene_counts
from pano3d.metrics.semantic import confusion_matrix, semantic_score

IntArray = NDArray[np.int64]
CLASSES = 200


def cases(full: bool) -> list[Case | Growth]:
    views = (1, 2, 5, 10, 20, 50) if full else (1, 5, 20)
    return [
        Case("PQ and IoU 50x512x384 200 classes", partial(prepare, 50, 24), devices=ON_CPU, limit=5.0, counts=False),
        Case("PQ and IoU 4x128x96 200 classes", partial(prepare, 4, 6), devices=ON_CPU, counts=False),
        Growth("PQ and IoU", "views", views, prepare_growth, devices=ON_CPU),
    ]


def make_scene(views: int, rows: int) -> tuple[IntArray, IntArray]:
    """(V 16*rows 64*rows/3) true and predicted ids: 250 segments in blocks, the prediction a few columns off. The class
    of a segment is its id modulo the number of classes."""
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 250, (views, rows, rows * 4 // 3))
    truth = blocks.repeat(16, 1).repeat(16, 2)
    return truth, np.roll(truth, 4, axis=2)


def prepare(views: int, rows: int, device: str) -> Work:
    """The twin, where the scene is small, visits every pair of segments."""
    truth, predicted = make_scene(views, rows)
    is_thing = np.arange(CLASSES) >= 2
    is_small = truth.size < 1e6

    def check(ours: tuple[float, float], plain: tuple[float, float] | None) -> None:
        if plain is None:
            own = scores(truth, truth, is_thing)
            require(own == (1.0, 1.0), f"truth against itself scores {own}; expected 1 and 1")
            require(0 < ours[0] < 1, f"PQ is {ours[0]}; expected between 0 and 1")
        else:
            require_close("PQ and IoU", ours, plain, 1e-6)

    twin = partial(loops, truth, predicted, is_thing) if is_small else None
    return Work(partial(scores, truth, predicted, is_thing), check, twin)


def prepare_growth(views: int, device: str) -> Callable[[], object]:
    return partial(scores, *make_scene(views, 24), np.arange(CLASSES) >= 2)


def scores(truth: IntArray, predicted: IntArray, is_thing: NDArray[np.bool_]) -> tuple[float, float]:
    """PQ over the scene, with all classes, and mean IoU."""
    counts = scene_counts(
        predicted % CLASSES, predicted, truth % CLASSES, truth, is_thing, policy="scene", min_class_share=0.0
    )
    confusion = confusion_matrix(predicted % CLASSES, truth % CLASSES, CLASSES)
    return panoptic_quality(counts, is_thing).pq, semantic_score(confusion).miou


def loops(truth: IntArray, predicted: IntArray, is_thing: NDArray[np.bool_]) -> tuple[float, float]:
    """The same from masks, a pair at a time."""

    def segments(ids: IntArray) -> dict[tuple[int, int], NDArray[np.bool_]]:
        """(class, instance, 0 for stuff) -> mask."""
        found: dict[tuple[int, int], NDArray[np.bool_]] = {}
        for one in np.unique(ids):
            key = (int(one) % CLASSES, int(one) if is_thing[one % CLASSES] else 0)
            found[key] = found.get(key, False) | (ids == one)
        return found

    wanted, given = segments(truth), segments(predicted)
    qualities, overlaps = [], []
    for class_id in range(CLASSES):
        own = [mask for (owner, _), mask in wanted.items() if owner == class_id]
        answers = [mask for (owner, _), mask in given.items() if owner == class_id]
        if not own and not answers:
            continue
        pairs = [(a & b).sum() / (a | b).sum() for a in own for b in answers]
        hits = [iou for iou in pairs if np.float32(iou) > 0.5]
        qualities.append(sum(hits) / (len(hits) + (len(own) + len(answers) - 2 * len(hits)) / 2))
        a, b = truth % CLASSES == class_id, predicted % CLASSES == class_id
        overlaps.append((a & b).sum() / (a | b).sum())
    return float(np.mean(qualities)), float(np.mean(overlaps))
