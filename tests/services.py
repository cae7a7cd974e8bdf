"""The services of docker/compose.yaml without containers: PostgreSQL, MLflow and Prefect on loopback.

    python -m tests.services            # start, write from many processes at once, dump, lose, restore, stop
    python -m tests.services --pipeline # also the smoke pipeline and two concurrent ablations through them; minutes

Commands, settings and passwords are those of docker/: only addresses, ports and folders are exchanged. Needs Debian's
package `postgresql` and the extra `postgres`. PostgreSQL refuses to run as root: root hands it to the user `postgres`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

from tests.project import ROOT, call, clone, commit, environment

DOCKER = ROOT / "docker"
DATABASES = ("mlflow", "prefect")
WRITER = """
import sys
from pano3d import tracking
params = {"reproduction": "writers", "seed": int(sys.argv[1]), "backbone": {"name": "pi3"}, "dataset": {"name": "d"}}
for _ in range(2):
    with tracking.run("evaluate", params) as run:
        for step in range(50):
            run.log("loss", 1.0 / (step + 1), step)
        run.log_dict({"writer": sys.argv[1]}, "writer.json")
"""
COUNT = """
from pano3d.tracking import store
opened = store.open_store()
client = opened.client
experiments = client.search_experiments()
runs = client.search_runs([one.experiment_id for one in experiments], max_results=5000)
points = sum(len(client.get_metric_history(one.info.run_id, name)) for one in runs for name in one.data.metrics)
kept = sum(len(client.list_artifacts(one.info.run_id)) for one in runs)
names = [model.name for model in client.search_registered_models()]  # which come without their aliases
models = {name: (len(client.search_model_versions(f"name = '{name}'")), client.get_registered_model(name).aliases)
          for name in names}
