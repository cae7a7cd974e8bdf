"""Nothing leaves this machine: every Python process is watched by an audit hook (tests/offline/sitecustomize.py).

The whole pipeline is watched the same way in test_pipeline.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT, call, environment

OFFLINE = Path(__file__).parent / "offline"


def watched(log: Path) -> dict[str, str]:
    """Environment that makes every Python below note its connections in `log`."""
    return {"PYTHONPATH": f"{OFFLINE}:{ROOT}", "PANO3D_CONNECTIONS": str(log)}


def beyond(log: Path) -> list[str]:
    """What was wanted from other machines."""
    return [line for line in log.read_text().splitlines() if not line.startswith("started\t")]


@pytest.mark.parametrize(
    "code",
    [
        "s = socket.socket(); s.settimeout(0.1); s.connect(('192.0.2.1', 9))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
        "import urllib.request; urllib.request.urlopen('http://telemetry.invalid/x', timeout=1)",
    ],
)
def test_the_hook_sees_what_leaves(tmp_path: Path, code: str) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", f"import socket\n{code}"]
    subprocess.run(command, env=environment() | watched(log), capture_output=True, check=False)
    assert len(beyond(log)) >= 1
    call(
        tmp_path,
        sys.executable,
        "-c",
        "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())",
        **watched(tmp_path / "own"),
    )
    assert beyond(tmp_path / "own") == []


FLOW = """
import flows
from prefect import flow
@flow
def nothing():
    return 1
assert nothing() == 1
"""
RUN = """
from pano3d import tracking
params = {"reproduction": "r", "seed": 1, "backbone": {"name": "pi3"}, "dataset": {"name": "d"}}
with tracking.run("evaluate", params) as run:
    run.log("loss", 1.0)
"""


@pytest.mark.parametrize("code", [FLOW, RUN, "import huggingface_hub, great_expectations, viser, open3d"])
def test_the_tools_report_to_nobody(tmp_path: Path, code: str) -> None:
    """With nothing set from outside: our entry points switch it off themselves."""
    log = tmp_path / "log"
    switches = ("DO_NOT_TRACK", "DVC_NO_ANALYTICS", "ITERATIVE_DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY")
    kept = {key: value for key, value in environment().items() if key not in switches}
    kept |= {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_LOGGING_LEVEL": "ERROR", **watched(log)}
    code = f"from pano3d.processes import silence_telemetry\nsilence_telemetry()\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert log.read_text().startswith("started")
    assert beyond(log) == []


def test_dvc_reports_to_nobody(tmp_path: Path) -> None:
    call(tmp_path, "git", "init", "-q")
    log = tmp_path / "log"
    for words in (("init", "-q"), ("config", "core.analytics", "false"), ("status",)):
        call(tmp_path, sys.executable, "-m", "dvc", *words, **watched(log))
    assert beyond(log) == []
