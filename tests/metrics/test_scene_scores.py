"""The `evaluate` metrics on a small traced room."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from pano3d.geometry.alignment import apply_transform
from pano3d.metrics.scene_scores import (
    DECISIONS,
    GEOMETRY_METRICS,
    PANOPTIC_METRICS,
    SceneScoresConfig,
    aggregate_scenes,
    plain_scene,
    scene_from_plain,
    score_scene,
)
from pano3d.metrics.scenes import align_scene, nearest_labels, posed_labels, true_points
from pano3d.types import VOID, ConfigError, DataError
from tests.metrics.scenes import IS_THING, perfect_prediction, true_scene

TRUTH = true_scene()
PERFECT = perfect_prediction(TRUTH, scale=0.4)
SCORES = score_scene(PERFECT, TRUTH)


def test_perfect_prediction_scores_one_in_any_frame_and_scale() -> None:
    values = aggregate_scenes([SCORES], IS_THING, seed=0, resamples=10).values
    for name in (*PANOPTIC_METRICS, *GEOMETRY_METRICS):
        expected = 0 if name in ("abs_rel", "abs_rel_per_view", "ate", "registration_rmse", "unpredicted_share") else 1
        assert values[name] == pytest.approx(expected, abs=1e-6), name
        assert values[f"{name}_low"] == pytest.approx(expected, abs=1e-6), name
    assert SCORES.alignment == "cameras"
    assert SCORES.values["scale"] == pytest.approx(2.5)


def test_every_headline_is_explained() -> None:
    headlines = {"pq_scene", "pq_scene_strict", "pq_coco", "miou", "ap50_agnostic", "abs_rel", "inlier_103"}
    headlines |= {"rotation_auc30", "coverage", "alignment", "interval"}
    assert headlines <= set(DECISIONS)


def test_geometry_off_by_more_than_the_limit_costs_coverage_and_surface_scores_only() -> None:
    shifted = dataclasses.replace(PERFECT, points_world=PERFECT.points_world + np.array([0, 0, 4.0]))
    score = score_scene(shifted, TRUTH)
    values = aggregate_scenes([score], IS_THING, 0, 10).values
    assert score.values["coverage"] < 0.5
    assert values["miou_3d"] < 0.5
    assert values["ap50_agnostic"] < 0.5
    assert values["ap50_agnostic_posed"] == pytest.approx(1)
    assert values["miou"] == pytest.approx(1)


def test_distance_limit_is_a_limit() -> None:
    scan_from_world = np.linalg.inv(np.eye(4))
    cloud = dataclasses.replace(PERFECT, points_world=np.zeros_like(PERFECT.points_world))
    truth = dataclasses.replace(TRUTH, surface_points=np.array([[0.09, 0, 0], [0.1, 0, 0], [0.11, 0, 0]]))
    _, class_id, covered = nearest_labels(cloud, truth, scan_from_world, 0.1, 1000)
    assert covered.tolist() == [True, False, False]
    assert class_id.tolist()[1:] == [VOID, VOID]


def test_posed_labels_do_not_look_through_things() -> None:
    hidden = dataclasses.replace(TRUTH, surface_points=np.array([[0.0, 0.0, 1.0], [0.0, 1.9, -3.0]]))
    segment, class_id, covered = posed_labels(PERFECT, hidden, 0.1)
    assert not covered[1]
    assert segment[1] == 0
    assert class_id[1] == VOID
    at_surface = posed_labels(PERFECT, TRUTH, 0.1)[0]
    assert (at_surface == 10 - TRUTH.surface_segment).mean() > 0.99


def test_empty_prediction_and_void_truth_are_defined() -> None:
    nothing = dataclasses.replace(
        PERFECT,
        segment_id=np.zeros_like(PERFECT.segment_id),
        class_id=np.full_like(PERFECT.class_id, VOID),
        points_world=np.full_like(PERFECT.points_world, np.nan),
        depth=np.full_like(PERFECT.depth, np.nan),
    )
    score = score_scene(nothing, TRUTH)
    values = aggregate_scenes([score], IS_THING, 0, 10).values
    assert score.values["unpredicted_share"] == 1
    for name in (
        "pq_scene",
        "pq_scene_strict",
        "pq_coco",
        "miou",
        "miou_3d",
        "ap50_agnostic",
        "coverage",
        "inlier_103",
    ):
        assert values[name] == 0, name
    assert values["abs_rel"] == 1
    void = dataclasses.replace(
        TRUTH, segment_id=np.zeros_like(TRUTH.segment_id), surface_segment=np.zeros_like(TRUTH.surface_segment)
    )
    values = aggregate_scenes([score_scene(PERFECT, void)], IS_THING, 0, 10).values
    assert np.isnan([values[name] for name in ("pq_scene", "pq_coco", "miou", "ap50_agnostic", "pq_scene_low")]).all()
    assert values["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_cameras_on_a_line_fall_back_to_points_and_say_so() -> None:
    two = slice(0, 2)
    truth = dataclasses.replace(
        TRUTH,
        segment_id=TRUTH.segment_id[two],
        depth=TRUTH.depth[two],
        scan_from_camera=TRUTH.scan_from_camera[two],
        intrinsics=TRUTH.intrinsics[two],
    )
    prediction = perfect_prediction(truth, 0.7)
    score = score_scene(prediction, truth)
    assert score.alignment == "points"
    assert score.values["coverage"] > 0.6
    assert np.isnan(score.values["ate"])
    blind = dataclasses.replace(prediction, points_world=np.full_like(prediction.points_world, np.nan))
    assert score_scene(blind, truth).alignment == "none"


def test_cameras_nearly_on_a_line_fall_back_to_points_too() -> None:
    """A walk that sways a little, in the prediction in another way: that would roll the scene about the walk."""
    generator = np.random.default_rng(0)
    walk = TRUTH.scan_from_camera.copy()
    walk[:, :3, 3] = walk[0, :3, 3] + np.linspace(0, 1.5, len(walk))[:, None] * [1.0, 0.2, 0.0]
    walk[:, :3, 3] += generator.normal(scale=0.01, size=(len(walk), 3))
    truth = dataclasses.replace(TRUTH, scan_from_camera=walk)
    prediction = perfect_prediction(truth, 1.0)
    cameras = prediction.world_from_camera.copy()
    cameras[:, :3, 3] += generator.normal(scale=0.01, size=(len(walk), 3))
    found = align_scene(dataclasses.replace(prediction, world_from_camera=cameras), truth, "cameras", None, 1000)
    assert found.method == "points"
    carried = apply_transform(found.scan_from_world, prediction.points_world)
    assert np.nanmax(np.abs(carried - true_points(truth))) < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segment_id": PERFECT.segment_id[:3]}, "same scene"),
        ({"depth": PERFECT.depth[:, :10]}, "same scene"),
        ({"world_from_camera": PERFECT.world_from_camera[:3]}, "4 finite predicted cameras"),
        ({"world_from_camera": PERFECT.world_from_camera * np.nan}, "4 finite predicted cameras"),
        ({"class_id": PERFECT.class_id + 9}, "predicted classes"),
        ({"segment_score": {}}, "no score"),
    ],
)
def test_prediction_of_another_scene_is_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score_scene(dataclasses.replace(PERFECT, **change), TRUTH)


def test_inconsistent_truth_is_refused() -> None:
    with pytest.raises(DataError, match=r"segments \[5\] have no class"):
        score_scene(PERFECT, dataclasses.replace(TRUTH, segment_class={1: 0, 2: 1, 3: 2, 4: 2}))
    with pytest.raises(DataError, match="true classes"):
        score_scene(PERFECT, dataclasses.replace(TRUTH, segment_class={1: 0, 2: 1, 3: 2, 4: 2, 5: 99}))
    with pytest.raises(DataError, match="surface"):
        score_scene(PERFECT, dataclasses.replace(TRUTH, surface_segment=TRUTH.surface_segment[:5]))
    with pytest.raises(DataError, match="no scenes"):
        aggregate_scenes([], IS_THING, 0)
    with pytest.raises(DataError, match="label spaces"):
        aggregate_scenes([SCORES], IS_THING[:2], 0)
    with pytest.raises(ConfigError, match="distance_limit"):
        SceneScoresConfig(distance_limit=0.0)
    with pytest.raises(ConfigError, match="resamples"):
        SceneScoresConfig(resamples=0)


def worse(fraction: float) -> object:
    """A prediction that leaves the first `fraction` of all pixels without a segment."""
    cut = np.arange(PERFECT.segment_id.size).reshape(PERFECT.segment_id.shape) < fraction * PERFECT.segment_id.size
    return score_scene(
        dataclasses.replace(
            PERFECT,
            segment_id=np.where(cut, 0, PERFECT.segment_id),
            class_id=np.where(cut, VOID, PERFECT.class_id),
            depth=PERFECT.depth * np.where(cut, 1.2, 1).astype(np.float32),
        ),
        TRUTH,
    )


def test_intervals_contain_the_value_and_follow_the_seed() -> None:
    scenes = [worse(f) for f in (0.0, 0.2, 0.4, 0.7)]
    first, again, other = (aggregate_scenes(scenes, IS_THING, seed, 200) for seed in (1, 1, 2))
    assert first.values == again.values
    assert first.values != other.values
    for name in ("pq_scene_strict", "miou", "abs_rel", "unpredicted_share"):
        low, value, high = (first.values[f"{name}{end}"] for end in ("_low", "", "_high"))
        assert low <= value <= high, name
        assert low < high, name
    assert first.values["unpredicted_share"] == pytest.approx(0.325, abs=0.01)


def test_counts_are_pooled_not_averaged() -> None:
    a, b = worse(0.0), worse(0.5)
    pooled = aggregate_scenes([a, b], IS_THING, 0, 10)
    hits, true = (getattr(a.pixels, k) + getattr(b.pixels, k) for k in ("hits", "true"))
    predicted = a.pixels.predicted + b.pixels.predicted
    np.testing.assert_allclose(pooled.class_iou, hits / (true + predicted - hits))
    coco = a.coco + b.coco
    np.testing.assert_allclose(pooled.class_pq, coco[0] / (coco[1] + coco[2] / 2 + coco[3] / 2))
    assert pooled.values["miou"] == pytest.approx(np.mean(pooled.class_iou))


def test_scores_survive_json() -> None:
    text = json.dumps(plain_scene(SCORES), allow_nan=False)
    assert len(text) < 20_000
    back = scene_from_plain(json.loads(text))
    a, b = (aggregate_scenes([s], IS_THING, 0, 20).values for s in (SCORES, back))
    assert a == b