running = [one.info.run_id for one in runs if one.info.status != "FINISHED"]
print(len(experiments), len(runs), points, kept, models, running)
"""


def programs() -> Path | None:
    """The folder of PostgreSQL's server programs, None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Services:
    """The three servers, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        found = programs()
        if found is None:
            sys.exit("PostgreSQL is not installed; run: sudo apt-get install -y --no-install-recommends postgresql")
        self.programs, self.folder, self.secrets = found, folder, folder / "secrets"
        self.compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
        self.ports = {name: free_port() for name in ("postgres", *DATABASES)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        # What separates root's files from those of the user that may run PostgreSQL.
        self._as_owner = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        subprocess.run([DOCKER / "make-secrets", self.secrets], check=True, stdout=subprocess.DEVNULL)

    @property
    def addresses(self) -> dict[str, str]:
        """What points the project at the servers."""
        return {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.ports['mlflow']}",
            "PREFECT_API_URL": f"http://127.0.0.1:{self.ports['prefect']}/api",
            "PREFECT_HOME": str(self.folder / "prefect-home"),
        }

    def start_database(self) -> None:
        """An empty cluster, then the roles and databases as the container makes them on an empty volume."""
        data, password = self.folder / "postgres", self.folder / "password"
        shutil.copy(self.secrets / "postgres_password", password)
        data.mkdir()
        if self._as_owner:
            shutil.chown(data, "postgres")
            shutil.chown(password, "postgres")
        password.chmod(0o600)
        arguments = self.compose["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
        words = [
            self.programs / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            f"--pwfile={password}",
            "--no-sync",
            *arguments,
        ]
        self._call([*self._as_owner, *words, "--auth-local=scram-sha-256"])
        settings = f"-c listen_addresses=127.0.0.1 -c port={self.ports['postgres']} -c unix_socket_directories="
        words = [self.programs / "pg_ctl", "-D", data, "-w", "-t", "120", "-l", data / "log", "-o", settings, "start"]
        self._call([*self._as_owner, *words])
        self._call([DOCKER / "databases"], POSTGRES_USER="postgres", PANO3D_SECRETS=str(self.secrets))

    def start(self, name: str) -> None:
        """One of the servers, through docker/entrypoint, with the command of compose.yaml; returns once it answers."""
        service, port = self.compose[name], self.ports[name]
        command = [self._native(word) for word in service["command"]]
        command = [f"--port={port}" if word.startswith("--port=") else word for word in command]
        given = {key: self._native(str(value)) for key, value in service["environment"].items()}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [DOCKER / "entrypoint", *command],
                cwd=self.folder,
                env=environment() | given | {"PREFECT_HOME": str(self.folder / "prefect-server")},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        health = {"mlflow": "/health", "prefect": "/api/health"}[name]
        deadline = time.monotonic() + 240
        while not self._answers(f"http://127.0.0.1:{port}{health}"):
            if self._running[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start:\n{(self.folder / f'{name}.log').read_text()[-4000:]}")
            time.sleep(0.5)

    def stop(self, name: str) -> None:
        """A server and what it started, at once."""
        process = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop_all(self) -> None:
        for name in list(self._running):
            self.stop(name)
        data = self.folder / "postgres"
        if (data / "postmaster.pid").exists():
            self._call([*self._as_owner, self.programs / "pg_ctl", "-D", data, "-m", "fast", "-w", "stop"])

    def fresh_database(self, name: str) -> dict[str, str]:
        """An empty database beside those of the servers; what points a project straight at it."""
        self._call([self.programs / "psql", "-q", "-d", "postgres", "-c", f'CREATE DATABASE "{name}" OWNER mlflow'])
        return {
            "MLFLOW_TRACKING_URI": f"postgresql://mlflow@127.0.0.1:{self.ports['postgres']}/{name}",
            "PGPASSWORD": (self.secrets / "mlflow_password").read_text(),
        }

    def dump(self, name: str) -> Path:
        """pg_dump as docker/README.md has it."""
        target = self.folder / f"{name}.dump"
        with target.open("wb") as file:
            self._call([self.programs / "pg_dump", "-Fc", name], stdout=file)
        return target

    def lose(self, name: str) -> None:
        """Make a database empty, as on a new volume."""
        for words in (f'DROP DATABASE "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}" OWNER "{name}"'):
            self._call([self.programs / "psql", "-q", "-d", "postgres", "-c", words])

    def restore(self, name: str, dump: Path) -> None:
        """pg_restore as docker/README.md has it."""
        self._call([self.programs / "pg_restore", "--clean", "--if-exists", "-d", name, dump])

    def _native(self, word: str) -> str:
        """A word of compose.yaml with the addresses and folders of this machine."""
        exchanged = {
            "postgres:5432": f"127.0.0.1:{self.ports['postgres']}",
            "0.0.0.0": "127.0.0.1",
            "/var/lib/mlflow": str(self.folder / "artifacts"),
            "/run/secrets": str(self.secrets),
            "${PREFECT_PORT:-4200}": str(self.ports["prefect"]),
        }
        for theirs, ours in exchanged.items():
            word = word.replace(theirs, ours)
        return word

    def _call(self, words: Sequence[object], stdout: Any = subprocess.PIPE, **named: str) -> None:
        password = (self.secrets / "postgres_password").read_text()
        reach = {"PGHOST": "127.0.0.1", "PGPORT": str(self.ports["postgres"]), "PGUSER": "postgres"}
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        environ = {**os.environ, **reach, "PGPASSWORD": password, "PATH": path, **named}
        command = [str(word) for word in words]
        # pg_ctl's server keeps what it inherits: a pipe would never end.
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environ,
            stdout=subprocess.DEVNULL if stdout is subprocess.PIPE else stdout,
            stderr=None if "pg_ctl" in command[-1] or "start" in command else subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {(done.stderr or b'').decode()[-4000:]}")

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


@contextlib.contextmanager
def services() -> Iterator[Services]:
    """All three, on empty databases; nothing of them is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pano3d-services-"))
    folder.chmod(0o711)  # the user of PostgreSQL passes through
    started = Services(folder)
    try:
        started.start_database()
        for name in DATABASES:
            started.start(name)
        yield started
    finally:
        started.stop_all()
        shutil.rmtree(folder)


