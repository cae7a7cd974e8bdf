"""The promotion gate: may this version become champion? Numbers in, a verdict with reasons out; no store, no files."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pano3d.metrics.scene_scores import GEOMETRY_METRICS, PANOPTIC_METRICS, SceneScores, aggregate_scenes
from pano3d.types import ConfigError

ROUNDING = 6e-5
"""metrics.json keeps four digits."""


@dataclass(frozen=True)
class Guard:
    """A metric the challenger must not lose in; `better` says which way is up."""

    metric: str
    better: Literal["higher", "lower"]

    def __post_init__(self) -> None:
        if self.metric not in (*PANOPTIC_METRICS, *GEOMETRY_METRICS):
            known = ", ".join((*PANOPTIC_METRICS, *GEOMETRY_METRICS))
            raise ConfigError(f"guarding {self.metric!r}: no such metric; expected one of {known}")


@dataclass(frozen=True)
class GateConfig:
    """guarded: metrics to compare, panoptic and geometric ones. interval: share of the bootstrap, such as 0.95.
    resamples, seed: of the bootstrap. target: what a champion is for, unless said otherwise. targets: for each, shell
    patterns of the licences that allow it."""

    guarded: tuple[Guard, ...]
    interval: float
    resamples: int
    seed: int
    target: str
    targets: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        names = {guard.metric for guard in self.guarded}
        if not (names & set(PANOPTIC_METRICS) and names & set(GEOMETRY_METRICS)):
            raise ConfigError(f"the gate guards {sorted(names)}; expected panoptic and geometric metrics both")
        if not 0 < self.interval < 1 or self.resamples < 100:
            raise ConfigError(
                f"the gate's interval is {self.interval}, resamples {self.resamples}; expected a share between 0 and "
                "1, and 100 or more"
            )
        self.licenses(self.target)

    def licenses(self, target: str) -> tuple[str, ...]:
        """Patterns of the licences that allow a target.

        Raises:
            ConfigError: there is no such target.
        """
        if target not in self.targets:
            raise ConfigError(f"the target {target!r} is unknown; params/promote.yaml has {', '.join(self.targets)}")
        return self.targets[target]


@dataclass(frozen=True)
class Evidence:
    """What is known about a version.

    number: of the version. status: of the run that registered it. tags: of the version. metrics: of the evaluation,
    as recorded. scenes: its scores scene by scene; empty where there are none. damage: files that are missing or do
    not match their digests, in words.
    """

    number: str
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    scenes: Sequence[SceneScores] = ()
    damage: Sequence[str] = ()


@dataclass(frozen=True)
class Comparison:
    """A guarded metric of both on the same scenes. difference: challenger - champion, turned so that more is better,
    with the interval [low, high] of the paired bootstrap over scenes."""

    metric: str
    champion: float
    challenger: float
    difference: float
    low: float
    high: float

    @property
    def is_worse(self) -> bool:
        """The whole interval lies on the losing side."""
        return self.high < 0


@dataclass(frozen=True)
class Verdict:
    """reasons: why not; none = accepted."""

    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = field(default=())

    @property
    def accepted(self) -> bool:
        return not self.reasons


def judge(challenger: Evidence, champion: Evidence | None, settings: GateConfig, target: str) -> Verdict:
    """All reasons against a promotion at once, so that one attempt tells everything.

    Args:
        champion: None at the first promotion: then only the challenger's own state counts.
        target: what the champion is for, a key of `settings.targets`.

    Raises:
        ConfigError: the target is unknown.
    """
    reasons = [*_own_reasons(challenger, settings), *_license_reasons(challenger, settings, target)]
    if champion is None:
        return Verdict(tuple(reasons))
    reasons += [f"the champion, version {champion.number}, cannot be compared with: {one}" for one in champion.damage]
    comparable = [*champion.damage, *challenger.damage, *(differing := _protocol_reasons(challenger, champion))]
    reasons += differing
    if comparable or not challenger.scenes or not champion.scenes:
        return Verdict(tuple(reasons))
    comparisons = compare(champion.scenes, challenger.scenes, settings)
    for one in comparisons:
        if not all(map(math.isfinite, (one.difference, one.low, one.high))):
            reasons.append(f"{one.metric} is not defined for both versions on these scenes")
        elif one.is_worse:
            reasons.append(
                f"{one.metric} is worse: {one.champion:.4f} -> {one.challenger:.4f}, gain {one.difference:+.4f} with "
                f"{100 * settings.interval:g} % interval [{one.low:+.4f}, {one.high:+.4f}] over "
                f"{len(challenger.scenes)} scenes"
            )
    return Verdict(tuple(dict.fromkeys(reasons)), tuple(comparisons))


def compare(
    champion: Sequence[SceneScores], challenger: Sequence[SceneScores], settings: GateConfig
) -> list[Comparison]:
    """Paired bootstrap over scenes: each resample draws the same scenes for both, so what makes a scene hard cancels.

    Pooled metrics (mIoU, AP, PQ per image, AUC) are pooled anew over each resample. Resamples where a metric is
    undefined for either are left out of its interval.

    Args:
        champion, challenger: scores of the same scenes, in any order.
    """
    names = sorted(scene.name for scene in champion)
    before, after = ({scene.name: scene for scene in scenes} for scenes in (champion, challenger))
    generator = np.random.default_rng(settings.seed)
    draws = [np.arange(len(names)), *generator.integers(len(names), size=(settings.resamples, len(names)))]
    values = [(_pooled([before[names[i]] for i in draw]), _pooled([after[names[i]] for i in draw])) for draw in draws]
    tail = 50 * (1 - settings.interval)
    comparisons = []
    for guard in settings.guarded:
        sign = 1.0 if guard.better == "higher" else -1.0
        gains = np.array([sign * (new[guard.metric] - old[guard.metric]) for old, new in values])
        known = gains[1:][np.isfinite(gains[1:])]
        low, high = np.percentile(known, [tail, 100 - tail]) if known.size else (math.nan, math.nan)
        old, new = (values[0][side][guard.metric] for side in (0, 1))
        comparisons.append(Comparison(guard.metric, old, new, float(gains[0]), float(low), float(high)))
    return comparisons


def _pooled(scenes: Sequence[SceneScores]) -> Mapping[str, float]:
    anything = np.zeros(scenes[0].coco.shape[1], np.bool_)  # only its length is looked at
    return aggregate_scenes(scenes, anything, seed=0, resamples=0).values


def _own_reasons(one: Evidence, settings: GateConfig) -> list[str]:
    reasons = []
    if one.status != "FINISHED":
        reasons.append(f"its run is {one.status}, not FINISHED")
    dirty = one.tags.get("git.dirty")
    if dirty != "false":
        state = "its commit is unknown" if dirty is None else "it was registered from changed files"
        reasons.append(f"provenance: {state}; commit, `dvc repro`, and `pano3d register` again")
    stale = one.tags.get("provenance", "nothing was recorded")
    if stale != "ok":
        reasons.append(f"provenance: {stale}; run `dvc repro` and `pano3d register` again")
    reasons += one.damage
    if not one.scenes and not one.damage:
        reasons.append("it has no scores per scene; run `dvc repro` and `pano3d register` again")
    pooled = _pooled(one.scenes) if one.scenes else {}
    for guard in settings.guarded:
        recorded = one.metrics.get(guard.metric)
        if recorded is None:
            reasons.append(f"{guard.metric} is missing")
        elif not math.isfinite(recorded):
            reasons.append(f"{guard.metric} is {recorded}")
        elif pooled and not abs(recorded - pooled[guard.metric]) <= ROUNDING:
            reasons.append(
                f"{guard.metric} is recorded as {recorded:.4f}, its scenes give {pooled[guard.metric]:.4f}: they are "
                "of different evaluations"
            )
    return reasons


def _license_reasons(one: Evidence, settings: GateConfig, target: str) -> list[str]:
    allowed = settings.licenses(target)
    given = one.tags.get("license", "")
    if not given:
        return ["it has no licence tag"]
    # A model made of several works carries all their licences, and each must allow the target.
    parts = [part.strip() for part in given.replace(" AND ", ",").split(",")]
    forbidden = [part for part in parts if not any(fnmatch.fnmatchcase(part, pattern) for pattern in allowed)]
    return [f"its licence {part} does not allow the target {target!r}" for part in forbidden]


def _protocol_reasons(challenger: Evidence, champion: Evidence) -> list[str]:
    reasons = []
    for tag, what in (("protocol.sha256", "protocol"), ("scenes.sha256", "data")):
        new, old = challenger.tags.get(tag), champion.tags.get(tag)
        if new is None or new != old:
            reasons.append(
                f"{what} differs: version {challenger.number} has {_short(new)}, champion {champion.number} has "
                f"{_short(old)}; evaluate both the same way and register again"
            )
    names = [sorted(scene.name for scene in one.scenes) for one in (challenger, champion)]
    if not reasons and names[0] != names[1]:
        reasons.append("data differs: the two were scored on other scenes")
    if not reasons and len({one.scenes[0].coco.shape for one in (challenger, champion) if one.scenes}) > 1:
        reasons.append("protocol differs: the two were scored with other classes")
    return reasons


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
