"""The store: found from anywhere, created by several at once, followed when its folder moves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from pano3d import tracking
from pano3d.tracking import store
from tests import services
from tests.tracking.conftest import make_project
from tests.tracking.test_runs import PARAMS


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


@pytest.mark.parametrize("projects", [1, 2], ids=["of one project", "of two projects with one store"])
def test_first_users_at_once(tmp_path: Path, projects: int) -> None:
    """They make the database, and then all write into it: none is told that it is locked."""
    places = [make_project(tmp_path / f"project{number}") for number in range(projects)]
    shared = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'shared.db'}"} if projects > 1 else {}
    services.write_at_once(places, 4, shared)
    # Each writer's two runs, and those above them, one for each commit; 50 values and a peak of memory each.
    assert services.contents(places[0], shared).split()[1:3] in (["9", "408"], ["10", "408"])


@pytest.mark.parametrize("names", [("moved",), ("two words", "Möbel #2", "back")])
def test_artifacts_of_every_experiment_are_found_after_the_project_moved(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """Runs of several stages, of an ablation, and the parents; moved more than once, also to names that URIs escape."""
    opened, told = store.open_store(), []
    for stage in ("prepare", "geometry_init", "evaluate"):
        with tracking.run(stage, PARAMS) as run:
            run.log_dict({"stage": stage}, "deep/x.json")
        told.append((run.run_id, stage))
    ablation = opened.client.create_run(opened.experiment("ablation/rooms")).info.run_id
    opened.client.log_dict(ablation, {"stage": "ablation"}, "deep/x.json")
    told.append((ablation, "ablation"))
    place = project
    for name in names:
        place = Path(shutil.move(place, tmp_path / name))
        monkeypatch.chdir(place)
        opened = store.open_store()
        assert len({opened.client.get_run(run_id).info.experiment_id for run_id, _ in told}) == 4
        for run_id, stage in told:
            location = urlparse(opened.client.get_run(run_id).info.artifact_uri).path
            assert Path(url2pathname(location)).is_relative_to(place)
            found = opened.client.download_artifacts(run_id, "deep/x.json")
            assert json.loads(Path(found).read_text()) == {"stage": stage}
        # New runs go where the old ones are.
        with tracking.run("evaluate", PARAMS) as run:
            run.log_dict({"stage": name}, "deep/x.json")
        told.append((run.run_id, name))
    assert not [path for path in tmp_path.iterdir() if path not in (place,)]


def test_experiments_say_what_they_hold_and_open_as_training(opened: store.Store) -> None:
    for name, words in (("evaluate", "Runs of evaluate"), ("ablation/rooms", "The ablation rooms")):
        found = opened.client.get_experiment(opened.experiment(name))
        assert found.name == f"pano3d/{name}"
        assert words in found.tags["mlflow.note.content"]
        assert found.tags["mlflow.experimentKind"] == "custom_model_development"
    top = opened.client.get_experiment(opened.experiment_id)
    assert "`reproduction`" in top.tags["mlflow.note.content"]


def test_an_unreachable_server_is_an_error_of_the_user(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(tracking.TrackingError, match="PANO3D_TRACKING=off"), tracking.run("evaluate", PARAMS):
        pass


def test_a_password_in_the_address_is_not_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in ours nor in what MLflow says of the address it could not reach."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(tracking.TrackingError) as caught:
        store.open_store()
    assert "secret" not in str(caught.value)
    assert "http://anna:***@127.0.0.1:9" in str(caught.value)
    assert store.masked("sqlite:////home/anna/a:b@c/mlflow.db") == "sqlite:////home/anna/a:b@c/mlflow.db"


def test_the_switch_is_read_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANO3D_TRACKING", "no")
    with pytest.raises(tracking.TrackingError, match="expected on or off"):
        store.is_on()
