"""The flow beside DVC: the same graph, one task per stage, and no child that outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

STAGES = """
stages:
  compose:
    cmd: echo composed > composed
    deps: [start]
    outs: [composed]
  train:
    matrix:
      backbone: [must3r, pi3]
    cmd: cat composed > ${item.backbone}
    deps: [composed]
    outs: ["${item.backbone}"]
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Our packages from any folder, and Prefect's files in a temporary one."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "DVC_ROOT"))}
    home = tmp_path_factory.mktemp("prefect")
    return environment | {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home), "PREFECT_LOGGING_LEVEL": "WARNING"}


def python(code: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path, environment: dict[str, str]) -> Path:
    (tmp_path / "start").write_text("x")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    return tmp_path


def test_the_server_builds(environment: dict[str, str]) -> None:
    """The pins of pyproject.toml hold: a FastAPI that is too new imports and then fails here."""
    code = "import flows\nfrom prefect.server.api.server import create_app\nprint(type(create_app()).__name__)"
    done = python(code, ROOT, environment)
    assert done.stdout.strip() == "FastAPI", done.stderr


def test_one_task_per_stage_and_the_graph_as_dvc_would_leave_it(project: Path, environment: dict[str, str]) -> None:
    code = """
        import asyncio
        from flows import reproduce
        reproduce.AFTERWARDS = ()
        print(reproduce.reproduce())
        from prefect.client.orchestration import get_client
        async def names():
            async with get_client() as client:
                return sorted((run.name, run.state_name) for run in await client.read_task_runs())
        print(asyncio.run(names()))
    """
    done = python(code, project, environment)
    assert done.returncode == 0, done.stderr
    visited, tasks = done.stdout.strip().splitlines()[-2:]
    assert visited == "['compose', 'train@must3r', 'train@pi3']"
    assert tasks == "[('compose', 'Completed'), ('train@must3r', 'Completed'), ('train@pi3', 'Completed')]"
    again = [sys.executable, "-m", "dvc", "status"]
    status = subprocess.run(again, cwd=project, env=environment, capture_output=True, text=True, check=True)
    assert "up to date" in status.stdout


def test_a_failed_stage_fails_with_its_name(project: Path, environment: dict[str, str]) -> None:
    (project / "start").unlink()
    code = """
        from flows.children import ChildFailedError
        from flows.reproduce import reproduce_stage
        from pathlib import Path
        try:
            reproduce_stage.fn("compose", Path("."))
        except ChildFailedError as error:
            print(error)
    """
    done = python(code, project, environment)
    assert "dvc repro --single-item compose ended with exit code" in done.stdout, done.stderr


def test_no_child_outlives_a_killed_flow(tmp_path: Path, environment: dict[str, str]) -> None:
    """flow -> shell -> sleep, the flow killed outright: both are gone soon after."""
    (tmp_path / "child.py").write_text(
        "import os, time\nfrom pano3d.processes import die_with_parent\ndie_with_parent()\n"
        "print(os.getpid(), flush=True)\ntime.sleep(100)\n"
    )
    code = f"""
        from pathlib import Path
        from flows.children import run_child
        run_child(["sh", "-c", "exec {sys.executable} child.py"], Path("."))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    flow = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert flow.stdout is not None
    child = int(flow.stdout.readline())
    assert is_running(child)
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)
    flow.stdout.close()


def is_running(process: int) -> bool:
    """Alive; a dead process whose exit nobody has collected yet is not."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--dry-run", 2)])
def test_a_question_starts_nothing(word: str, code: int, project: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "flows.reproduce", word]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "usage: python -m flows.reproduce" in done.stdout + done.stderr
    assert not (project / "composed").exists()


def test_importing_the_package_does_not_import_prefect(environment: dict[str, str]) -> None:
    code = "import sys, pano3d, pano3d.cli, pano3d.stages.compose, pano3d.tracking\nprint('prefect' in sys.modules)"
    assert python(code, ROOT, environment).stdout.strip() == "False"
