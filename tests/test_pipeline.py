"""The whole path with the smoke profile, from a clean clone to registered models, as `make repro` runs it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import strace
from tests.project import call, clone, environment
from tests.test_graph import ALL, BACKBONES, TRAINING
from tests.test_telemetry import beyond, watched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The clone that `make repro PROFILE=smoke` worked in, and what it printed."""
    source = clone(tmp_path_factory.mktemp("source"))
    into = tmp_path_factory.mktemp("smoke")
    settings = [f"INTO={into}", f"VENV={sys.prefix}", "SETUP=:", "PROFILE=smoke"]
    command = [*(strace.traced(into / "calls") if strace.is_allowed() else []), "make", "repro", *settings]
    printed = call(source, *command, **watched(into / "connections"))
    assert call(source, "git", "status", "--porcelain") == ""
    assert not (source / "mlflow.db").exists()
    return into / "pano3d", printed


@pytest.fixture(scope="module")
def runs(reproduced: tuple[Path, str]) -> dict[str, Any]:
    """Every MLflow run of it, and the tags of the registered versions."""
    code = """
import json
from pano3d.tracking import store
opened = store.open_store()
found = opened.client.search_runs(opened.experiments())
aliased = [opened.client.get_model_version_by_alias(name, "challenger") for name in ("pano3d-must3r", "pano3d-pi3")]
runs = [
    {"id": r.info.run_id, "name": r.info.run_name, "status": r.info.status}
    | {"tags": r.data.tags, "metrics": r.data.metrics}
    for r in found
]
print(json.dumps({"runs": runs, "versions": {version.name: version.tags for version in aliased}}))
"""
    found: dict[str, Any] = json.loads(call(reproduced[0], sys.executable, "-c", code))
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_nothing_left_this_machine(reproduced: tuple[Path, str]) -> None:
    log = reproduced[0].parent / "connections"
    assert log.read_text().count("started\t") > 2 * len(ALL)  # DVC, every stage, and what they start
    assert beyond(log) == []


@pytest.mark.skipif(not strace.is_allowed(), reason=strace.REASON)
def test_no_system_call_left_this_machine(reproduced: tuple[Path, str]) -> None:
    """Of no process, whatever language it is written in."""
    calls = reproduced[0].parent / "calls"
    assert "sa_family=AF_UNIX" in calls.read_text(errors="replace")  # it did see something
    assert strace.beyond(calls) == []


def test_it_ends_with_a_table_and_where_to_look(reproduced: tuple[Path, str]) -> None:
    project, printed = reproduced
    for backbone in BACKBONES:
        heading = next(line for line in printed.splitlines() if line.startswith(f"{backbone} "))
        assert heading.split() == [backbone, "geometry_init", "geometry_control", "joint"]
    for words in ("PQ scene", "mlflow ui", "pano3d-must3r, pano3d-pi3"):
        assert words in printed
    assert (project / "reports/rooms/report/index.html").is_file()


def test_every_metric_that_is_promised_is_there(reproduced: tuple[Path, str]) -> None:
    promised = ["pq_scene", "pq_scene_strict", "pq_coco", "miou", "ap50_agnostic"]
    geometry = ["abs_rel", "inlier_103", "rotation_auc30", "coverage"]
    ends = ("", "_low", "_high")
    for backbone in BACKBONES:
        results = reproduced[0] / f"results/rooms/{backbone}"
        metrics = json.loads((results / "evaluate/metrics.json").read_text())
        assert {f"{name}{end}" for name in promised + geometry for end in ends} <= metrics.keys()
        for other in ("geometry_init", "geometry_control"):
            assert {f"{name}{end}" for name in geometry for end in ends} <= metrics[other].keys()
        confidence = json.loads((results / "compare_confidence/metrics.json").read_text())
        for region in ("ambiguous", "silhouettes", "centres", "shadow"):
            assert {f"change_{region}{end}" for end in ("", "_over_control", "_over_control_low")} <= confidence.keys()


def test_every_stage_is_a_run_under_one_parent(runs: dict[str, Any]) -> None:
    names = {run["name"] for run in runs["runs"]}
    expected = {*(ALL - {"compose"}), *(f"register@{backbone}" for backbone in BACKBONES)}
    assert expected <= names
    assert {run["status"] for run in runs["runs"]} == {"FINISHED"}
    children = [run for run in runs["runs"] if "stage" in run["tags"]]
    assert len({run["tags"]["mlflow.parentRunId"] for run in children}) == 1
    for run in children:
        assert {"git.sha", "params.sha256", "dvc.lock.sha256", "torch.version", "device"} <= run["tags"].keys()
    for run in runs["runs"]:
        if run["name"].split("@")[0] in TRAINING:
            assert "loss/total" in run["metrics"]


def test_the_benchmarks_table_can_tell_what_each_stage_cost(reproduced: tuple[Path, str]) -> None:
    code = "import json; from pano3d.tracking.benchmarks import stage_costs; print(json.dumps(stage_costs()))"
    costs = {cost["name"]: cost for cost in json.loads(call(reproduced[0], sys.executable, "-c", code))}
    assert costs.keys() >= ALL - {"compose"}
    assert all(0 <= cost["seconds"] < 3600 and cost["peak_bytes"] > 2**24 for cost in costs.values())
    for backbone in BACKBONES:
        of_workers = json.loads((reproduced[0] / f"reports/rooms/{backbone}/evaluate/cost.json").read_text())
        assert costs[f"evaluate@{backbone}"]["peak_bytes"] >= of_workers["peak_mib"] * 2**20


