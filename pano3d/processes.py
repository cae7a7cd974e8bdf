"""What every process of ours does first: no telemetry, no orphans, a clean end on SIGTERM. And the memory it took."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import NoReturn

TERMINATED = 143
"""Exit code of a command that SIGTERM ended in good order."""

AGAIN = "again to go on"
"""In the message of a training that was stopped or lost a process: there is nothing to mend. Its exit code does not say
so where torchrun stands between, which ends with 1 whatever it was."""

MANY_FILES = 65536
"""Open ones that a process with loader workers asks for."""

_PR_SET_PDEATHSIG = 1

_SILENT = {
    "DO_NOT_TRACK": "true",  # MLflow wants this very word
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def silence_telemetry() -> None:
    """Switch the tools' usage reports off, for this process and its children, where nobody has chosen otherwise."""
    for name, value in _SILENT.items():
        os.environ.setdefault(name, value)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends, however it ends. Does nothing where there is no such call."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_pool() -> None:
    """In the worker of a process pool or a data loader: end when the process whose pool it is ends, however it ends.

    The kernel takes another one for its parent, the server that forked the workers, and that one lives as long as any
    of them: so a thread waits for the end of the pipe to the true parent.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(TERMINATED)


def allow_many_files() -> None:
    """Before the workers of a data loader start: every tensor that waits holds a file open, of which 1024 are usual.

    A batch of many scenes holds a hundred. Does nothing where there is no such limit.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(MANY_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def exit_on_sigterm() -> None:
    """Turn SIGTERM into SystemExit(143), so that files are closed and the run is ended as killed."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)


def restart_peak() -> None:
    """Let `peak_bytes` count from now on; where the kernel cannot, it counts from the start of the process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory this process has held. Without /proc, getrusage tells, which on Linux counts the parent's too."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        try:
            import resource
        except ImportError:  # Windows
            import psutil

            return int(psutil.Process().memory_info().rss)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
