"""Champions: who becomes one, who was one before, and what is on record about it.

Aliases of a registered model: `challenger` (registered last), `champion` (in use), `previous` (in use before). Every
attempt, accepted or not, is a run with the stage tag `promote` or `rollback` and its verdict as artifacts.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pano3d import config
from pano3d.metrics.scene_scores import SceneScores, scene_from_plain
from pano3d.tracking import gate, processes, registry, store
from pano3d.tracking.gate import Evidence, GateConfig, Verdict
from pano3d.tracking.registry import CHAMPION, PREVIOUS
from pano3d.tracking.store import Store, TrackingError
from pano3d.types import WeightsError

STALE = 900.0  # seconds after which a promotion of another machine counts as dead; one takes a minute
_LONGEST_TAG = 4000


class PromotionBusyError(TrackingError):
    """Another promotion or rollback of this model is under way, or has just changed the champion."""


@dataclass(frozen=True)
class Request:
    """by: who asks. why: their reason. target: what the champion is for; that of the present champion by default."""

    by: str
    why: str = ""
    target: str | None = None


@dataclass(frozen=True)
class Outcome:
    """champion: the version the decision was made against, None at the first. changed: the alias was moved."""

    name: str
    number: str
    champion: str | None
    verdict: Verdict
    changed: bool


def promote(name: str, number: str, settings: GateConfig, request: Request, dry_run: bool = False) -> Outcome:
    """Make a version the champion if the gate lets it.

    Args:
        dry_run: judge, and change and record nothing.

    Raises:
        WeightsError: there is no such version.
        PromotionBusyError: somebody else is promoting this model: of two at once, one goes on.
        TrackingError: the store cannot be reached.
        ConfigError: the target is unknown.
    """
    opened = store.open_store()
    version = find(opened, name, number)
    seen = aliases(opened, name).get(CHAMPION)
    if seen == number:
        return Outcome(name, number, seen, Verdict(()), False)
    with _alone(opened, name, request) as still_alone:
        _expect_champion(opened, name, seen)
        over = None if seen is None else find(opened, name, seen)
        target = request.target or (over.tags.get("promotion.target") if over else None) or settings.target
        settings.licenses(target)
        judged = [None if one is None else gather_evidence(opened, one) for one in (version, over)]
        assert judged[0] is not None
        verdict = gate.judge(judged[0], judged[1], settings, target)
        outcome = Outcome(name, number, seen, verdict, verdict.accepted and not dry_run)
        if dry_run:
            return outcome
        still_alone()
        _expect_champion(opened, name, seen)
        about = {
            **_about("promotion", request, "" if seen is None else f"not worse than version {seen}"),
            "promotion.over": seen or "none",
            "promotion.target": target,
        }
        run_id = _record(opened, "promote", outcome, about)
        if verdict.accepted:
            # `previous` first: whatever happens in between, the way back is known.
            if seen is not None:
                opened.client.set_registered_model_alias(name, PREVIOUS, seen)
            opened.client.set_registered_model_alias(name, CHAMPION, number)
            _tag(opened, name, number, {**about, "promotion.run_id": run_id})
        else:
            _tag(opened, name, number, {"promotion.refused": "; ".join(verdict.reasons), "promotion.run_id": run_id})
    return outcome


def roll_back(name: str, request: Request) -> Outcome:
    """Make the previous champion the champion again; the one it had replaced becomes `previous`.

    Raises:
        WeightsError: there is no previous champion, or its files are damaged.
        PromotionBusyError, TrackingError: as in `promote`.
    """
    opened = store.open_store()
    with _alone(opened, name, request) as still_alone:
        known = aliases(opened, name)
        champion, previous = known.get(CHAMPION), known.get(PREVIOUS)
        if previous is None or previous == champion:
            raise WeightsError(f"rolling back {name}: it has no previous champion; `pano3d promote` chooses one")
        version = find(opened, name, previous)
        damage = gather_evidence(opened, version).damage
        if damage:
            raise WeightsError(f"rolling back {name} to version {previous}: {'; '.join(damage)}")
        still_alone()
        outcome = Outcome(name, previous, champion, Verdict(()), True)
        about = {**_about("rollback", request, f"back from version {champion}"), "rollback.to": previous}
        run_id = _record(opened, "rollback", outcome, about)
        opened.client.set_registered_model_alias(name, CHAMPION, previous)
        before = version.tags.get("promotion.over", "none")
        if before == "none":
            opened.client.delete_registered_model_alias(name, PREVIOUS)
        else:
            opened.client.set_registered_model_alias(name, PREVIOUS, before)
        if champion is not None:
            _tag(opened, name, champion, {**about, "rollback.run_id": run_id})
    return outcome


def aliases(opened: Store, name: str) -> dict[str, str]:
    """Version by alias.

    Raises:
        WeightsError: there is no such model.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = opened.client.get_registered_model(name).aliases
    except MlflowException as error:
        raise _missing(error, f"finding the model {name!r}") from error
    return {alias: str(number) for alias, number in found.items()}