def test_both_models_are_registered(reproduced: tuple[Path, str], runs: dict[str, Any]) -> None:
    for backbone in BACKBONES:
        tags = runs["versions"][f"pano3d-{backbone}"]
        weights = reproduced[0] / f"models/rooms/{backbone}/joint_finetune/weights.safetensors"
        assert tags["weights.sha256"] == sha256(weights)
        assert tags["license"]
        made = {run["id"]: run["name"] for run in runs["runs"]}
        assert made[tags["source.run_id"]] == f"joint_finetune@{backbone}"
        assert made[tags["source.evaluate_run_id"]] == f"evaluate@{backbone}"


def test_a_second_reproduction_runs_nothing(reproduced: tuple[Path, str]) -> None:
    printed = call(reproduced[0], "dvc", "repro")
    assert "Running stage" not in printed
    assert "was registered already" in call(reproduced[0], sys.executable, "-m", "pano3d", "register")


@pytest.fixture
def without_open3d(tmp_path: Path) -> dict[str, str]:
    """Variables of a process that cannot import Open3D."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path/open3d.py").write_text("raise ImportError('no Open3D on this machine')")
    return {"PYTHONPATH": str(tmp_path / "path")}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_killed_training_goes_on_to_the_same_weights(
    reproduced: tuple[Path, str], tmp_path: Path, backbone: str, without_open3d: dict[str, str]
) -> None:
    """SIGKILL after a checkpoint; the same command again, on a machine that can train but not render, ends where the
    uninterrupted run of the pipeline ended.
    """
    project = reproduced[0]
    base = f"models/rooms/{backbone}"
    command = [sys.executable, "-m", "pano3d", "joint_finetune", f"results/rooms/{backbone}/params.yaml"]
    command += ["--data", "data/prepared/rooms", "--start", f"{base}/geometry_init"]
    command += ["--output", str(tmp_path / "model"), "--results", str(tmp_path / "results")]
    checkpoints = project / "work/training"
    assert not list(checkpoints.glob("*.pt"))
    process = subprocess.Popen(command, cwd=project, env=environment(), stderr=subprocess.DEVNULL)
    while not list(checkpoints.glob("*.pt")):
        assert process.poll() is None, "training ended before it wrote a checkpoint"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model/model.json").exists()
    call(project, *command, **without_open3d)
    uninterrupted = project / base / "joint_finetune/weights.safetensors"
    assert sha256(tmp_path / "model/weights.safetensors") == sha256(uninterrupted)
    assert not list(checkpoints.glob("*.pt"))


def test_killed_evaluation_goes_on_to_the_same_scores(
    reproduced: tuple[Path, str], tmp_path: Path, without_open3d: dict[str, str]
) -> None:
    """SIGKILL once a scene is scored; the same command takes that scene over and ends with the same numbers."""
    project, models = reproduced[0], "models/rooms/pi3"
    command = [sys.executable, "-m", "pano3d", "evaluate", "results/rooms/pi3/params.yaml"]
    command += ["--data", "data/prepared/rooms", "--start", f"{models}/geometry_init"]
    command += ["--model", f"{models}/joint_finetune", "--control", f"{models}/geometry_control"]
    command += ["--output", str(tmp_path / "output"), "--results", str(tmp_path / "results")]
    finished = project / "work/evaluate"
    process = subprocess.Popen(command, cwd=project, env=environment(), stderr=subprocess.DEVNULL)
    while not list(finished.glob("*/*.json")):
        assert process.poll() is None, "evaluation ended before it kept a scene"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "results").exists()
    kept = list(finished.glob("*/*.json"))
    for file in kept:  # a cost that no run has
        file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": -1.0}))
    call(project, *command, **without_open3d)
    uninterrupted = project / "results/rooms/pi3/evaluate/metrics.json"
    assert (tmp_path / "results/metrics.json").read_text() == uninterrupted.read_text()
    cost = json.loads((tmp_path / "output/cost.json").read_text())["scenes"]
    assert sum(scene["seconds"] == -1 for each in cost.values() for scene in each) == len(kept)
    assert not list(finished.glob("*/*.json"))


def test_a_damaged_archive_stops_the_pipeline_with_its_name(reproduced: tuple[Path, str]) -> None:
    project = reproduced[0]
    archive = sorted((project / "data/prepared/rooms/train").glob("*.zip"))[0]
    content = archive.read_bytes()
    archive.unlink()  # the cache may share the file
    archive.write_bytes(content[: len(content) // 2])
    command = [sys.executable, "-m", "pano3d", "check_data", "results/rooms/must3r/params.yaml"]
    command += ["--data", "data/prepared/rooms", "--output", "reports/damaged"]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=False)
    archive.write_bytes(content)
    assert done.returncode == 1
    assert archive.stem in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_input_is_named(reproduced: tuple[Path, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pano3d", "joint_finetune", "results/rooms/pi3/params.yaml"]
    command += ["--data", str(tmp_path / "nothing"), "--start", "models/rooms/pi3/geometry_init"]
    command += ["--output", str(tmp_path / "model"), "--results", str(tmp_path / "results")]
    done = subprocess.run(command, cwd=reproduced[0], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(tmp_path / "nothing") in done.stderr
    assert "Traceback" not in done.stderr
