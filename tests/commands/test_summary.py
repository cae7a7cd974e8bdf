"""summary: the table people see at the end of `make repro`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pano3d import cli
from tests.commands.project import reproduction, write


def test_the_table_and_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(reproduction(tmp_path))
    metrics = json.loads((tmp_path / "results/rooms/must3r/evaluate/metrics.json").read_text())
    write(tmp_path, "must3r", "evaluate", {**metrics, "geometry_control": {"abs_rel": 0.15}})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PANO3D_TRACKING", "on")
    assert cli.main(["summary"]) == 0
    printed = capsys.readouterr().out
    blocks = [block.splitlines() for block in printed.split("\n\n")]
    must3r, pi3 = ({line.split("  ")[0]: line.split() for line in block} for block in blocks[1:3])
    assert must3r["must3r"] == ["must3r", "geometry_init", "geometry_control", "joint"]
    assert must3r["depth error"] == ["depth", "error", "20.0", "15.0", "10.0"]
    assert must3r["PQ scene"] == ["PQ", "scene", "-", "-", "50.0", "[40.0,", "60.0]"]
    assert pi3["pi3"] == ["pi3", "geometry_init", "joint"]  # its control was switched off
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in printed
    assert "pano3d-must3r, pano3d-pi3" in printed
    assert f"{tmp_path}/reports/rooms/report/index.html" in printed


def test_a_password_in_the_address_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(reproduction(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://anna:secret@host/mlflow")
    monkeypatch.setenv("PANO3D_TRACKING", "on")
    assert cli.main(["summary"]) == 0
    assert "--backend-store-uri postgresql://anna:***@host/mlflow" in capsys.readouterr().out


def test_no_results_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["summary", "--dataset", "rooms"]) == 1
    assert "run `dvc repro` first" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("[]", "expected a mapping")])
def test_damaged_metrics_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    monkeypatch.chdir(reproduction(tmp_path))
    (tmp_path / "results/rooms/pi3/evaluate/metrics.json").write_text(text)
    assert cli.main(["summary"]) == 1
    assert said in capsys.readouterr().err
