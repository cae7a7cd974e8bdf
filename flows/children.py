"""Child processes of a flow: they speak through its output and never outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pano3d.processes import die_with_parent

GRACE = 60.0  # seconds between asking a child to stop and stopping it: training writes a checkpoint


class ChildFailedError(RuntimeError):
    """A child process ended with an exit code other than 0."""


def run_child(command: Sequence[str], folder: Path) -> None:
    """Run a command to its end, in this thread: the kernel ends the child when the thread that made it ends.

    Raises:
        ChildFailedError: its exit code was not 0.
    """
    child = subprocess.Popen(command, cwd=folder, env=environment(), start_new_session=True, preexec_fn=die_with_parent)
    try:
        code = child.wait()
    finally:
        _stop(child)
    if code != 0:
        raise ChildFailedError(f"{' '.join(command)} ended with exit code {code}")


def read_child(command: Sequence[str], folder: Path) -> str:
    """What a short command prints.

    Raises:
        ChildFailedError: its exit code was not 0; carries what it said.
    """
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChildFailedError(f"{' '.join(command)} ended with exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def environment() -> dict[str, str]:
    """This environment, with our own Python first: stages are called as `python`."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the child and its children to stop, then stop them, if they still run: the flow was cancelled."""
    if child.poll() is not None:
        return
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
