"""The gate as a flow: the same verdict as the command, and a person who says yes or no before the alias moves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from flows.children import ChildFailedError
from flows.promote import ApprovalError, promote
from pano3d import config
from pano3d.tracking import runs, store
from pano3d.tracking.promotion import aliases
from tests.project import ROOT
from tests.tracking.conftest import make_project, migrated
from tests.tracking.scores import scenes
from tests.tracking.test_promotion import NAME, add_version

__all__ = ["migrated"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=240):
        yield


@pytest.fixture
def project(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with version 1, version 2, which is worse, and version 3, which is better."""
    folder = make_project(tmp_path / "project")
    shutil.copy(migrated, folder / "mlflow.db")
    settings = config.read(ROOT / "params/promote.yaml")
    (folder / "params").mkdir()
    config.write(folder / "params/promote.yaml", {**settings, "resamples": 100})
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "PANO3D_TRACKING", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(folder)
    opened = store.open_store()
    for number, gain in enumerate((0.0, -0.05, 0.05), start=1):
        assert add_version(opened, tmp_path / f"v{number}", scenes(gain)) == str(number)
    return folder


def answered(version: int, folder: Path, **answer: Any) -> object:
    """What becomes of a promotion with approval whose question is answered like this: None, or its error."""
    ends: list[object] = []

    def ask() -> None:
        try:
            ends.append(promote(NAME, version, str(folder), approval=True, waiting=300))
        except Exception as error:
            ends.append(error)

    asking = threading.Thread(target=ask)
    with get_client(sync_client=True) as client:
        known = {one.id for one in client.read_flow_runs()}
        asking.start()
        paused = None
        while paused is None:
            assert asking.is_alive(), ends
            time.sleep(0.2)
            new = [one for one in client.read_flow_runs() if one.id not in known]
            paused = next((one for one in new if one.state is not None and one.state.is_paused()), None)
        assert aliases(store.open_store(), NAME).get("champion") == "1"  # not before the answer
        client.resume_flow_run(paused.id, run_input=answer)
    asking.join()
    return ends[0]


def test_the_flow_promotes_what_the_gate_lets_through_and_fails_with_the_rest(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    promote(NAME, 1, str(project), why="the first")
    assert store.open_store().client.get_model_version(NAME, "1").tags["promotion.why"] == "the first"
    with pytest.raises(ChildFailedError, match="exit code 1"):
        promote(NAME, 2, str(project))
    assert "refused: pq_scene is worse" in capfd.readouterr().out
    opened = store.open_store()
    assert aliases(opened, NAME) == {"champion": "1"}
    # What the gate refuses is judged and not attempted: nobody asked for it to be on record.
    assert len(runs.search(opened, {"stage": "promote"})) == 1


def test_a_person_decides(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(NAME, 1, str(project))
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    end = answered(3, project, approve=False, by="bob", why="not on a Friday")
    assert isinstance(end, ApprovalError)
    assert "bob said no: not on a Friday" in str(end)
    assert aliases(store.open_store(), NAME) == {"champion": "1"}
    assert answered(3, project, approve=True, by="ada", why="seen the rooms") is None
    opened = store.open_store()
    assert aliases(opened, NAME) == {"champion": "3", "previous": "1"}
    tags = opened.client.get_model_version(NAME, "3").tags
    assert (tags["promotion.by"], tags["promotion.why"]) == ("ada", "seen the rooms")


def test_approval_without_a_server_is_refused_at_once(project: Path) -> None:
    with pytest.raises(ApprovalError, match="PREFECT_API_URL"):
        promote(NAME, 1, str(project), approval=True)
    assert aliases(store.open_store(), NAME) == {}


def test_the_command_ends_with_the_reason(project: Path) -> None:
    command = [sys.executable, "-m", "flows.promote", NAME, "9"]
    given = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "finding version 9" in done.stderr
    usage = subprocess.run(command[:3], env=given, capture_output=True, text=True, check=False)
    assert (usage.returncode, usage.stderr) == (1, "usage: python -m flows.promote NAME VERSION\n")
