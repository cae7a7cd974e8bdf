"""Runs: what is recorded, under which parent, how they end, and how they are taken up again."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest

from pano3d import tracking
from pano3d.tracking import runs, store
from pano3d.types import Interrupted

mpl.use("Agg")

PARAMS: dict[str, Any] = {
    "reproduction": "r" * 64,
    "seed": 7,
    "backbone": {"name": "must3r", "width": 128},
    "head": {},
    "dataset": {"name": "rooms"},
    "geometry_init": {"steps": 3, "optimizer": {"rate": 0.1}},
    "evaluate": {"scenes": 2},
}


def fetch(opened: store.Store, recorder: tracking.Recorder) -> Any:
    return opened.client.get_run(recorder.run_id)


def test_a_stage_is_recorded_whole(opened: store.Store, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.txt").write_text("a")
    with tracking.run("geometry_init", PARAMS, device="cpu", tags={"note": "x"}) as run:
        for step in range(3):
            run.log("loss/total", 1.0 / (step + 1), step)
        run.log_metrics({"pq_scene": 0.25, "geometry_init": {"abs_rel": 0.1}, "name": "left out", "bad": math.nan})
        run.log_figure(Figure(), "figures/curve.png")
        run.log_artifact(tmp_path / "maps", "maps")
        run.log_artifact(tmp_path / "maps/a.txt")
        run.log_table(pd.DataFrame({"scene": ["a"], "pq": [0.5]}), "scenes.json")
        run.log_dict({"a": 1}, "extra.json")
        run.log_input(
            pd.DataFrame({"scene": ["a"], "frames": [3]}), "rooms", "data/prepared/rooms", "0" * 32 + ".dir", "training"
        )
    found = fetch(opened, run)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "geometry_init@must3r"
    assert found.data.params["geometry_init.optimizer.rate"] == "0.1"
    assert found.data.params["backbone.width"] == "128"
    assert "evaluate.scenes" not in found.data.params
    assert found.data.metrics["geometry_init.abs_rel"] == 0.1
    curve = opened.client.get_metric_history(run.run_id, "loss/total")
    assert [(one.step, one.value) for one in curve] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    top = {one.path for one in opened.client.list_artifacts(run.run_id)}
    assert top == {"params.yaml", "figures", "maps", "a.txt", "scenes.json", "extra.json"}
    assert found.inputs.dataset_inputs[0].dataset.digest == "0" * 32
    assert found.data.tags["note"] == "x"


def test_a_shared_stage_belongs_to_no_backbone(opened: store.Store) -> None:
    with tracking.run("prepare", PARAMS) as run:
        pass
    found = fetch(opened, run)
    assert found.info.run_name == "prepare"
    assert "backbone" not in found.data.tags
    assert set(found.data.params) == {"seed", "dataset.name"}


def test_identity_tags(opened: store.Store, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "dvc.lock").write_text(
        "stages:\n  prepare:\n    outs:\n    - path: data/prepared/rooms\n      md5: abc.dir\n"
    )
    monkeypatch.setenv("DVC_EXP_NAME", "variant")
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "flow")
    with tracking.run("evaluate", PARAMS, device="cuda:0") as clean:
        pass
    (project / "code.py").write_text("x = 2\n")
    with tracking.run("evaluate", PARAMS) as dirty:
        pass
    tags = fetch(opened, clean).data.tags
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    expected = {
        "git.sha": head,
        "mlflow.source.git.commit": head,
        "mlflow.source.name": "pano3d evaluate",
        "git.dirty": "false",  # dvc.lock is a product of the run
        "data.md5": "abc.dir",
        "dvc.exp.name": "variant",
        "prefect.flow_run_id": "flow",
        "stage": "evaluate",
        "backbone": "must3r",
        "seed": "7",
        "device": "cuda:0",
    }
    assert {name: tags.get(name) for name in expected} == expected
    assert len(tags["params.sha256"]) == len(tags["dvc.lock.sha256"]) == 64
    changed = fetch(opened, dirty).data.tags
    assert changed["git.dirty"] == "true"
    assert len(changed["git.diff.sha256"]) == 64


def test_all_stages_of_a_reproduction_share_a_parent(opened: store.Store) -> None:
    other = {**PARAMS, "backbone": {"name": "pi3"}}
    again = {**PARAMS, "reproduction": "s" * 64}
    parents = []
    for params in (PARAMS, other, again):
        with tracking.run("evaluate", params) as run:
            pass
        parents.append(fetch(opened, run).data.tags["mlflow.parentRunId"])
    assert parents[0] == parents[1] != parents[2]
    assert opened.client.get_run(parents[0]).data.tags["kind"] == "reproduction"
    assert opened.client.get_run(parents[0]).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("raised", "status"),
    [(ValueError(), "FAILED"), (SystemExit(143), "KILLED"), (KeyboardInterrupt(), "KILLED"), (Interrupted(), "KILLED")],
)
def test_how_a_run_ends(opened: store.Store, raised: BaseException, status: str) -> None:
    with contextlib.suppress(type(raised)), tracking.run("evaluate", PARAMS) as run:
        run.log("loss", 1.0)
        raise raised
    assert fetch(opened, run).info.status == status
    assert fetch(opened, run).data.metrics["loss"] == 1.0


def test_an_interrupted_run_goes_on(opened: store.Store) -> None:
    with contextlib.suppress(Interrupted), tracking.run("geometry_init", PARAMS) as first:
        first.log("loss", 2.0, 0)
        raise Interrupted("stop")
    with tracking.run("geometry_init", PARAMS, run_id=first.run_id) as second:
        second.log("loss", 1.0, 1)
    assert second.run_id == first.run_id
    assert fetch(opened, second).info.status == "FINISHED"
    assert [one.value for one in opened.client.get_metric_history(first.run_id, "loss")] == [2.0, 1.0]


@pytest.mark.parametrize("was_deleted", [False, True], ids=["never there", "deleted"])
def test_a_lost_run_is_replaced(opened: store.Store, caplog: pytest.LogCaptureFixture, was_deleted: bool) -> None:
    lost = "0" * 32
    if was_deleted:  # MLflow still finds it, in its trash
        with tracking.run("geometry_init", PARAMS) as first:
            lost = str(first.run_id)
        opened.client.delete_run(lost)
    with caplog.at_level(logging.WARNING), tracking.run("geometry_init", PARAMS, run_id=lost) as run:
        pass
    assert run.run_id != lost
    assert f"run {lost} of the interrupted training is gone" in caplog.text
    assert fetch(opened, run).data.params["seed"] == "7"


def test_a_run_whose_process_was_killed_is_ended(opened: store.Store) -> None:
    code = (
        "import os, signal\nfrom pano3d import tracking\n"
        f"with tracking.run('evaluate', {PARAMS!r}) as run:\n"
        "    print(run.run_id, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=False)
    run_id = done.stdout.strip()
    assert opened.client.get_run(run_id).info.status == "RUNNING"
    with tracking.run("evaluate", PARAMS):
        assert opened.client.get_run(run_id).info.status == "KILLED"


def test_values_go_out_in_batches(opened: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    with tracking.run("evaluate", PARAMS) as run:
        assert isinstance(run, runs.MlflowRecorder)
        post = run._outbox.post

        def count(do: str, **message: Any) -> None:
            sent.append(len(message.get("values", ())) if do == "metrics" else 0)
            post(do, **message)

        monkeypatch.setattr(run._outbox, "post", count)
        for step in range(1200):
            run.log("loss", 1.0, step)
    assert sum(sent) == 1201  # and the peak of memory
    assert len([number for number in sent if number]) < 10
    assert len(opened.client.get_metric_history(run.run_id, "loss")) == 1200


def test_the_machine_is_looked_at(opened: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SAMPLE_EVERY", 0.0)
    with tracking.run("evaluate", PARAMS) as run:
        run.log("loss", 1.0)
    metrics = fetch(opened, run).data.metrics
    assert 0 < metrics["system/system_memory_usage_percentage"] < 100
    assert metrics["system/process_memory_usage_megabytes"] > 10


def test_the_digest_of_an_input_is_that_of_dvc_lock(opened: store.Store, project: Path) -> None:
    lock = f"stages:\n  prepare:\n    outs:\n    - path: data/prepared/rooms\n      md5: {'a' * 32}.dir\n"
    (project / "dvc.lock").write_text(lock)
    with tracking.run("evaluate", PARAMS) as run:
        run.log_input(pd.DataFrame({"scene": ["a"]}), "rooms", "data/prepared/rooms", "other", "evaluation")
    assert fetch(opened, run).inputs.dataset_inputs[0].dataset.digest == "a" * 32


def test_off_means_nothing_is_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (project / "mlflow.db").read_bytes()
    monkeypatch.setenv("PANO3D_TRACKING", "off")
    with tracking.run("evaluate", PARAMS) as run:
        run.log("loss", 1.0)
        run.log_dict({}, "x.json")
    assert run.run_id is None
    assert (project / "mlflow.db").read_bytes() == before
