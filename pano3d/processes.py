"""What every process of ours does first: no telemetry, no orphans, a clean end on SIGTERM."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

TERMINATED = 143
"""Exit code of a command that SIGTERM ended in good order."""

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


def exit_on_sigterm() -> None:
    """Turn SIGTERM into SystemExit(143), so that files are closed and the run is ended as killed."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)
