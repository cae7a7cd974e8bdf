"""The store: found from anywhere, created by several at once, followed when its folder moves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pano3d import tracking
from pano3d.tracking import store
from tests.tracking.conftest import make_project
from tests.tracking.test_runs import PARAMS

ROOT = Path(__file__).parents[2]


def test_the_database_is_the_projects_by_absolute_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(project / "deep/er")
    assert store.address() == f"sqlite:///{project}/mlflow.db"


def test_a_temporary_copy_writes_into_the_project_it_came_from(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_project(tmp_path / "copy"))
    monkeypatch.setenv("DVC_ROOT", str(project))
    with tracking.run("evaluate", PARAMS) as run:
        run.log_dict({}, "x.json")
    assert not (tmp_path / "copy/mlflow.db").exists()
    assert list((project / "mlartifacts").rglob("x.json"))
    assert run.run_id is not None


def test_three_first_users_at_once(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    code = f"from pano3d import tracking\nwith tracking.run('evaluate', {PARAMS!r}) as run: run.log('loss', 1.0)"
    environment = {key: value for key, value in os.environ.items() if key not in ("DVC_ROOT", "MLFLOW_TRACKING_URI")}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0, 0], ends


def test_artifacts_are_found_after_the_project_moved(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.run("evaluate", PARAMS) as run:
        run.log_dict({"a": 1}, "x.json")
    moved = Path(shutil.move(project, tmp_path / "moved"))
    monkeypatch.chdir(moved)
    opened = store.open_store()
    location = opened.client.get_run(run.run_id).info.artifact_uri
    assert Path(location.removeprefix("file://")).is_relative_to(moved)
    assert [one.path for one in opened.client.list_artifacts(run.run_id, "")] == ["params.yaml", "x.json"]


def test_an_unreachable_server_is_an_error_of_the_user(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(tracking.TrackingError, match="PANO3D_TRACKING=off"), tracking.run("evaluate", PARAMS):
        pass


def test_the_switch_is_read_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANO3D_TRACKING", "no")
    with pytest.raises(tracking.TrackingError, match="expected on or off"):
        store.is_on()