def gather_evidence(opened: Store, version: Any) -> Evidence:
    """What the gate looks at, every file compared with its recorded digest."""
    run = opened.client.get_run(version.run_id)
    metrics = {
        name.removeprefix("evaluate."): value
        for name, value in run.data.metrics.items()
        if name.startswith("evaluate.")
    }
    with tempfile.TemporaryDirectory() as folder:
        scenes, damage = _scenes(opened, version, Path(folder))
        damage += _damaged_files(opened, version, Path(folder))
    return Evidence(str(version.version), run.info.status, version.tags, metrics, scenes, damage)


def _scenes(opened: Store, version: Any, folder: Path) -> tuple[list[SceneScores], list[str]]:
    """Scores of the joint model scene by scene, or what is wrong with their files."""
    wanted = version.tags.get("scores.sha256")
    if wanted is None:
        return [], []
    try:
        place = Path(_fetch(opened, version.run_id, "evaluate", folder))
        if registry.scores_digest(place) != wanted:
            return [], ["the scores per scene do not match their digest"]
    except Exception as error:  # MLflow raises whatever its store raises
        return [], [f"the scores per scene cannot be read: {str(error).splitlines()[0]}"]
    plain = json.loads((place / "scenes.json").read_text(encoding="utf-8"))["joint"]
    return [scene_from_plain(one) for one in plain], []


def _damaged_files(opened: Store, version: Any, folder: Path) -> list[str]:
    """Files of the registered model that are missing, changed or surplus: its code is executed when it is loaded."""
    wanted = version.tags.get("files.sha256")
    if wanted is None:
        return ["no digests of its files were recorded; `pano3d register` again"]
    import mlflow.artifacts

    try:
        digests = json.loads(Path(_fetch(opened, version.run_id, registry.DIGESTS, folder)).read_text(encoding="utf-8"))
        if config.digest(digests) != wanted:
            return ["the list of its files' digests does not match its own digest"]
        with registry.mlflow_at(opened.uri):
            uri = f"models:/{version.name}/{version.version}"
            found = registry.file_digests(Path(mlflow.artifacts.download_artifacts(artifact_uri=uri)))
    except Exception as error:  # as above
        return [f"its files cannot be read: {str(error).splitlines()[0]}"]
    wrong = [name for name in sorted(digests.keys() | found.keys()) if digests.get(name) != found.get(name)]
    weights = [digest for name, digest in digests.items() if name.endswith("/weights.safetensors")]
    if weights != [version.tags.get("weights.sha256")]:
        wrong.append("weights.safetensors")
    return [f"{name} does not match its digest" for name in wrong]


def _fetch(opened: Store, run_id: str, path: str, folder: Path) -> str:
    found: str = opened.client.download_artifacts(run_id, path, str(folder))
    return found


