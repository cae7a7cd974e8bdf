"""Promotion in a store: aliases, records, refusals, and two at once."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest

from pano3d.metrics.scene_scores import SceneScores
from pano3d.tracking import promotion, registry, runs, store
from pano3d.tracking.promotion import PromotionBusyError, Request, aliases, promote, roll_back
from pano3d.types import WeightsError
from tests.tracking.scores import PROTOCOL, pooled, scenes, write_scores
from tests.tracking.test_gate import SETTINGS

NAME = "pano3d-must3r"
ME = Request("ada@here", "looks right")


def add_version(opened: store.Store, folder: Path, each: list[SceneScores], **tags: str) -> str:
    """A registered version with the files and digests `register` leaves, without the cost of MLflow's model packing."""
    from mlflow.exceptions import MlflowException

    scores = write_scores(folder / "evaluate", each)
    model = folder / "model/artifacts/joint"
    model.mkdir(parents=True)
    (model / "weights.safetensors").write_bytes(folder.name.encode())
    digests = registry.file_digests(folder / "model")
    client = opened.client
    run_id = client.create_run(opened.experiment_id, run_name="register").info.run_id
    client.log_artifacts(run_id, str(folder / "model"), "model")
    client.log_artifacts(run_id, str(scores), "evaluate")
    client.log_dict(run_id, digests, registry.DIGESTS)
    for name, value in pooled(each).items():
        if name in {guard.metric for guard in SETTINGS.guarded}:
            client.log_metric(run_id, f"evaluate.{name}", round(value, 4))
    client.set_terminated(run_id, "FINISHED")
    about = {
        "git.dirty": "false",
        "provenance": "ok",
        "license": "Apache-2.0",
        "protocol.sha256": "p",
        "scenes.sha256": "s",
        "scores.sha256": registry.scores_digest(scores),
        "files.sha256": registry.config.digest(digests),
        "weights.sha256": digests["artifacts/joint/weights.safetensors"],
    }
    with contextlib.suppress(MlflowException):
        client.create_registered_model(NAME)
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    return str(client.create_model_version(NAME, source, run_id, tags={**about, **tags}).version)


def stored(opened: store.Store, number: str, name: str) -> Path:
    """A file of a version where the store keeps it."""
    run = opened.client.get_run(opened.client.get_model_version(NAME, number).run_id)
    return Path(run.info.artifact_uri.removeprefix("file://")) / name


def test_the_line_of_champions_and_the_way_back(opened: store.Store, tmp_path: Path) -> None:
    for index in range(3):
        add_version(opened, tmp_path / f"v{index + 1}", scenes(0.01 * index))
    assert promote(NAME, "1", SETTINGS, ME).champion is None
    assert aliases(opened, NAME) == {"champion": "1"}
    again = promote(NAME, "1", SETTINGS, ME)
    assert (again.changed, again.verdict.accepted) == (False, True)
    assert promote(NAME, "2", SETTINGS, ME).champion == "1"
    assert promote(NAME, "3", SETTINGS, Request("bob")).champion == "2"
    assert aliases(opened, NAME) == {"champion": "3", "previous": "2"}
    tags = opened.client.get_model_version(NAME, "3").tags
    assert tags["promotion.by"] == "bob"
    assert tags["promotion.why"] == "not worse than version 2"
    assert tags["promotion.at"].startswith("20")
    assert (tags["promotion.over"], tags["promotion.target"]) == ("2", "research")

    assert roll_back(NAME, ME).number == "2"
    assert aliases(opened, NAME) == {"champion": "2", "previous": "1"}
    assert opened.client.get_model_version(NAME, "3").tags["rollback.why"] == "looks right"
    roll_back(NAME, ME)
    assert aliases(opened, NAME) == {"champion": "1"}
    with pytest.raises(WeightsError, match="no previous champion"):
        roll_back(NAME, ME)
    told = runs.search(opened, {"model": NAME})
    assert [one.data.tags["stage"] for one in told] == ["rollback", "rollback", "promote", "promote", "promote"]
    assert {one.info.status for one in told} == {"FINISHED"}


def test_a_refusal_changes_no_alias_and_is_on_record(opened: store.Store, tmp_path: Path) -> None:
    add_version(opened, tmp_path / "v1", scenes())
    add_version(opened, tmp_path / "v2", scenes(-0.05))
    promote(NAME, "1", SETTINGS, ME)
    outcome = promote(NAME, "2", SETTINGS, ME)
    assert not outcome.changed
    assert aliases(opened, NAME) == {"champion": "1"}
    assert "pq_scene is worse" in opened.client.get_model_version(NAME, "2").tags["promotion.refused"]
    run = runs.search(opened, {"stage": "promote"})[0]
    assert run.data.tags["verdict"] == "refused"
    assert run.data.metrics["pq_scene.difference"] == pytest.approx(-0.05)
    assert [one.path for one in opened.client.list_artifacts(run.info.run_id)] == ["verdict.json"]


