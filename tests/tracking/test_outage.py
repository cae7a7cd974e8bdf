"""A store that goes away in the middle: nothing is lost, nothing waits for it, no run stays RUNNING."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import matplotlib as mpl
import pandas as pd
import psutil
import pytest
from matplotlib.figure import Figure

from pano3d import tracking
from pano3d.tracking import outbox, runs, store
from tests.tracking.test_runs import PARAMS, fetch

mpl.use("Agg")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def switch(opened: store.Store, monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """`switch["off"] = True`: every call to the store fails as if its server were gone."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    state = {"off": False}

    def wrap(name: str) -> None:
        call: Callable[..., Any] = getattr(MlflowClient, name)

        def perhaps(self: Any, *values: Any, **named: Any) -> Any:
            if state["off"]:
                raise MlflowException("connection refused")  # what MLflow makes of it: an internal error
            return call(self, *values, **named)

        monkeypatch.setattr(MlflowClient, name, perhaps)

    for name in ("log_batch", "log_artifact", "log_artifacts", "log_inputs", "set_terminated"):
        wrap(name)
    monkeypatch.setattr(runs, "FLUSH_EVERY", 0.0)
    monkeypatch.setattr(runs.watchdog, "INTERVAL", 3600.0)
    return state


def tell_all(run: tracking.Recorder, tmp_path: Path, steps: range) -> None:
    for step in steps:
        run.log("loss", 1.0 / (step + 1), step)
    run.set_tags({"during": str(steps)})
    run.log_params({"late": {"rate": 0.1}})
    (tmp_path / "maps").mkdir(exist_ok=True)
    (tmp_path / "maps/a.txt").write_text("a")
    run.log_artifact(tmp_path / "maps", "maps")
    run.log_figure(Figure(), "figures/curve.png")
    run.log_table(pd.DataFrame({"scene": ["a"]}), "tables/scenes.json")
    run.log_dict({"a": 1}, "extra.yaml")
    run.log_input(pd.DataFrame({"scene": ["a"]}), "rooms", "data/prepared/rooms", "0" * 32, "training")


def assert_complete(opened: store.Store, run: tracking.Recorder, steps: int) -> None:
    found = fetch(opened, run)
    history = opened.client.get_metric_history(run.run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(step, 1.0 / (step + 1)) for step in range(steps)]
    assert found.data.params["late.rate"] == "0.1"
    top = {one.path for one in opened.client.list_artifacts(run.run_id)}
    assert top == {"params.yaml", "maps", "figures", "tables", "extra.yaml"}
    assert [one.path for one in opened.client.list_artifacts(run.run_id, "maps")] == ["maps/a.txt"]
    assert found.inputs.dataset_inputs[0].dataset.name == "rooms"
    assert "tables/scenes.json" in found.data.tags["mlflow.loggedArtifacts"]
    assert not runs.is_waiting(str(run.run_id))


def test_what_was_told_during_an_outage_arrives_when_it_is_over(
    opened: store.Store, switch: dict[str, bool], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), tracking.run("evaluate", PARAMS) as run:
        run.log("loss", 1.0, 0)
        switch["off"] = True
        tell_all(run, tmp_path, range(1, 50))
        (tmp_path / "maps/a.txt").unlink()  # a copy waits
        switch["off"] = False
        run.log("loss", 1.0 / 51, 50)
    assert_complete(opened, run, 51)
    assert fetch(opened, run).info.status == "FINISHED"
    assert caplog.text.count("does not answer") == 1
    assert "everything that waited is delivered" in caplog.text


