"""promote, rollback and trace as a person calls them, on a version that `register` made."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pano3d import cli, config
from pano3d.commands.trace import restore
from pano3d.metrics.scene_scores import SceneScores
from pano3d.tracking import provenance, store
from pano3d.tracking.lineage import Lineage
from tests.commands.project import write
from tests.commands.test_register import trained
from tests.project import ROOT, call, commit
from tests.tracking.conftest import migrated, project
from tests.tracking.scores import pooled, scenes, write_scores

__all__ = ["migrated", "project", "trained"]

STAGES = ("compose", "prepare", "check_data", "geometry_init@pi3", "joint_finetune@pi3", "evaluate@pi3")


def evaluated(root: Path, each: list[SceneScores]) -> None:
    """Scores, their metrics, and the dvc.lock that DVC would have written with them."""
    write_scores(root / "reports/rooms/pi3/evaluate", each)
    write(root, "pi3", "evaluate", {name: round(value, 4) for name, value in pooled(each).items() if value == value})
    data = root / "data/prepared/rooms"
    data.mkdir(parents=True, exist_ok=True)
    rows = [{"scene": one.name, "split": "validation", "path": one.name, "sha256": one.name} for one in each]
    pd.DataFrame(rows).to_parquet(data / "manifest.parquet")
    outs = {
        "prepare": "data/prepared/rooms",
        "joint_finetune@pi3": "models/rooms/pi3/joint_finetune",
        "evaluate@pi3": "reports/rooms/pi3/evaluate",
    }
    stages = {
        name: {
            "cmd": name,
            "deps": [{"path": "pano3d/code.py", "md5": provenance.md5(root / "pano3d/code.py")}],
            "outs": [{"path": path, "md5": provenance.md5(root / path)} for path in (outs.get(name),) if path],
        }
        for name in STAGES
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


@pytest.fixture
def registered(trained: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A committed project with version 1."""
    (trained / "pano3d").mkdir()
    (trained / "pano3d/code.py").write_text("x = 1\n")
    settings = config.read(ROOT / "params/promote.yaml")
    config.write(trained / "params/promote.yaml", {**settings, "resamples": 100})
    with (trained / ".gitignore").open("a") as file:
        file.write("models/\nreports/\ndata/\nwork/\n")
    evaluated(trained, scenes())
    commit(trained)
    assert cli.main(["register"]) == 0
    capsys.readouterr()
    return trained


def test_a_line_of_champions(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["promote", "pano3d-pi3", "--version", "challenger", "--why", "first"]) == 0
    assert "pano3d-pi3 version 1 is the champion" in capsys.readouterr().out

    evaluated(registered, scenes(-0.05))
    assert cli.main(["register"]) == 0
    assert cli.main(["promote", "pano3d-pi3", "--version", "2"]) == 1
    told = capsys.readouterr().out
    assert "WORSE pq_scene" in told
    assert "refused: pq_scene is worse" in told
    assert "version 2 is not promoted; champion: 1" in told

    evaluated(registered, scenes(0.05))
    assert cli.main(["register"]) == 0
    assert cli.main(["promote", "pano3d-pi3", "--version", "3"]) == 0
    assert "version 3 is the champion; previous: 1" in capsys.readouterr().out
    assert cli.main(["rollback", "pano3d-pi3"]) == 0
    assert "version 1 is the champion again, instead of version 3" in capsys.readouterr().out


def test_other_validation_scenes_and_other_views_are_refused(
    registered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["promote", "pano3d-pi3", "--version", "1"]) == 0
    evaluated(registered, scenes(0.1, count=11))
    assert cli.main(["register"]) == 0
    assert cli.main(["promote", "pano3d-pi3", "--version", "2"]) == 1
    assert "data differs" in capsys.readouterr().out


def test_code_that_was_changed_back_after_training_is_noticed(
    registered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """git is clean again; dvc.lock still names the code the model was trained with."""
    (registered / "pano3d/code.py").write_text("x = 2\n")
    evaluated(registered, scenes(0.1))
    (registered / "pano3d/code.py").write_text("x = 1\n")
    assert cli.main(["register"]) == 0
    assert cli.main(["promote", "pano3d-pi3", "--version", "2"]) == 1
    assert "refused: provenance: pano3d/code.py is not what dvc.lock says" in capsys.readouterr().out


def test_changed_files_are_refused_and_registered_again_once_committed(
    registered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (registered / "pano3d/code.py").write_text("x = 3\n")
    evaluated(registered, scenes(0.1))
    assert cli.main(["register"]) == 0
    assert cli.main(["promote", "pano3d-pi3", "--version", "2"]) == 1
    assert "registered from changed files" in capsys.readouterr().out
    commit(registered)
    assert cli.main(["register"]) == 0
    assert cli.main(["promote", "pano3d-pi3", "--version", "challenger"]) == 0
    assert "version 3 is the champion" in capsys.readouterr().out


def test_a_version_is_traced_from_a_fresh_clone(
    registered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["promote", "pano3d-pi3", "--version", "1"]) == 0
    head = call(registered, "git", "rev-parse", "HEAD").strip()
    lock = (registered / "dvc.lock").read_text()
    fresh = tmp_path / "fresh"
    call(tmp_path, "git", "clone", "-q", str(registered), str(fresh))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.address())
    monkeypatch.chdir(fresh)
    capsys.readouterr()
    assert cli.main(["trace", "models:/pano3d-pi3@champion"]) == 0
    told = capsys.readouterr().out
    assert re.search(rf"commit +{head} \(clean\)", told)
    assert re.search(r"data +rooms, md5 [0-9a-f]{32}\.dir", told)
    assert re.search(r"licence +Apache-2\.0", told)
    assert "pq_scene 0.4300" in told
    assert "name: pi3" in told  # the parameters
    assert f"git worktree add --detach ../pano3d-{head[:10]} {head}" in told

    (registered / "dvc.lock").write_text("stages: {}\n")
    (fresh / "dvc.lock").unlink()
    assert cli.main(["trace", "models:/pano3d-pi3/1", "--fetch", str(fresh)]) == 0
    assert (fresh / "dvc.lock").read_text() == lock


def test_a_password_of_the_store_is_not_printed() -> None:
    found = Lineage("pano3d-pi3", "1", "r", {"git.sha": "a" * 40}, {}, {}, (), "postgresql://anna:secret@host/mlflow")
    assert "export MLFLOW_TRACKING_URI=postgresql://anna:***@host/mlflow" in restore(found)


def test_the_project_moves_and_its_champion_with_it(
    registered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Path(shutil.move(registered, tmp_path / "moved"))
    monkeypatch.chdir(moved)
    assert cli.main(["promote", "pano3d-pi3", "--version", "1"]) == 0
    assert "is the champion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["promote", "pano3d-nobody", "--version", "1"], "finding version 1 of 'pano3d-nobody'"),
        (["promote", "pano3d-pi3", "--version", "best"], "its aliases are"),
        (["promote", "pano3d-pi3", "--version", "1", "--target", "war"], "has research, commercial"),
        (["rollback", "pano3d-pi3"], "no previous champion"),
        (["trace", "pano3d-pi3"], "expected models:/NAME@ALIAS"),
        (["trace", "models:/pano3d-pi3@champion"], "no alias 'champion'"),
    ],
)
def test_mistakes_are_told_in_one_line(
    registered: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(words) == 1
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_the_shipped_settings_are_valid() -> None:
    from pano3d.tracking.gate import GateConfig

    settings = config.load(ROOT / "params/promote.yaml", GateConfig)
    assert dataclasses.asdict(settings)["target"] == "research"