def write_at_once(projects: Sequence[Path], writers: int, addresses: Mapping[str, str]) -> None:
    """So many processes, in these projects in turn, open the store and record runs at the same time; one that fails
    fails all.

    Raises:
        RuntimeError: with what the failed one said.
    """
    command = [sys.executable, "-W", "ignore", "-c", WRITER]
    given = environment() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **addresses}
    at_once = [
        subprocess.Popen([*command, str(seed)], cwd=place, env=given, stderr=subprocess.PIPE, text=True)
        for seed, place in zip(range(writers), cycle(projects), strict=False)
    ]
    said = [(process.communicate()[1], process.returncode) for process in at_once]
    wrong = [text for text, code in said if code or "locked" in text or "not recorded" in text]
    if wrong:
        raise RuntimeError("\n".join(wrong)[-6000:])


def contents(project: Path, addresses: Mapping[str, str]) -> str:
    """What is in MLflow: experiments, runs, metric values, artifacts, models with versions and aliases, and the runs
    that are not FINISHED."""
    return call(project, sys.executable, "-W", "ignore", "-c", COUNT, PYTHONPATH=str(ROOT), **addresses).strip()


def flow_runs(started: Services) -> int:
    """How many flow runs Prefect knows."""
    request = urllib.request.Request(
        f"{started.addresses['PREFECT_API_URL']}/flow_runs/count",
        data=b"{}",
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.read())


def lose_and_restore(started: Services, project: Path) -> None:
    """Dump both databases, empty them, see that all is gone, restore, and find everything again.

    Raises:
        RuntimeError: what is there afterwards is not what was there before.
    """
    before = contents(project, started.addresses), flow_runs(started)
    dumps = {name: started.dump(name) for name in DATABASES}
    for name in DATABASES:
        started.stop(name)
        started.lose(name)
        started.restore(name, dumps[name])
        started.start(name)
    after = contents(project, started.addresses), flow_runs(started)
    if before != after:
        raise RuntimeError(f"restored {after}; expected {before}")


def run_pipeline(project: Path, started: Services) -> None:
    """The smoke reproduction, its registration, and two ablations at the same time, all through the servers."""
    settings = project / "params/run.yaml"
    settings.write_text(settings.read_text().replace("profile: default", "profile: smoke"))
    commit(project)
    for words in (["dvc", "repro"], [sys.executable, "-m", "pano3d", "register"]):
        _say(" ".join(words))
        call(project, *words, **started.addresses)
    commit(project)
    _say("two ablations at once")
    command = [sys.executable, "-m", "flows.ablate", "--seeds", "0", "--backbones", "pi3", "--variants"]
    at_once = [
        subprocess.Popen(
            [*command, variant, "--name", f"services-{variant}"],
            cwd=project,
            env=environment() | started.addresses,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for variant in ("joint", "frozen")
    ]
    said = [(process.communicate()[0], process.returncode) for process in at_once]
    if any(code for _, code in said):
        raise RuntimeError("\n".join(text[-6000:] for text, code in said if code))
    if not call(project, sys.executable, "-m", "pano3d", "trace", "models:/pano3d-pi3@challenger", **started.addresses):
        raise RuntimeError("pano3d trace printed nothing")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", action="store_true", help="also the smoke pipeline and two ablations")
    parser.add_argument("--writers", type=int, default=4, help="processes that write at once")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = clone(Path(folder))
        _say("starting PostgreSQL, MLflow, Prefect")
        with services() as started:
            _say(f"{args.writers} writers at once")
            write_at_once([project], args.writers, started.addresses)
            if args.pipeline:
                run_pipeline(project, started)
            _say(f"in MLflow: {contents(project, started.addresses)}; flow runs: {flow_runs(started)}")
            _say("dump, lose, restore")
            lose_and_restore(started, project)
            _say("restored; stopping")
    _say("nothing is left running")


if __name__ == "__main__":
    main()
