"""A real MLflow server that is stopped in the middle of trainings and comes back: one outage, four trainings.

One lives to see the server again, one ends before that, one ends and loses its watchdog too, one is killed by SIGKILL.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.project import ROOT, call, environment
from tests.services import free_port
from tests.tracking.conftest import make_project
from tests.tracking.test_runs import PARAMS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = [2, 4, 6, 8]
# The loop itself on three small scenes; it stops after each line of its curve until it is told to go on.
TRAINING = f"""
import json, sys
from pathlib import Path
import torch
from pano3d import tracking
from pano3d.tracking import runs
from pano3d.training.loop import train
from tests.training import small

runs.FLUSH_EVERY = 0.0
folder = Path(sys.argv[1])
told = []

def log(values, step):
    run.log_metrics(values, step)
    told.append((step, values["loss/total"]))
    (folder / "told.json").write_text(json.dumps(told))
    print(step, flush=True)
    sys.stdin.readline()

with tracking.run("geometry_init", {PARAMS!r}) as run:
    print(run.run_id, flush=True)
    paths, objective = small.archives(folder), small.objective()
    train(
        small.model(), objective, paths, small.training({STEPS[-1]}), 3, folder / "state.pt", torch.device("cpu"), log
    )
    run.log_artifact(folder / "told.json", "curves")
"""


class Server:
    """An MLflow server over SQLite that can be stopped and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = ["mlflow", "server", "--host=127.0.0.1", f"--port={self.port}", "--workers=1", "--serve-artifacts"]
        words += [f"--backend-store-uri=sqlite:///{self.folder}/mlflow.db"]
        words += [f"--artifacts-destination={self.folder}/artifacts"]
        given = environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, env=given, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 240
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-4000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


class Training:
    """A process that trains, one line of its curve at a time."""

    def __init__(self, project: Path, uri: str, folder: Path) -> None:
        folder.mkdir()
        given = environment() | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
        self.project, self.folder = project, folder
        with (folder / "said").open("w") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", TRAINING, str(folder)],
                cwd=project,
                env=given,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )

    def hear(self) -> str:
        """The next line it says: its run, then every step with a line in the curve."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, self.said
        return line

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def finish(self) -> None:
        """To the end, which must be a good one."""
        assert self._process.communicate("\n" * len(STEPS), timeout=300)
        assert self._process.returncode == 0, self.said

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    @property
    def curve(self) -> list[list[float]]:
        """What it told: step and loss."""
        found: list[list[float]] = json.loads((self.folder / "told.json").read_text())
        return found


@dataclass(frozen=True)
class Outage:
    """What was left of it: trainings and their runs by name, whether messages waited after the end of `outlived`."""

    client: Any
    trainings: dict[str, Training]
    runs: dict[str, str]
    waited: bool

    def wait_for_end(self, name: str) -> str:
        """The status of a run once it is not RUNNING any more; a watchdog asks every 15 seconds."""
        deadline = time.monotonic() + 240
        while (status := str(self.client.get_run(self.runs[name]).info.status)) == "RUNNING":
            assert time.monotonic() < deadline, self.trainings[name].said
            time.sleep(0.5)
        return status

    def curve(self, name: str) -> list[list[float]]:
        """What the server has of it."""
        return [[one.step, one.value] for one in self.client.get_metric_history(self.runs[name], "loss/total")]

    def waiting_room(self, name: str) -> Path:
        return self.trainings[name].project / "work/tracking" / self.runs[name]

    def artifacts(self, name: str) -> list[str]:
        return [one.path for one in self.client.list_artifacts(self.runs[name])]


def kill_watchdogs(runs: list[str]) -> None:
    for process in psutil.process_iter(["cmdline"]):
        if set(runs) & set(process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Outage]:
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("outage")
    project = make_project(folder / "project")
    alone = make_project(folder / "alone")  # where no other watchdog comes by
    server = Server(folder)
    shutil.copy(migrated, folder / "mlflow.db")
    trainings: dict[str, Training] = {}
    runs: dict[str, str] = {}
    server.start()
    try:
        places = {"survivor": project, "outlived": project, "unwatched": alone, "killed": project}
        trainings |= {name: Training(place, server.uri, folder / name) for name, place in places.items()}
        runs |= {name: one.hear() for name, one in trainings.items()}
        assert {one.hear() for one in trainings.values()} == {"2"}
        server.stop()
        trainings["outlived"].finish()
        waited = (project / "work/tracking" / runs["outlived"] / "journal.jsonl").is_file()
        trainings["unwatched"].finish()
        kill_watchdogs([runs["unwatched"]])
        for name in ("survivor", "killed"):
            for step in ("4", "6"):
                trainings[name].go_on()
                assert trainings[name].hear() == step
        trainings["killed"].kill()
        server.start()
        trainings["survivor"].finish()
        yield Outage(MlflowClient(server.uri), trainings, runs, waited)
    finally:
        for one in trainings.values():
            one.kill()
        server.stop()
        kill_watchdogs(list(runs.values()))  # who may not have asked since, and would go on asking for an hour


def test_a_training_that_sees_the_server_again_has_told_everything_at_its_end(outage: Outage) -> None:
    assert outage.client.get_run(outage.runs["survivor"]).info.status == "FINISHED"  # at once, by itself
    assert outage.curve("survivor") == outage.trainings["survivor"].curve
    assert [step for step, _ in outage.curve("survivor")] == STEPS
    assert "curves" in outage.artifacts("survivor")
    assert not outage.waiting_room("survivor").exists()
    said = outage.trainings["survivor"].said
    assert said.count("does not answer") == 1
    assert "everything that waited is delivered" in said


def test_a_training_that_ended_before_is_delivered_and_finished_by_its_watchdog(outage: Outage) -> None:
    assert outage.waited
    assert outage.wait_for_end("outlived") == "FINISHED"
    assert outage.curve("outlived") == outage.trainings["outlived"].curve
    assert [step for step, _ in outage.curve("outlived")] == STEPS
    assert "curves" in outage.artifacts("outlived")


def test_a_killed_training_keeps_what_it_told_and_does_not_stay_running(outage: Outage) -> None:
    assert outage.wait_for_end("killed") == "KILLED"
    assert outage.curve("killed") == outage.trainings["killed"].curve
    assert [step for step, _ in outage.curve("killed")] == [2, 4, 6]


def test_without_a_watchdog_the_next_run_of_the_project_delivers(outage: Outage) -> None:
    assert outage.client.get_run(outage.runs["unwatched"]).info.status == "RUNNING"
    assert outage.waiting_room("unwatched").is_dir()
    code = f"from pano3d import tracking\nwith tracking.run('report', {PARAMS!r}): pass"
    given = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": outage.client.tracking_uri}
    call(outage.trainings["unwatched"].project, sys.executable, "-W", "ignore", "-c", code, **given)
    assert outage.client.get_run(outage.runs["unwatched"]).info.status == "FINISHED"
    assert outage.curve("unwatched") == outage.trainings["unwatched"].curve
    assert not outage.waiting_room("unwatched").exists()
