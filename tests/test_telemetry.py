"""Nothing leaves this machine: every Python process is watched by an audit hook (tests/offline/sitecustomize.py), and
where strace is allowed every process by the kernel.

The whole pipeline is watched the same ways in test_pipeline.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import strace
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


@pytest.mark.skipif(not strace.is_allowed(), reason=strace.REASON)
@pytest.mark.parametrize(
    ("family", "address", "count"),
    [("AF_INET", "192.0.2.1", 1), ("AF_INET6", "2001:db8::1", 1), ("AF_INET", "127.0.0.1", 0), ("AF_INET6", "::1", 0)],
)
def test_strace_sees_what_the_hook_cannot(tmp_path: Path, family: str, address: str, count: int) -> None:
    """A datagram sent by the C library itself, in a child process."""
    code = f"""
import ctypes, os, socket
if os.fork():
    os.wait()
else:
    s = socket.socket(socket.{family}, socket.SOCK_DGRAM)
    raw = socket.inet_pton(socket.{family}, {address!r})
    head = socket.{family}.to_bytes(2, "little") + (9).to_bytes(2, "big")
    place = head + (raw + bytes(8) if len(raw) == 4 else bytes(4) + raw + bytes(4))
    ctypes.CDLL(None).sendto(s.fileno(), b"x", 1, 0, place, len(place))
"""
    log, calls = tmp_path / "log", tmp_path / "calls"
    call(tmp_path, *strace.traced(calls), sys.executable, "-c", code, **watched(log))
    assert beyond(log) == []
    assert address in calls.read_text()
    assert len(strace.beyond(calls)) == count


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


LOAD = """
import pano3d
try:
    pano3d.load("models:/pano3d-pi3@champion")
except pano3d.types.WeightsError:
    pass
"""
SWITCH = "from pano3d.processes import silence_telemetry\nsilence_telemetry()\n"
OTHERS = f"{SWITCH}import huggingface_hub, great_expectations, viser, open3d"
# What our entry points set, and what makes the tools believe that they are being tested.
QUIET = (
    *("DO_NOT_TRACK", "DVC_NO_ANALYTICS", "ITERATIVE_DO_NOT_TRACK", "MLFLOW_", "PREFECT"),
    *("PYTEST", "CI", "GITHUB", "GITLAB_CI", "JENKINS_URL", "TRAVIS", "TF_BUILD", "BITBUCKET", "CODEBUILD"),
    *("BUILDKITE", "TEAMCITY", "CLOUD_RUN", "RUNBOT"),
)


def run_watched(folder: Path, code: str, **named: str) -> tuple[list[str], list[str]]:
    """What a program wanted from other machines, by Python's account and, where it may be asked, the kernel's."""
    log, calls = folder / "log", folder / "calls"
    kept = {key: value for key, value in environment().items() if not key.startswith(QUIET)}
    kept |= {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_LOGGING_LEVEL": "ERROR", **watched(log), **named}
    command = [*(strace.traced(calls) if strace.is_allowed() else []), sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert log.read_text().startswith("started")
    return beyond(log), strace.beyond(calls) if calls.exists() else []


@pytest.mark.parametrize("code", [FLOW, RUN, LOAD, OTHERS], ids=["flow", "run", "load", "others"])
def test_the_tools_report_to_nobody(tmp_path: Path, code: str) -> None:
    """With nothing set from outside: our entry points switch it off themselves."""
    assert run_watched(tmp_path, code) == ([], [])


def test_without_our_switches_mlflow_would_report(tmp_path: Path) -> None:
    """Else the test above would be none. What somebody has chosen stays; the hook lets nothing out."""
    wanted, left = run_watched(tmp_path, RUN, DO_NOT_TRACK="false", MLFLOW_DISABLE_TELEMETRY="false")
    assert any("telemetry" in line for line in wanted)
    assert left == []


def test_dvc_reports_to_nobody(tmp_path: Path) -> None:
    call(tmp_path, "git", "init", "-q")
    log = tmp_path / "log"
    for words in (("init", "-q"), ("config", "core.analytics", "false"), ("status",)):
        call(tmp_path, sys.executable, "-m", "dvc", *words, **watched(log))
    assert beyond(log) == []
