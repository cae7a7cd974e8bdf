"""The gate: a paired bootstrap over scenes, and every reason to refuse."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pano3d import config
from pano3d.metrics.scene_scores import ClassCounts, SceneScores
from pano3d.tracking.gate import Evidence, GateConfig, Guard, compare, judge
from pano3d.types import ConfigError
from tests.tracking.scores import pooled, scene, scenes

SHIPPED = config.load(Path(__file__).parents[2] / "params/promote.yaml", GateConfig)
SETTINGS = dataclasses.replace(SHIPPED, resamples=100)  # enough to tell all from nothing
TAGS = {
    "git.dirty": "false",
    "provenance": "ok",
    "license": "Apache-2.0",
    "protocol.sha256": "p" * 64,
    "scenes.sha256": "s" * 64,
}


def evidence(number: str, each: list[SceneScores] | None = None, **changes: Any) -> Evidence:
    each = scenes() if each is None else each
    metrics = changes.pop("metrics", None) or pooled(each)
    plain = {"number": number, "status": "FINISHED", "tags": TAGS, "metrics": metrics, "scenes": each}
    return Evidence(**{**plain, **changes})


def reasons(challenger: Evidence, champion: Evidence | None = None, target: str = "research") -> str:
    return "; ".join(judge(challenger, champion, SETTINGS, target).reasons)


def test_the_first_needs_no_champion_but_a_good_state() -> None:
    verdict = judge(evidence("1"), None, SETTINGS, "research")
    assert verdict.accepted
    assert verdict.comparisons == ()


def test_equal_and_better_pass() -> None:
    assert judge(evidence("2"), evidence("1"), SETTINGS, "research").accepted
    assert judge(evidence("2", scenes(0.02)), evidence("1"), SETTINGS, "research").accepted


def test_pairing_sees_a_small_loss_that_the_spread_of_scenes_hides() -> None:
    """Scenes range from 0.1 to 0.76 and each loses 0.005: unpaired intervals overlap, the differences are all one."""
    worse = evidence("2", scenes(-0.005))
    assert "pq_scene is worse: 0.4300 -> 0.4250, gain -0.0050" in reasons(worse, evidence("1"))
    one = next(one for one in compare(scenes(), scenes(-0.005), SETTINGS) if one.metric == "pq_scene")
    assert (one.low, one.high) == (pytest.approx(-0.005), pytest.approx(-0.005))


def test_a_loss_within_the_interval_is_no_reason() -> None:
    """Half of the scenes lose 0.05, half gain 0.04: the mean falls by 0.005, and that is not sure."""
    mixed = [scene(one.name, one.values["pq_scene"] + (0.04 if i % 2 else -0.05)) for i, one in enumerate(scenes())]
    verdict = judge(evidence("2", mixed), evidence("1"), SETTINGS, "research")
    assert verdict.accepted
    found = next(one for one in verdict.comparisons if one.metric == "pq_scene")
    assert found.difference == pytest.approx(-0.005)
    assert found.low < 0 < found.high


def test_the_interval_is_that_of_a_plain_bootstrap() -> None:
    """By hand for a mean over scenes: resample the per-scene differences themselves."""
    new = [scene(one.name, one.values["pq_scene"] + 0.01 * math.sin(i)) for i, one in enumerate(scenes())]
    found = next(one for one in compare(scenes(), new, SETTINGS) if one.metric == "pq_scene")
    gains = np.array([0.01 * math.sin(i) for i in range(12)])
    draws = np.random.default_rng(SETTINGS.seed).integers(12, size=(SETTINGS.resamples, 12))
    low, high = np.percentile(gains[draws].mean(1), [2.5, 97.5])
    assert (found.difference, found.low, found.high) == pytest.approx((gains.mean(), low, high))


def test_losing_geometry_refuses_whatever_the_labels_gain() -> None:
    text = reasons(evidence("2", scenes(0.2, abs_rel=0.25)), evidence("1"))
    assert "abs_rel is worse: 0.2000 -> 0.2500, gain -0.0500" in text
    assert "pq_scene" not in text


def lose(one: SceneScores, metric: str) -> SceneScores:
    """The same scene, worse in what one guarded metric is made of."""
    degrees = np.zeros(31, np.int64)
    degrees[25] = 10  # instead of 5 degrees
    missed = [dataclasses.replace(each, is_hit=[False], misses=2) for each in one.agnostic]
    fewer = ClassCounts(*(np.full(one.coco.shape[1], each, np.int64) for each in (40, 100, 100)))
    changes: dict[str, dict[str, Any]] = {
        "pq_scene": {"values": one.values | {"pq_scene": one.values["pq_scene"] - 0.05}},
        "pq_coco": {"coco": one.coco * [[0.9], [1.0], [1.0], [1.0]]},
        "miou": {"pixels": fewer},
        "ap50_agnostic": {"agnostic": missed},
        "abs_rel": {"values": one.values | {"abs_rel": 0.25}},
        "inlier_103": {"values": one.values | {"inlier_103": 0.25}},
        "rotation_auc30": {"rotation_histogram": degrees},
    }
    return dataclasses.replace(one, **changes[metric])


@pytest.mark.parametrize("metric", [guard.metric for guard in SHIPPED.guarded])
def test_losing_in_any_metric_of_the_shipped_settings_refuses(metric: str) -> None:
    """Each way up is the right one, and a loss in one metric is a reason although all others stay."""
    worse = [lose(one, metric) for one in scenes()]
    verdict = judge(evidence("2", worse), evidence("1"), SETTINGS, "research")
    assert [reason.split(" is ")[0] for reason in verdict.reasons] == [metric]
    assert judge(evidence("1"), evidence("2", worse), SETTINGS, "research").accepted  # the other way round it is a gain


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "RUNNING"}, "its run is RUNNING, not FINISHED"),
        ({"status": "KILLED"}, "its run is KILLED"),
        ({"tags": {**TAGS, "git.dirty": "true"}}, "it was registered from changed files"),
        ({"tags": {k: v for k, v in TAGS.items() if k != "git.dirty"}}, "its commit is unknown"),
        ({"tags": {**TAGS, "provenance": "pano3d/losses is not what dvc.lock says"}}, "pano3d/losses is not"),
        ({"tags": {k: v for k, v in TAGS.items() if k != "provenance"}}, "nothing was recorded"),
        ({"tags": {**TAGS, "license": ""}}, "it has no licence tag"),
        ({"damage": ("weights.safetensors does not match its digest",)}, "does not match its digest"),
        ({"metrics": {k: v for k, v in pooled(scenes()).items() if k != "miou"}}, "miou is missing"),
        ({"metrics": {**pooled(scenes()), "abs_rel": math.nan}}, "abs_rel is nan"),
        ({"metrics": {**pooled(scenes()), "abs_rel": math.inf}}, "abs_rel is inf"),
        ({"metrics": {**pooled(scenes()), "pq_scene": 0.9}}, "its scenes give 0.4300"),
        ({"scenes": ()}, "no scores per scene"),
    ],
)
def test_a_state_that_refuses(changes: dict[str, Any], reason: str) -> None:
    assert reason in reasons(evidence("2", **changes))


def test_a_bad_state_and_a_loss_are_told_at_once() -> None:
    text = reasons(evidence("2", scenes(-0.1), status="KILLED"), evidence("1"))
    assert "its run is KILLED" in text
    assert "pq_scene is worse" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tags": {**TAGS, "protocol.sha256": "q" * 64}}, "protocol differs"),
        ({"tags": {**TAGS, "scenes.sha256": "t" * 64}}, "data differs"),
        ({"tags": {k: v for k, v in TAGS.items() if k != "scenes.sha256"}}, "data differs"),
        ({"each": scenes(count=11)}, "scored on other scenes"),
        (
            {
                "each": [dataclasses.replace(one, coco=np.ones((4, 3))) for one in scenes()],
                "metrics": pooled(scenes()),
            },
            "other classes",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_and_not_compared(changes: dict[str, Any], reason: str) -> None:
    verdict = judge(evidence("2", **{"each": scenes(0.1), **changes}), evidence("1"), SETTINGS, "research")
    assert reason in "; ".join(verdict.reasons)
    assert verdict.comparisons == ()


def test_a_damaged_champion_cannot_be_compared_with() -> None:
    assert "the champion, version 1, cannot be compared with" in reasons(evidence("2"), evidence("1", damage=("gone",)))


def test_an_undefined_metric_refuses() -> None:
    undefined = [scene(one.name, one.values["pq_scene"], abs_rel=math.nan) for one in scenes()]
    assert "abs_rel is not defined" in reasons(evidence("2", undefined), evidence("1"))


@pytest.mark.parametrize(
    ("license", "target", "allowed"),
    [
        ("Apache-2.0", "commercial", True),
        ("CC-BY-NC-4.0", "commercial", False),
        ("CC-BY-NC-4.0", "research", True),
        ("Apache-2.0, CC-BY-NC-4.0", "commercial", False),
        ("Apache-2.0 AND MIT", "commercial", True),
    ],
)
def test_the_licence_must_allow_the_target(license: str, target: str, allowed: bool) -> None:
    one = evidence("2", tags={**TAGS, "license": license})
    assert judge(one, None, SETTINGS, target).accepted is allowed


def test_unknown_targets_and_one_sided_gates_are_refused_at_the_door() -> None:
    with pytest.raises(ConfigError, match="has research, commercial"):
        judge(evidence("1"), None, SETTINGS, "military")
    with pytest.raises(ConfigError, match="panoptic and geometric"):
        dataclasses.replace(SETTINGS, guarded=(Guard("miou", "higher"),))
    with pytest.raises(ConfigError, match="no such metric"):
        Guard("accuracy", "higher")
