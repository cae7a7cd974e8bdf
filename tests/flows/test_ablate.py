"""The ablate flow on stand-ins for the stages: sharing, isolation, devices, failures, retries, table, MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from flows.ablate import ablate as flow
from flows.ablate import report
from flows.children import ChildFailedError, last_words
from pano3d.processes import AGAIN
from tests.project import ROOT, clone, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Writes what the real stages would leave and a line about when and where it ran. One variant breaks for good, another
# is killed at its first attempt.
STAND_IN = """
import json, os, pathlib, signal, sys, time
from pano3d import cli, config

stage = sys.argv[1]
if stage in ("compose", "ablation-table"):
    sys.exit(cli.main())
started = time.time()
params = config.read(sys.argv[2])
joint, folder = params["joint_finetune"], pathlib.Path(os.environ["ABLATE_LOG"])
seed = joint.get("seed")
if stage == "joint_finetune":
    if joint["mode"] == "frozen" and seed == 1:
        print("pano3d joint_finetune: step 3: loss ['total'] is not finite", file=sys.stderr)
        sys.exit(1)
    first = folder / "killed"
    if joint["mode"] == "semantic_only" and not first.exists():
        first.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1)
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
for option in ("--output", "--results"):
    if option in options:
        target = pathlib.Path(options[option])
        target.mkdir(parents=True, exist_ok=True)
        score = {"joint": 0.4, "frozen": 0.3}.get(joint["mode"], 0.1) + 0.01 * (seed or 0)
        metrics = {"change_ambiguous": -score} if stage == "compare_confidence" else {"pq_scene": score, "abs_rel": 0.2}
        (target / "metrics.json").write_text(json.dumps(metrics | {"scenes": 1}))
        # Of its own for every variant: DVC would restore the scores of an equal model instead of computing them.
        text = f"step,loss/total\\n1,{score if stage == 'joint_finetune' else 2}\\n"
        (target / ("content" if option == "--output" else "curve.csv")).write_text(text)
entry = {"stage": stage, "mode": joint["mode"], "seed": seed, "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
         "started": started, "ended": time.time()}
with open(folder / "visited.jsonl", "a") as log:
    log.write(json.dumps(entry) + "\\n")
"""

VARIANTS = ("joint", "frozen", "semantic_only")
STOPPED = f"joint_finetune stopped at step 3 of 9; run it {AGAIN}"
LOST = f"process 0 of 2: another process is gone; run the same command {AGAIN} from the last checkpoint"
ON_DEVICE = ("geometry_init", "joint_finetune", "evaluate", "compare_confidence")


def variables(folder: Path) -> dict[str, str]:
    return environment() | {
        "ABLATE_LOG": str(folder),
        "PANO3D_DEVICES": "0,1",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",
    }


def ablate(project: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.ablate", "--backbones", "must3r", "--name", "test", *words]
    return subprocess.run(command, cwd=project, env=variables(folder), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """The project, the folder of its logs, and what the flow said."""
    project, folder = clone(tmp_path_factory.mktemp("project")), tmp_path_factory.mktemp("log")
    (project / "pano3d/__main__.py").write_text(STAND_IN)
    for words in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "stand-ins"]):
        subprocess.run(["git", *words], cwd=project, check=True)
    return project, folder, ablate(project, folder, "--variants", *VARIANTS, "--seeds", "0", "1")


def visited(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "visited.jsonl").read_text().splitlines()]


def test_a_failed_variant_fails_the_flow_with_its_reason_and_the_others_finish(ablated: Any) -> None:
    project, _, done = ablated
    assert done.returncode != 0
    assert "1 of 6 runs failed" in done.stderr, done.stderr[-4000:]
    assert "frozen must3r seed 1" in done.stderr
    assert "pano3d joint_finetune: step 3: loss ['total'] is not finite" in done.stderr
    runs = json.loads((project / "work/ablations/tables/test.json").read_text())
    assert sorted(bool(run["failure"]) for run in runs) == [False] * 5 + [True]


def test_a_killed_variant_was_tried_again(ablated: Any) -> None:
    _, folder, _ = ablated
    assert (folder / "killed").exists()
    seeds = [e["seed"] for e in visited(folder) if (e["stage"], e["mode"]) == ("joint_finetune", "semantic_only")]
    assert sorted(seeds) == [0, 1]


def test_data_and_geometry_ran_once(ablated: Any) -> None:
    stages = [entry["stage"] for entry in visited(ablated[1])]
    assert stages.count("prepare") == 1
    assert stages.count("geometry_init") == 1
    assert stages.count("evaluate") == stages.count("compare_confidence") == 5


def test_no_two_runs_shared_a_device(ablated: Any) -> None:
    entries = [e for e in visited(ablated[1]) if e["stage"] in ON_DEVICE]
    assert {entry["device"] for entry in entries} == {"0", "1"}
    for device in ("0", "1"):
        own = sorted((e["started"], e["ended"]) for e in entries if e["device"] == device)
        assert all(before[1] <= after[0] for before, after in pairwise(own))


def test_the_table_has_mean_spread_and_the_papers_columns(ablated: Any) -> None:
    table = (ablated[0] / "work/ablations/tables/test/table.md").read_text()
    assert "| 40.5 ± 0.7 |" in table  # of 40 and 41 percent
    assert "| -40.5 ± 0.7 |" in table  # the confidence, from a stage of its own
    line = next(line for line in table.splitlines() if line.startswith("| frozen"))
    assert "| 1 |" in line
    assert "61.9" in line
    assert "not finite" in line
    assert (ablated[0] / "work/ablations/tables/test/figure.png").read_bytes().startswith(b"\x89PNG")


def test_mlflow_has_a_parent_and_a_child_per_variant(ablated: Any) -> None:
    code = """
