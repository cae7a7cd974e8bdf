"""Child processes of a flow: they speak through its output and never outlive it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pano3d.processes import AGAIN, die_with_parent

_OURS = re.compile(r"pano3d [a-z_-]+: ")
_FAILED = re.compile(r"exited with 1\b")  # and not 143

GRACE = 60.0  # seconds between asking a child to stop and stopping it: training writes a checkpoint


class ChildFailedError(RuntimeError):
    """A child process ended with an exit code other than 0.

    is_final: the same command would fail again: it ended by itself with one line about what to mend.
    """

    def __init__(self, message: str, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


def run_child(
    command: Sequence[str], folder: Path, *, variables: Mapping[str, str] | None = None, log: Path | None = None
) -> None:
    """Run a command to its end, in this thread: the kernel ends the child when the thread that made it ends.

    Args:
        variables: added to its environment.
        log: file that takes what it prints; by default it prints where the flow prints.

    Raises:
        ChildFailedError: its exit code was not 0; with a log, carries its last words.
    """
    written_before = log.stat().st_size if log is not None and log.exists() else 0
    with contextlib.nullcontext() if log is None else log.open("a", encoding="utf-8") as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment() | dict(variables or {}),
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            code = child.wait()
        finally:
            _stop(child)
    if code == 0:
        return
    words = f"{' '.join(command)} ended with exit code {code}"
    if log is None:
        raise ChildFailedError(words)
    said = log.read_bytes()[written_before:].decode(errors="replace")
    reason, is_final = last_words(said)
    raise ChildFailedError(f"{words}: {reason} (all of it in {log})", is_final)


def last_words(said: str) -> tuple[str, bool]:
    """Why a command failed, from what it printed, and whether a second attempt would fail alike.

    Our commands end with one line "pano3d STAGE: ..." and exit code 1 when there is something to mend; anything else
    (a signal, no memory, a lost server) may pass. So may a lost process of several, although torchrun then ends with 1:
    those that are left say what to do. The one that met a mistake says what to mend beside them.
    """
    lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if line.strip()]
    ours = [line for line in lines if _OURS.match(line)]
    to_mend = [line for line in ours if AGAIN not in line]
    is_final = bool(to_mend) and bool(_FAILED.search(said))
    return (to_mend or ours or lines or ["it printed nothing"])[-1], is_final


def is_worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Whether another attempt may end better: not after a message about what to mend."""
    try:
        state.result()
    except ChildFailedError as error:
        return not error.is_final
    except Exception:
        return True
    return False


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
