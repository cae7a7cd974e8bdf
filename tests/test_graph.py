"""dvc.yaml under DVC itself: what a change re-runs, and what it leaves alone. Stages are stand-ins, compose is real."""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.project import ROOT, STAND_IN, call, clone, commit, environment

BACKBONES = ("must3r", "pi3")
TRAINING = ("geometry_init", "joint_finetune", "geometry_control")
SCORING = ("evaluate", "compare_confidence")


def every(*stages: str) -> set[str]:
    return {f"{stage}@{backbone}" for stage in stages for backbone in BACKBONES}


ALL = {"compose", "prepare", "check_data", "report"} | every(*TRAINING, *SCORING)
AFTER_JOINT = {"report"} | every(*SCORING)
AFTER_GEOMETRY = AFTER_JOINT | every("joint_finetune", "geometry_control")


def repro(project: Path, *command: str) -> set[str]:
    """Reproduce; returns the stages that ran."""
    log = project / "visited.log"
    log.write_text("")
    call(project, *(command or ("dvc", "repro")))
    return set(log.read_text().split())


def edit(path: Path, *keys: str, value: object) -> None:
    """Change one value of a YAML file."""
    text = path.read_text()
    package = text.splitlines()[0] + "\n" if text.startswith("# @package") else ""  # a comment that Hydra reads
    content = yaml.safe_load(text)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    assert inner[keys[-1]] != value
    inner[keys[-1]] = value
    path.write_text(package + yaml.safe_dump(content, sort_keys=False))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reproduced and committed project."""
    folder = clone(tmp_path_factory.mktemp("graph"))
    (folder / "pano3d/__main__.py").write_text(STAND_IN)
    with (folder / ".gitignore").open("a") as ignored:
        ignored.write("/visited.log\n")
    assert repro(folder) == ALL
    commit(folder)
    return folder


def test_a_second_reproduction_runs_nothing_and_leaves_git_clean(project: Path) -> None:
    started = time.monotonic()
    assert repro(project) == set()
    assert time.monotonic() - started < 15
    assert call(project, "git", "status", "--porcelain") == ""
    assert "up to date" in call(project, "dvc", "status")


def test_a_value_reruns_the_stages_that_read_it(project: Path) -> None:
    params = project / "params"
    edit(params / "dataset_profile/rooms_default.yaml", "joint_finetune", "training", "steps", value=77)
    assert repro(project) == {"compose"} | every("joint_finetune", "geometry_control") | AFTER_JOINT
    edit(params / "dataset_profile/rooms_default.yaml", "geometry_init", "training", "steps", value=77)
    assert repro(project) == {"compose"} | every("geometry_init") | AFTER_GEOMETRY
    edit(params / "backbone/pi3_small.yaml", "backbone", "image_width", value=238)
    changed = {*TRAINING, *SCORING}
    assert repro(project) == {"compose", "report"} | {f"{stage}@pi3" for stage in changed}
    edit(params / "verify.yaml", "stages", value=["evaluate"])
    assert repro(project) == {"compose"}


def test_an_experiment_reaches_the_stages_through_the_selection(project: Path) -> None:
    commit(project)
    chosen = ("-S", "params/run.yaml:overrides=['geometry_init.training.steps=78']")
    ran = repro(project, "dvc", "exp", "run", "-n", "variant", *chosen)
    assert ran == {"compose"} | every("geometry_init") | AFTER_GEOMETRY
    assert "variant" in call(project, "dvc", "exp", "list")
    shown = call(project, "dvc", "params", "diff", "HEAD")
    assert "geometry_init.training.steps" in shown
    commit(project)


def test_drawing_does_not_retrain_and_a_loss_does(project: Path) -> None:
    (project / "pano3d/viz/added.py").write_text("x = 1\n")
    assert not repro(project) & every(*TRAINING)
    (project / "pano3d/tracking/added.py").write_text("x = 1\n")
    assert repro(project) == set()
    (project / "pano3d/losses/added.py").write_text("x = 1\n")
    assert repro(project) >= every(*TRAINING) | AFTER_JOINT
    (project / "pano3d/metrics/added.py").write_text("x = 1\n")
    ran = repro(project)
    assert every("evaluate") <= ran
    assert not ran & {"prepare", *every(*TRAINING)}


def test_a_lost_output_comes_back_from_the_cache(project: Path) -> None:
    lost = project / "models/rooms/pi3/joint_finetune/content"
    content = lost.read_text()
    lost.unlink()
    assert repro(project) == set()
    assert lost.read_text() == content


def test_outputs_travel_through_a_remote(project: Path, tmp_path: Path) -> None:
    commit(project)
    call(project, "dvc", "remote", "add", "--local", "-d", "--force", "store", str(tmp_path / "store"))
    call(project, "dvc", "push")
    call(tmp_path, "git", "clone", "-q", str(project), "other")
    other = tmp_path / "other"
    call(other, "dvc", "remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    call(other, "dvc", "pull")
    assert repro(other) == set()


def test_licensed_data_go_nowhere_but_to_the_remote_named_for_them(project: Path, tmp_path: Path) -> None:
    call(tmp_path, "git", "clone", "-q", str(project), "licensed")
    licensed = tmp_path / "licensed"
    for name in ("store", "other"):
        call(licensed, "dvc", "remote", "add", "--local", name, str(tmp_path / name))
    call(licensed, "dvc", "remote", "default", "--local", "store")
    edit(licensed / "params/run.yaml", "dataset", value="scannet")
    assert "prepare" in repro(licensed, "dvc", "repro", "prepare")
    commit(licensed)
    for words in (["-r", "store"], ["-r", "other"], ["-A", "-r", "other"]):
        done = subprocess.run(
            ["dvc", "push", *words], cwd=licensed, env=environment(), capture_output=True, text=True, check=False
        )
        said = "failed to collect" if "-A" in words else "remote 'scannet' doesn't exist"
        assert said in done.stderr, words
        assert not sent(tmp_path / "store") & held(licensed / "data/prepared/scannet"), words
        assert not sent(tmp_path / "other"), words
    call(licensed, "dvc", "remote", "add", "--local", "scannet", str(tmp_path / "private"))
    call(licensed, "dvc", "push", "-r", "other")
    call(licensed, "dvc", "push")
    assert not sent(tmp_path / "other")
    assert held(licensed / "data/prepared/scannet") <= sent(tmp_path / "private")


def sent(store: Path) -> set[str]:
    """MD5 of the files in a remote."""
    return {path.parent.name + path.name for path in store.rglob("*") if path.is_file()}


def held(folder: Path) -> set[str]:
    """MD5 of the files of an output."""
    return {hashlib.md5(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_every_cached_output_is_bound_to_its_datasets_remote() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outputs = [out for stage in stages.values() for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    for out in outputs:
        assert isinstance(out, dict), f"{out} has no remote and may go anywhere"
        (options,) = out.values()
        assert options.get("cache") is False or options.get("remote") == "${dataset}", out


def test_metrics_and_plots_are_shown(project: Path) -> None:
    shown = call(project, "dvc", "metrics", "show")
    for stage in SCORING:
        assert f"results/rooms/must3r/{stage}/metrics.json" in shown
    assert "reports/rooms/check_data/metrics.json" in shown
    call(project, "dvc", "plots", "show")
    assert "results_rooms_pi3_joint_finetune_curve_csv" in (project / "dvc_plots/index.html").read_text()
