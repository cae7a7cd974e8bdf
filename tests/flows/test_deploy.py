"""The documented command for real: server, pool, worker, deployments; refusal, cancelling, and the automation."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.project import clone, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Training says who it is and takes long; everything else is done at once.
STAND_IN = """
import os, pathlib, sys, time
from pano3d import cli
from pano3d.processes import die_with_parent, exit_on_sigterm

stage = sys.argv[1]
if stage == "compose":
    sys.exit(cli.main())
die_with_parent()
exit_on_sigterm()
if stage == "geometry_init":
    device = os.environ["CUDA_VISIBLE_DEVICES"]
    path = pathlib.Path(os.environ["DEPLOY_LOG"]) / f"training-{os.getpid()}"
    path.write_text(device)
    time.sleep(600)
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
target = pathlib.Path(options["--output"])
target.mkdir(parents=True, exist_ok=True)
(target / "metrics.json").write_text("{}")
"""


@dataclass
class Served:
    """A project whose deployments are served."""

    project: Path
    log: Path
    variables: dict[str, str]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
        return subprocess.run(
            command, cwd=self.project, env=self.variables, capture_output=True, text=True, check=False
        )

    def api(self, code: str) -> object:
        """What a few lines print as JSON; `client` is Prefect's."""
        text = "import flows, json\nfrom prefect.client.orchestration import get_client\n"
        text += f"with get_client(sync_client=True) as client:\n    print(json.dumps({code}))"
        done = subprocess.run(
            [sys.executable, "-c", text],
            cwd=self.project,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def training(self) -> list[int]:
        return [int(path.name.partition("-")[2]) for path in self.log.glob("training-*")]


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project, log = clone(tmp_path_factory.mktemp("project")), tmp_path_factory.mktemp("log")
    (project / "pano3d/__main__.py").write_text(STAND_IN)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = environment() | {
        "PREFECT_HOME": str(log / "prefect"),
        "DEPLOY_LOG": str(log),
        "OMP_NUM_THREADS": "1",
        "PANO3D_TRACKING": "off",
    }
    with open(log / "serve.log", "w") as output:
        command = [sys.executable, "-m", "flows.deploy", "--port", str(port), "--devices", "0,1"]
        process = subprocess.Popen(command, cwd=project, env=variables, stdout=output, stderr=output)
    try:

        def is_up() -> bool:
            assert process.poll() is None, (log / "serve.log").read_text()[-4000:]
            return "worker on 0, 1" in (log / "serve.log").read_text()

        until(is_up, 300, "server, deployments and worker")
        yield Served(project, log, variables | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"})
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(180)
    assert code == 0, (log / "serve.log").read_text()[-4000:]
    assert not [p for p in psutil.process_iter() if _works_in(p, project)]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def test_what_is_deployed(served: Served) -> None:
    listed = served.call("deployment", "ls").stdout
    for name in ("reproduce/gpu", "train/gpu", "evaluate/gpu", "ablate/gpu"):
        assert name in listed, listed
    limits = served.api("sorted((l.name, l.limit) for l in client.read_global_concurrency_limits())")
    assert limits == [["device-0", 1], ["device-1", 1]]
    automations = served.api("[(a.name, a.enabled) for a in client.read_automations()]")
    assert automations == [["pano3d: run again what went silent", True]]


def test_a_wrong_variant_is_refused_before_there_is_a_run(served: Served) -> None:
    done = served.call("deployment", "run", "ablate/gpu", "-p", 'variants=["nonsense"]')
    assert done.returncode != 0
    assert "nonsense" in done.stdout + done.stderr
    assert served.api("[r.name for r in client.read_flow_runs()]") == []


def test_cancelling_stops_the_training_process(served: Served) -> None:
    done = served.call("deployment", "run", "train/gpu", "-p", "backbone=must3r", "-p", "stage=geometry_init")
    assert done.returncode == 0, done.stderr
    until(served.training, 240, "training starts")
    process = psutil.Process(served.training()[0])
    assert (served.log / f"training-{process.pid}").read_text() == "0"
    run = served.api("[str(r.id) for r in client.read_flow_runs()]")
    assert served.call("flow-run", "cancel", run[0]).returncode == 0  # type: ignore[index]
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 180, "training is gone")
    until(lambda: served.api("client.read_flow_runs()[0].state_name") == "Cancelled", 120, "the run is cancelled")
