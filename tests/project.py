"""A clone of this project to run DVC in, with stand-ins for the stages where only the graph is looked at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Writes what the real stage would leave, with contents that are new every time, so that all that depends on it runs.
STAND_IN = """
import pathlib, sys, uuid
from pano3d import cli

stage, params = sys.argv[1:3]
with open("visited.log", "a") as log:
    backbone = pathlib.Path(params).parent.name
    matrix = stage not in ("compose", "prepare", "check_data", "report")
    log.write(f"{stage}@{backbone}\\n" if matrix else f"{stage}\\n")
if stage == "compose":
    sys.exit(cli.main())
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
for option in ("--output", "--results"):
    if option in options and (option, stage) != ("--results", "report"):
        folder = pathlib.Path(options[option])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text('{"scenes": 1}')
        if option == "--output":
            (folder / "content").write_text(uuid.uuid4().hex)
        else:
            (folder / "curve.csv").write_text(f"step,loss/total\\n1,{uuid.uuid4().int % 1000}\\n")
"""


def clone(folder: Path) -> Path:
    """The working tree as one commit: tracked files as they are now, so that a change can be tried before it is one."""
    files = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    call(folder, "git", "init", "-q")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    call(folder, "git", "add", "-A")
    call(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "state", "--allow-empty")


def environment() -> dict[str, str]:
    """This Python first in PATH; nothing of a surrounding DVC, MLflow or Prefect."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "PREFECT"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def call(folder: Path, *command: str, **named: str) -> str:
    """What a command prints; its failure fails the test with what it said."""
    done = subprocess.run(command, cwd=folder, env=environment() | named, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    return done.stdout