def find(opened: Store, name: str, number: str) -> Any:
    """The version as MLflow knows it.

    Raises:
        WeightsError: there is no such version.
        TrackingError: the store cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    try:
        return opened.client.get_model_version(name, number)
    except MlflowException as error:
        raise _missing(error, f"finding version {number} of {name!r}") from error


def _missing(error: Exception, doing: str) -> TrackingError | WeightsError:
    from pano3d.tracking.outbox import is_outage

    reason = str(error).splitlines()[0]
    if is_outage(error):
        return TrackingError(f"{doing}: {reason}; is the tracking server up?")
    return WeightsError(f"{doing}: {reason}; see `mlflow ui`, Models")


def _expect_champion(opened: Store, name: str, seen: str | None) -> None:
    now = aliases(opened, name).get(CHAMPION)
    if now != seen:
        raise PromotionBusyError(
            f"promoting {name}: the champion was version {seen or 'none'} and is version {now or 'none'} now: somebody "
            "else was faster; look at it and start again"
        )


@contextmanager
def _alone(opened: Store, name: str, request: Request) -> Iterator[Any]:
    """One promotion or rollback of a model at a time, on whatever machines they run.

    The name of a registered model is unique in every store MLflow has, so making one named `<model>.promotion` is a
    lock that the store itself keeps. Yields a function that raises when the lock was taken away.
    """
    from mlflow.exceptions import MlflowException

    lock, token = f"{name}.promotion", secrets.token_hex(8)
    tags = {**processes.this_process(), "by": request.by, "since": f"{time.time():.0f}", "token": token}
    aliases(opened, name)  # there must be a model to promote
    for attempt in (1, 2):
        try:
            opened.client.create_registered_model(lock, tags=tags, description="a promotion is under way")
            break
        except MlflowException as error:
            held = _holder(opened, lock)
            if held is None and attempt == 1:
                continue  # let go of in this moment
            if attempt == 1 and (not processes.is_alive(held) or time.time() - float(held["since"]) > STALE):
                with suppress(MlflowException):
                    opened.client.delete_registered_model(lock)
                continue
            raise PromotionBusyError(
                f"promoting {name}: {held['by'] if held else 'somebody else'} is at it; wait a minute, look at the "
                "champion, and start again"
            ) from error

    def still_alone() -> None:
        held = _holder(opened, lock)
        if held is None or held["token"] != token:
            raise PromotionBusyError(f"promoting {name}: it took so long that somebody else took over; start again")

    try:
        yield still_alone
    finally:
        held = _holder(opened, lock)
        if held is not None and held["token"] == token:
            opened.client.delete_registered_model(lock)


def _holder(opened: Store, lock: str) -> Any:
    """Tags of the lock, None when nobody holds it."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(opened.client.get_registered_model(lock).tags)
    except MlflowException:
        return None


def _about(kind: str, request: Request, why: str) -> dict[str, str]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {f"{kind}.by": request.by, f"{kind}.at": now, f"{kind}.why": request.why or why or "first champion"}


def _tag(opened: Store, name: str, number: str, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        opened.client.set_model_version_tag(name, number, key, value[:_LONGEST_TAG])


def _record(opened: Store, stage: str, outcome: Outcome, about: Mapping[str, str]) -> str:
    """The attempt as a run of its own, refused ones too."""
    verdict = outcome.verdict
    tags = {
        **processes.this_process(),
        **about,
        "stage": stage,
        "model": outcome.name,
        "version": outcome.number,
        "verdict": "accepted" if verdict.accepted else "refused",
        "reasons": "; ".join(verdict.reasons)[:_LONGEST_TAG] or "none",
    }
    named = f"{stage} {outcome.name} {outcome.number}"
    run = opened.client.create_run(opened.experiment(stage), tags=tags, run_name=named)
    run_id = str(run.info.run_id)
    opened.client.log_dict(run_id, {**about, **asdict(outcome)}, "verdict.json")
    for one in verdict.comparisons:
        for part in ("champion", "challenger", "difference", "low", "high"):
            opened.client.log_metric(run_id, f"{one.metric}.{part}", getattr(one, part))
    opened.client.set_terminated(run_id, "FINISHED")
    return run_id
