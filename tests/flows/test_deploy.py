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

from tests.project import ROOT, clone, environment

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
    path.write_text(f"{device} {os.environ.get('PREFECT_FLOWS_HEARTBEAT_FREQUENCY')}")
    time.sleep(600)
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
target = pathlib.Path(options["--output"])
target.mkdir(parents=True, exist_ok=True)
(target / "metrics.json").write_text("{}")
"""


SILENCE = 40  # seconds; heartbeats come every 30


@dataclass
class Served:
    """A project whose deployments are served."""

    project: Path
    log: Path
    variables: dict[str, str]
    server: psutil.Process

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
        """Process ids of all training there has been, by the time they began."""
        paths = sorted(self.log.glob("training-*"), key=lambda path: path.stat().st_mtime_ns)
        return [int(path.name.partition("-")[2]) for path in paths]

    def train(self, backbone: str) -> None:
        done = self.call("deployment", "run", "train/gpu", "-p", f"backbone={backbone}", "-p", "stage=geometry_init")
        assert done.returncode == 0, done.stderr

    def worker(self) -> psutil.Process:
        """Of which there is one at a time."""
        (found,) = [
            process
            for process in self.server.children(recursive=True)
            if process.status() != psutil.STATUS_ZOMBIE and "worker" in process.cmdline()
        ]
        return found


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
        command = [
            sys.executable,
            "-m",
            "flows.deploy",
            "--port",
            str(port),
            "--devices",
            "0,1",
            "--silence",
            str(SILENCE),
        ]
        process = subprocess.Popen(command, cwd=project, env=variables, stdout=output, stderr=output)
    try:

        def is_up() -> bool:
            assert process.poll() is None, (log / "serve.log").read_text()[-4000:]
            return "worker on 0, 1" in (log / "serve.log").read_text()

        until(is_up, 300, "server, deployments and worker")
        variables |= {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
        yield Served(project, log, variables, psutil.Process(process.pid))
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
    automations = served.api("sorted((a.name, a.enabled) for a in client.read_automations())")
    assert automations == [
        ["pano3d: end what was cancelled without a worker", True],
        ["pano3d: run again what went silent", True],
    ]


def test_a_wrong_variant_is_refused_before_there_is_a_run(served: Served) -> None:
    done = served.call("deployment", "run", "ablate/gpu", "-p", 'variants=["nonsense"]')
    assert done.returncode != 0
    assert "nonsense" in done.stdout + done.stderr
    assert served.api("[r.name for r in client.read_flow_runs()]") == []


def test_cancelling_stops_the_training_process(served: Served) -> None:
    served.train("must3r")
    until(served.training, 240, "training starts")
    process = psutil.Process(served.training()[0])
    # The device, and the seconds between signs of life: from the deployment, since any worker may take the run.
    assert (served.log / f"training-{process.pid}").read_text() == "0 30"
    run = served.api("[str(r.id) for r in client.read_flow_runs()]")
    assert served.call("flow-run", "cancel", run[0]).returncode == 0  # type: ignore[index]
    until(lambda: not is_alive(process.pid), 180, "training is gone")
    until(lambda: served.api("client.read_flow_runs()[0].state_name") == "Cancelled", 120, "the run is cancelled")


def test_a_run_that_was_killed_with_its_worker_is_run_again(served: Served) -> None:
    before = len(served.training())
    served.train("pi3")
    until(lambda: len(served.training()) > before, 240, "training starts")
    first = served.training()[-1]
    worker = served.worker()
    for process in (worker, *worker.children(recursive=True)):  # as a machine that loses its power does
        process.kill()
    until(lambda: not is_alive(first), 60, "training is gone")
    until(lambda: len(served.training()) > before + 1, 300, "the run is taken up again")
    assert is_alive(served.training()[-1])
    assert served.worker().pid != worker.pid
    code = (
        "[[str(r.id), r.state_name, r.run_count] for r in client.read_flow_runs() if r.parameters['backbone'] == 'pi3']"
    )
    (run,) = served.api(code)  # type: ignore[misc]
    assert run[1:] == ["Running", 2]
    assert served.call("flow-run", "cancel", run[0]).returncode == 0
    until(lambda: not is_alive(served.training()[-1]), 180, "training is gone")


def test_runs_whose_end_nobody_saw_are_taken_up_or_ended_after_the_next_deployment(served: Served) -> None:
    before = len(served.training())
    # What a server finds that was killed together with its worker: runs that are said to be running, or stopping.
    created = """str(client.create_flow_run_from_deployment(
        client.read_deployment_by_name("train/gpu").id,
        parameters={"backbone": "must3r", "stage": "geometry_init"},
        state=__import__("prefect.states").states.%s,
    ).id)"""
    run = served.api(created % "Running()")
    stopping = served.api(created % "Cancelling()")
    subprocess.run(
        [sys.executable, "-m", "flows.deploy", "--only-deploy", "--devices", "0,1", "--silence", str(SILENCE)],
        cwd=served.project,
        env=served.variables,
        check=True,
        capture_output=True,
    )
    until(lambda: len(served.training()) > before, 300, "the run is taken up")
    state = f"client.read_flow_run('{stopping}').state_name"
    until(lambda: served.api(state) == "Cancelled", 300, "the cancelled run is over")
    assert len(served.training()) == before + 1
    assert served.call("flow-run", "cancel", str(run)).returncode == 0
    until(lambda: not is_alive(served.training()[-1]), 180, "training is gone")


def test_a_silence_shorter_than_a_heartbeat_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.deploy", "--silence", "30"],
        cwd=ROOT,
        env=environment() | {"PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--silence must be more than 30 s" in done.stderr


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
