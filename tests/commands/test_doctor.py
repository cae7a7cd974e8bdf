"""The doctor finds what is broken and names the cure."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from pano3d import cli
from pano3d.commands import doctor


@pytest.fixture(autouse=True)
def _no_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


def findings(device: str = "cpu") -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine(device, Path())}


def test_this_installation(capsys: pytest.CaptureFixture[str]) -> None:
    found = findings()
    assert {found[name].state for name in ("python", "device", "Open3D", "viser", "MLflow")} == {"ok"}
    expected = 1 if any(finding.state == "wrong" for finding in found.values()) else 0
    assert cli.main(["doctor"]) == expected
    assert "ok     python" in capsys.readouterr().out


def test_a_folder_that_is_missing_or_closed_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_folder(folder: Path) -> doctor.Finding:
        return next(each for each in doctor.examine("cpu", folder) if each.name in ("folder", "disk"))

    missing = of_folder(tmp_path / "missing")
    assert (missing.state, missing.remedy.split(",")[0]) == ("wrong", f"mkdir -p {tmp_path / 'missing'}")
    assert of_folder(tmp_path).name == "disk"
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)  # root may write everywhere
    assert "chmod u+w" in of_folder(tmp_path).remedy


def test_a_password_in_the_address_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://anna:secret@host/mlflow")
    assert findings()["MLflow"].detail == "postgresql://anna:***@host/mlflow, no server needed"


def test_what_is_broken_is_found_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:  # a port nobody listens on
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("PANO3D_SCANNET_ROOT", str(tmp_path / "missing"))
    monkeypatch.setattr(doctor, "MINIMUM_DISK", 10**9)

    def broken(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "ImportError: libEGL.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor.subprocess, "run", broken)
    found = findings("cuda:99")
    wrong = {name for name, finding in found.items() if finding.state == "wrong"}
    assert wrong >= {"device", "Open3D", "disk", "MLflow", "Prefect", "PANO3D_SCANNET_ROOT"}
    assert all(found[name].remedy for name in wrong)
    assert "libEGL" in found["Open3D"].detail
    assert "libegl1" in found["Open3D"].remedy
    assert cli.main(["doctor", "--device", "cuda:99"]) == 1
    assert "-> mount it, or unset PANO3D_SCANNET_ROOT" in capsys.readouterr().out