import json
from pano3d.tracking import store
opened = store.open_store()
runs = opened.client.search_runs(opened.experiments())
parent = "mlflow.parentRunId"
print(json.dumps([[r.info.run_name, r.info.status, r.data.tags.get(parent), r.info.run_id] for r in runs]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ablated[0],
        env=variables(ablated[1]),
        capture_output=True,
        text=True,
        check=True,
    )
    runs = {name: (status, parent, own) for name, status, parent, own in json.loads(done.stdout)}
    parent = runs["ablation test"]
    assert parent[0] == "FAILED"
    children = {name: status for name, (status, above, _) in runs.items() if above == parent[2]}
    assert children == {f"{v}@must3r": "FAILED" if v == "frozen" else "FINISHED" for v in VARIANTS}


def test_the_project_itself_is_untouched(ablated: Any) -> None:
    done = subprocess.run(["git", "status", "--porcelain"], cwd=ablated[0], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_a_dirty_project_is_refused_at_once(ablated: Any) -> None:
    project, folder, _ = ablated
    path = project / "params/evaluate.yaml"
    text = path.read_text()
    path.write_text(text + "# changed\n")
    try:
        done = ablate(project, folder, "--variants", "joint", "--seeds", "0")
    finally:
        path.write_text(text)
    assert done.returncode != 0
    assert "uncommitted changes" in done.stderr
    assert "params/evaluate.yaml" in done.stderr


def test_a_variant_that_does_not_exist_is_refused_before_prefect_starts(tmp_path: Path) -> None:
    done = ablate(ROOT, tmp_path, "--variants", "nonsense")
    assert done.returncode == 2
    assert "geometry_weight_20" in done.stderr


@pytest.mark.parametrize("name", ["a'b", "../b", ".b", "..", "a/b", "-b", "a b", "a\n"])
def test_a_name_that_is_no_folder_is_refused_before_anything_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.ablate.clean_commit", lambda *_: pytest.fail("it went on"))
    with pytest.raises(ValueError, match=r"expected a name of letters, digits, .* got") as caught:
        flow.fn(name=name)
    assert repr(name) in str(caught.value)


def test_a_name_with_dots_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rooms.1 and rooms.2 are two ablations, with a file each."""
    monkeypatch.setattr("flows.ablate.run_child", Mock(side_effect=ChildFailedError("no table")))
    for name in ("rooms.1", "rooms.2"):
        with pytest.raises(ChildFailedError):
            report([], tmp_path / name, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["rooms.1.json", "rooms.2.json"]


@pytest.mark.parametrize(
    ("said", "reason", "is_final"),
    [
        (
            "Running stage 'joint_finetune@pi3':\npano3d joint_finetune: memory ran out\nERROR: failed to reproduce "
            "'joint_finetune@pi3': failed to run: python -m pano3d ..., exited with 1\n",
            "pano3d joint_finetune: memory ran out",
            True,
        ),
        (f"pano3d joint_finetune: {STOPPED}\nERROR: failed to run: ..., exited with 143\n", STOPPED, False),
        # Several processes: torchrun makes 1 of whatever it was.
        (f"pano3d joint_finetune: {STOPPED}\n" * 2 + "ERROR: failed to run: ..., exited with 1\n", STOPPED, False),
        (f"pano3d joint_finetune: {LOST}\nERROR: failed to run: ..., exited with 1\n", LOST, False),
        (
            f"pano3d joint_finetune: memory ran out\npano3d joint_finetune: {LOST}\nERROR: failed to run: ..., "
            "exited with 1\n",
            "pano3d joint_finetune: memory ran out",
            True,
        ),
        ("ERROR: failed to run: python -m pano3d ..., exited with -9\n", "exited with -9", False),
        ("", "it printed nothing", False),
    ],
)
def test_the_reason_of_a_failure(said: str, reason: str, is_final: bool) -> None:
    assert last_words(said)[0].endswith(reason)
    assert last_words(said)[1] is is_final


def test_every_variant_composes_with_both_backbones_and_changes_fine_tuning_alone() -> None:
    from pano3d import config
    from pano3d.stages.compose import SECTIONS, check

    for backbone in ("must3r_tiny", "pi3_tiny"):
        base = config.compose(ROOT / "params", [f"backbone={backbone}"])
        for path in sorted((ROOT / "params/ablation").glob("*.yaml")):
            value = config.compose(ROOT / "params", [f"backbone={backbone}", f"ablation={path.stem}"])
            check({"seed": value["seed"], **{section: value[section] for section in SECTIONS}}, path.stem)
            changed = {section for section in SECTIONS if value[section] != base[section]}
            assert changed == {"joint_finetune"}, path.stem  # joint too: it starts the panoptic half afresh