def test_after_the_end_the_next_run_delivers(
    opened: store.Store, switch: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.run("evaluate", PARAMS) as run:
        switch["off"] = True
        tell_all(run, tmp_path, range(20))
    assert fetch(opened, run).info.status == "RUNNING"
    assert runs.is_waiting(str(run.run_id))
    (watchdog,) = runs._left_behind
    assert watchdog.poll() is None  # would deliver when this process ends
    watchdog.kill()
    watchdog.wait()
    switch["off"] = False
    with tracking.run("report", PARAMS):
        # Its process (this one) lives: it might still be delivering itself.
        assert runs.is_waiting(str(run.run_id))
    monkeypatch.setattr(outbox.processes, "is_alive", lambda tags: False)
    with tracking.run("report", PARAMS):
        assert_complete(opened, run, 20)
        assert fetch(opened, run).info.status == "FINISHED"


def test_an_outage_costs_no_time(opened: store.Store, switch: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is asked again only after a pause, however much is told meanwhile."""
    asked: list[str] = []
    send = outbox.Outbox._send

    def count(self: outbox.Outbox, do: str, message: Any) -> bool:
        asked.append(do)
        return send(self, do, message)

    monkeypatch.setattr(outbox.Outbox, "_send", count)
    with tracking.run("evaluate", PARAMS) as run:
        switch["off"] = True
        asked.clear()
        for step in range(200):
            run.log("loss", 1.0, step)
        assert len(asked) == 1
        switch["off"] = False


def test_a_store_that_hangs_takes_a_tenth_of_the_time(
    opened: store.Store, switch: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question to it takes a minute and a half; a step takes a second and tells something."""
    clock = {"now": 1000.0}
    hung: list[float] = []
    send = outbox.Outbox._send

    def hang(self: outbox.Outbox, do: str, message: Any) -> bool:
        if switch["off"]:
            clock["now"] += 90.0
            hung.append(90.0)
        return send(self, do, message)

    with tracking.run("evaluate", PARAMS) as run:
        monkeypatch.setattr(outbox.time, "monotonic", lambda: clock["now"])
        monkeypatch.setattr(outbox.Outbox, "_send", hang)
        switch["off"] = True
        for step in range(3600):
            clock["now"] += 1.0
            run.log("loss", 1.0, step)
        switch["off"] = False
    assert len(hung) >= 2  # it is asked again
    assert sum(hung) <= 0.1 * (3600 + sum(hung)) + 90
    assert len(opened.client.get_metric_history(run.run_id, "loss")) == 3600


def test_a_refusal_is_told_and_not_repeated(opened: store.Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), tracking.run("evaluate", PARAMS) as run:
        run.log_params({"seed": 8})  # is 7 already
        run.log("loss", 1.0)
    assert "params not recorded" in caplog.text
    assert fetch(opened, run).data.metrics["loss"] == 1.0
    assert not runs.is_waiting(str(run.run_id))


def start(code: str) -> tuple[subprocess.Popen[str], str]:
    """A process with a run, once it has told the run's id."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert told.stdout is not None
    run_id = told.stdout.readline().strip()
    told.stdout.close()
    return told, run_id


def test_a_killed_process_leaves_no_running_run(opened: store.Store) -> None:
    """No later run has to come by: the watchdog alone ends it, and the run above it."""
    process, run_id = start(
        "import time\nfrom pano3d import tracking\n"
        f"with tracking.run('evaluate', {PARAMS!r}) as run:\n    print(run.run_id, flush=True)\n    time.sleep(600)\n"
    )
    assert opened.client.get_run(run_id).info.status == "RUNNING"
    process.send_signal(signal.SIGKILL)
    process.wait()
    parent_id = opened.client.get_run(run_id).data.tags["mlflow.parentRunId"]
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        ends = [opened.client.get_run(one).info.status for one in (run_id, parent_id)]
        if "RUNNING" not in ends:
            break
        time.sleep(0.5)
    assert ends == ["KILLED", "KILLED"]


def test_the_address_of_the_store_stands_in_no_command_line(opened: store.Store) -> None:
    """It may hold a password, and a watchdog lives as long as its run."""
    with tracking.run("evaluate", PARAMS) as run:
        (words,) = [one.cmdline() for one in psutil.Process().children() if str(run.run_id) in one.cmdline()]
    assert not [word for word in words if opened.uri in word]


def test_a_password_of_the_store_is_neither_told_nor_left_on_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, away = "postgresql://anna:secret@nowhere/mlflow", Mock(**{"set_terminated.side_effect": ConnectionError})
    with caplog.at_level(logging.WARNING):
        outbox.Outbox(away, address, "run", tmp_path / "run").post("end", status="KILLED")
    assert "postgresql://anna:***@nowhere/mlflow does not answer" in caplog.text
    assert "secret" not in (tmp_path / "run" / outbox.JOURNAL).read_text()
    monkeypatch.setattr(outbox.processes, "is_alive", lambda tags: False)
    assert outbox.deliver_abandoned(Mock(), address, tmp_path) == 1  # the next process knows the store again


def test_a_run_that_was_taken_over_is_not_ended(opened: store.Store) -> None:
    """Killed and resumed at once: the watchdog of the dead process must see that the run has a new one."""
    with tracking.run("evaluate", PARAMS) as first:
        opened.client.set_tag(first.run_id, "process", "999999 1")  # as if a dead process had made it
        with tracking.run("evaluate", PARAMS, run_id=first.run_id) as second, opened.lock():
            assert second.run_id == first.run_id
            runs.end_if_dead(opened, str(first.run_id))
            assert fetch(opened, first).info.status == "RUNNING"
