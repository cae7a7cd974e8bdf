"""Published protocols: their parameter files load, their decisions are printed, their rules hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pano3d import config
from pano3d.data.label_spaces import label_space
from pano3d.metrics.panoptic_quality import panoptic_quality, scene_counts
from pano3d.metrics.protocols import catalogue, geometry, iggt, panoptic, surface
from pano3d.types import VOID, ConfigError, DataError
from tests.metrics.scenes import IS_THING, perfect_prediction, true_scene

PARAMS = Path(__file__).parents[2] / "params" / "protocol"
SCHEMAS = {
    "pq_scene": panoptic.PqConfig,
    "scannetpp_pq": panoptic.PqConfig,
    "pq_3d": panoptic.PqConfig,
    "unite_3d": surface.SurfaceConfig,
    "posed_transfer": surface.SurfaceConfig,
    "iggt": iggt.IggtConfig,
    "pi3_pointmap": geometry.PointmapConfig,
    "must3r_pointmap": geometry.PointmapConfig,
    "pi3_pose": geometry.PoseConfig,
    "must3r_pose": geometry.PoseConfig,
}
TRUTH = true_scene()
PERFECT = perfect_prediction(TRUTH, 2.0)
OFF = dataclasses.replace(PERFECT, points_world=PERFECT.points_world + np.array([0, 0, 4.0]))


def load(name: str):
    return config.load(PARAMS / f"{name}.yaml", SCHEMAS[name])


def test_every_file_has_a_protocol_and_every_protocol_a_file() -> None:
    assert {path.stem for path in PARAMS.glob("*.yaml")} == set(SCHEMAS)
    for name in SCHEMAS:
        loaded = load(name)
        assert getattr(loaded, "name", name) == name
        if hasattr(loaded, "label_space"):
            assert label_space(loaded.label_space).names


def test_decisions_name_the_values_that_matter() -> None:
    assert "5x5" not in " ".join(panoptic.decisions(load("pq_scene")))
    assert "512x512" in " ".join(panoptic.decisions(load("pq_scene")))
    assert "0.5 %" in " ".join(panoptic.decisions(load("pq_scene")))
    assert "0.05 m" in " ".join(panoptic.decisions(load("pq_3d")))
    assert "within 0.1 m" in " ".join(surface.decisions(load("unite_3d")))
    assert "true cameras" in " ".join(surface.decisions(load("posed_transfer")))
    assert "voxels of 0.05 m" in " ".join(iggt.decisions(load("iggt")))
    assert "no Umeyama" in geometry.pointmap_decisions(load("must3r_pointmap"))[0]
    assert "sim3" in geometry.pose_decisions(load("pi3_pose"))[0]


def test_pq_scene_resizes_and_equals_the_policy_without() -> None:
    settings = dataclasses.replace(load("pq_scene"), resize=None)
    true_class = TRUTH.class_of(TRUTH.segment_id)
    maps = (np.roll(PERFECT.class_id, 2, 2), np.roll(PERFECT.segment_id, 2, 2), true_class, TRUTH.segment_id)
    plain = panoptic.score_views(*maps, IS_THING, settings)
    assert plain.pq == panoptic_quality(scene_counts(*maps, IS_THING), IS_THING).pq
    doubled = panoptic.score_views(*maps, IS_THING, dataclasses.replace(settings, resize=(96, 128)))
    assert doubled.pq == pytest.approx(plain.pq, abs=1e-6)  # exactly four pixels for one
    assert doubled.counts.pixels == 4 * plain.counts.pixels
    with pytest.raises(DataError, match=r"\(V, H, W\)"):
        panoptic.score_views(*(m.ravel() for m in maps), IS_THING, settings)
    with pytest.raises(DataError, match="no scenes"):
        panoptic.mean_over_scenes([], settings)


def test_scene_numbers_are_averaged_over_scenes_where_defined() -> None:
    settings = dataclasses.replace(load("pq_scene"), resize=None)
    zero = np.zeros((1, 4, 4), int)
    good = panoptic.score_views(zero, zero, zero, zero, IS_THING, settings)
    bad = panoptic.score_views(zero + 1, zero, zero, zero, IS_THING, settings)
    void = panoptic.score_views(zero, zero, zero + VOID, zero, IS_THING, settings)
    result = panoptic.mean_over_scenes([good, bad, void], settings)
    assert result.pq == 0.5
    assert result.protocol == "pq_scene"
    assert np.isnan(void.pq)


def test_pq_3d_needs_geometry() -> None:
    settings = load("pq_3d")
    assert panoptic.score_surface(PERFECT, TRUTH, settings).pq == pytest.approx(1)
    off = panoptic.score_surface(OFF, TRUTH, settings)
    assert off.unpredicted_share > 0.5
    with pytest.raises(DataError, match="label maps"):
        panoptic.score_surface(PERFECT, TRUTH, load("pq_scene"))


def test_geometry_costs_unite_3d_but_not_posed_transfer() -> None:
    for name, prediction, miou, ap in (
        ("unite_3d", PERFECT, 1, 1),
        ("posed_transfer", PERFECT, 1, 1),
        ("posed_transfer", OFF, 1, 1),
        ("unite_3d", OFF, None, None),
    ):
        settings = load(name)
        result = surface.pool([surface.score(prediction, TRUTH, settings)] * 2, settings)
        assert result.protocol == name
        if miou is None:
            assert result.semantic.miou < 0.5
            assert result.ap.ap50 < 0.5
            assert result.coverage < 0.5
        else:
            assert result.semantic.miou == pytest.approx(miou, abs=0.01)
            assert result.ap.ap50 == pytest.approx(ap)
    assert result.num_scenes == 2


def test_class_agnostic_ap_ignores_the_class_and_per_class_ap_does_not() -> None:
    settings = load("posed_transfer")
    swapped = np.where(PERFECT.class_id == 2, 3, np.where(PERFECT.class_id == 3, 2, PERFECT.class_id))
    prediction = dataclasses.replace(PERFECT, class_id=swapped)
    agnostic = surface.pool([surface.score(prediction, TRUTH, settings)], settings)
    assert agnostic.ap.ap50 == pytest.approx(1)
    by_class = dataclasses.replace(settings, class_agnostic=False)
    named = surface.pool([surface.score(prediction, TRUTH, by_class)], by_class)
    assert named.ap.ap50 == 0
    assert named.ap.class_ap50.shape == (4,)
    with pytest.raises(DataError, match="no scenes"):
        surface.pool([], settings)


def test_iggt_counts_label_and_geometry_together() -> None:
    settings = load("iggt")
    perfect = iggt.pool([iggt.score(PERFECT, TRUTH, settings)])
    for name in ("miou_2d", "miou_3d", "inlier_103", "track_miou", "track_success"):
        assert getattr(perfect, name) == pytest.approx(1, abs=0.02), name
    off = iggt.pool([iggt.score(OFF, TRUTH, settings)])
    assert off.miou_2d == perfect.miou_2d
    assert off.miou_3d < 0.5
    with pytest.raises(DataError, match="no scenes"):
        iggt.pool([])


def test_iggt_track_is_lost_when_ids_change_between_views() -> None:
    settings = load("iggt")
    ids = PERFECT.segment_id + 20 * np.arange(4)[:, None, None] * (PERFECT.segment_id > 0)
    scores = {int(i): 1.0 for i in np.unique(ids) if i}
    lost = iggt.score(dataclasses.replace(PERFECT, segment_id=ids, segment_score=scores), TRUTH, settings)
    assert lost.track_success == 0
    assert lost.track_miou < 0.5


@pytest.mark.parametrize("name", ["pi3_pointmap", "must3r_pointmap"])
def test_pointmap_protocols_forgive_scale_and_see_noise(name: str) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:12, :16] / 8.0
    true = np.stack([np.stack([x, y, 2 + 0.3 * np.sin(3 * x) + 0.1 * v * y], -1) for v in range(2)])
    valid = np.ones(true.shape[:3], bool)
    settings = load(name)
    exact = geometry.score_pointmaps(0.3 * true, true, valid, settings)
    assert exact.chamfer < 1e-6
    assert exact.nc == pytest.approx(1, abs=1e-3)  # neighbours tie on a grid
    noisy = geometry.score_pointmaps(0.3 * true + rng.normal(0, 0.02, true.shape), true, valid, settings)
    assert noisy.chamfer > 0.01
    with pytest.raises(DataError, match="0 valid points"):
        geometry.score_pointmaps(true, true, ~valid, settings)
    cropped = dataclasses.replace(settings, crop=6)
    assert geometry.score_pointmaps(true, true, valid, cropped).num_pred == 2 * 36


def test_pose_protocol_pools_pairs_and_averages_trajectories() -> None:
    settings = load("pi3_pose")
    exact = (PERFECT.world_from_camera, TRUTH.scan_from_camera)
    line = np.tile(np.eye(4), (3, 1, 1))
    line[:, 0, 3] = np.arange(3)
    result = geometry.score_poses([exact, (line, line)], settings)
    assert result.num_undefined == 1
    assert result.ate < 1e-9
    assert result.auc == {5: 1, 15: 1, 30: 1}
    with pytest.raises(DataError, match="no sequences"):
        geometry.score_poses([], settings)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pq_scene", {"min_class_share": 1.5}),
        ("pq_scene", {"resize": (0, 5)}),
        ("pq_scene", {"distance_limit": 0.1}),
        ("pq_3d", {"distance_limit": None}),
        ("unite_3d", {"distance_limit": 0.0}),
        ("iggt", {"voxel_size": 0.0}),
        ("pi3_pointmap", {"normal_neighbours": 2}),
        ("pi3_pose", {"thresholds_deg": ()}),
    ],
)
def test_impossible_values_are_refused(name: str, change: dict) -> None:
    with pytest.raises(ConfigError, match=name):
        dataclasses.replace(load(name), **change)


PERFECT_VALUES = {
    "pq": 1.0,
    "miou_2d": 1.0,
    "macc_2d": 1.0,
    "miou_3d": 1.0,
    "ap50": 1.0,
    "abs_rel": 0.0,
    "inlier_103": 1.0,
    "track_success": 1.0,
    "accuracy": 0.0,
    "completeness": 0.0,
    "completion_ratio": 1.0,
    "ate": 0.0,
    "rra5": 1.0,
    "auc30": 1.0,
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_catalogue_runs_every_protocol(name: str) -> None:
    """Perfect at another scale is perfect; a scene bent and half of one segment is not."""
    config, notes = catalogue.with_label_space(load(name), "scannet20")
    assert bool(notes) == (getattr(load(name), "label_space", "scannet20") != "scannet20")
    taken = np.zeros(PERFECT.segment_id.shape, np.bool_)
    taken[:, :, : taken.shape[2] // 2] = True
    bent = dataclasses.replace(
        PERFECT,
        segment_id=np.where(taken, 99, PERFECT.segment_id),
        class_id=np.where(taken, 0, PERFECT.class_id),
        segment_score={**PERFECT.segment_score, 99: 0.5},
        points_world=PERFECT.points_world + np.random.default_rng(0).normal(0, 0.5, PERFECT.points_world.shape),
        depth=PERFECT.depth * np.linspace(0.5, 1.5, PERFECT.depth.size).reshape(PERFECT.depth.shape),
        world_from_camera=PERFECT.world_from_camera[[1, 0, *range(2, len(PERFECT.depth))]],
    )
    pieces = [catalogue.score_scene(config, prediction, TRUTH) for prediction in (PERFECT, bent)]
    good, poor = (catalogue.pool(config, [piece]).values for piece in pieces)
    checked = good.keys() & PERFECT_VALUES.keys()
    assert checked
    worse = {value: poor[value] - good[value] for value in checked}
    for value in checked:
        assert good[value] == pytest.approx(PERFECT_VALUES[value], abs=2e-3), value
    assert any(change < -0.01 if PERFECT_VALUES[value] == 1 else change > 0.01 for value, change in worse.items())
    both = catalogue.pool(config, pieces, ["a note"])
    assert both.num_scenes == 2
    assert both.decisions[-1] == "a note"
    assert both.name == name