def test_a_dry_run_leaves_no_trace(opened: store.Store, tmp_path: Path) -> None:
    add_version(opened, tmp_path / "v1", scenes())
    outcome = promote(NAME, "1", SETTINGS, ME, dry_run=True)
    assert outcome.verdict.accepted
    assert not outcome.changed
    assert aliases(opened, NAME) == {}
    assert runs.search(opened, {"stage": "promote"}) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model/artifacts/joint/weights.safetensors", "artifacts/joint/weights.safetensors does not match"),
        ("model/surprise.py", "surprise.py does not match its digest"),
        ("evaluate/scenes.json", "scores per scene do not match"),
        ("digests.json", "list of its files' digests does not match"),
    ],
)
def test_a_changed_file_is_found(opened: store.Store, tmp_path: Path, name: str, reason: str) -> None:
    add_version(opened, tmp_path / "v1", scenes())
    path = stored(opened, "1", name)
    path.write_bytes(b"{}")
    assert reason in "; ".join(promote(NAME, "1", SETTINGS, ME).verdict.reasons)


def test_a_damaged_previous_champion_is_not_restored(opened: store.Store, tmp_path: Path) -> None:
    for index in range(2):
        add_version(opened, tmp_path / f"v{index + 1}", scenes(0.01 * index))
        promote(NAME, str(index + 1), SETTINGS, ME)
    stored(opened, "1", "model/artifacts/joint/weights.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsError, match="does not match its digest"):
        roll_back(NAME, ME)
    assert aliases(opened, NAME) == {"champion": "2", "previous": "1"}


def test_a_champion_keeps_its_target(opened: store.Store, tmp_path: Path) -> None:
    add_version(opened, tmp_path / "v1", scenes())
    add_version(opened, tmp_path / "v2", scenes(0.1), license="CC-BY-NC-4.0")
    promote(NAME, "1", SETTINGS, dataclasses.replace(ME, target="commercial"))
    assert "does not allow the target 'commercial'" in str(promote(NAME, "2", SETTINGS, ME).verdict.reasons)
    assert promote(NAME, "2", SETTINGS, dataclasses.replace(ME, target="research")).changed


def test_of_two_at_once_exactly_one_wins(opened: store.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have looked at the champion before either moves on; repeated, since a race is lost only sometimes."""
    for index in range(7):
        add_version(opened, tmp_path / f"v{index + 1}", scenes(0.01 * index))
    promote(NAME, "1", SETTINGS, ME)
    for first, second in (("2", "3"), ("4", "5"), ("6", "7")):
        barrier, ends = threading.Barrier(2), {}
        alone = promotion._alone

        def wait(*values: Any, barrier: threading.Barrier = barrier, alone: Any = alone) -> Any:
            barrier.wait(30)
            return alone(*values)

        def attempt(number: str, ends: dict[str, Any] = ends) -> None:
            try:
                ends[number] = promote(NAME, number, SETTINGS, ME).changed
            except PromotionBusyError as error:
                ends[number] = str(error)

        monkeypatch.setattr(promotion, "_alone", wait)
        threads = [threading.Thread(target=attempt, args=(number,)) for number in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monkeypatch.setattr(promotion, "_alone", alone)
        winners = [number for number, end in ends.items() if end is True]
        assert len(winners) == 1, ends
        assert aliases(opened, NAME)["champion"] == winners[0]
        assert any("start again" in str(end) for end in ends.values())
    assert [one.name for one in opened.client.search_registered_models()] == [NAME]


def test_the_lock_of_a_dead_process_is_taken_over(opened: store.Store, tmp_path: Path) -> None:
    add_version(opened, tmp_path / "v1", scenes())
    held = {**promotion.processes.this_process(), "by": "eve", "since": "9999999999", "token": "x"}
    opened.client.create_registered_model(f"{NAME}.promotion", tags=held)
    with pytest.raises(PromotionBusyError, match="eve is at it"):
        promote(NAME, "1", SETTINGS, ME)
    opened.client.set_registered_model_tag(f"{NAME}.promotion", "process", "999999 1")
    assert promote(NAME, "1", SETTINGS, ME).changed


def test_an_unknown_model_or_version_is_named(opened: store.Store, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="finding version 1 of 'pano3d-must3r'"):
        promote(NAME, "1", SETTINGS, ME)
    add_version(opened, tmp_path / "v1", scenes())
    with pytest.raises(WeightsError, match="finding version 9"):
        promote(NAME, "9", SETTINGS, ME)


def test_the_digest_of_scores_covers_every_file(tmp_path: Path) -> None:
    folder = write_scores(tmp_path, scenes(count=1))
    first = registry.scores_digest(folder)
    write_scores(tmp_path, scenes(count=1), {**PROTOCOL, "decisions": {}})
    assert registry.scores_digest(folder) != first
