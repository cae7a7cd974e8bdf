"""Ends the run of a process that was killed without a word, which nobody inside that process could do.

Started as a script beside every run. It imports next to nothing while the process lives: it asks the kernel every other
second whether its parent is still the one that started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

INTERVAL = 2.0  # seconds
PATIENCE, PAUSE = 3600.0, 15.0  # seconds: how long a store that is away is waited for, and how often it is asked


def start(uri: str, run_id: str) -> subprocess.Popen[bytes]:
    """Watch over this process. Kill what is returned when the run has been ended in good order."""
    above = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (above, os.environ.get("PYTHONPATH"))))
    # Of a session of its own: what ends this process with its group must not end the witness. The address may hold a
    # password, and every user of the machine can read a command line.
    return subprocess.Popen(
        [sys.executable, "-P", __file__, str(os.getpid()), run_id],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": uri},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _main(parent: int, run_id: str) -> None:
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    from pano3d.tracking import runs, store

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            opened = store.open_store()
            with opened.lock():
                runs.deliver_abandoned(opened)
                runs.end_if_dead(opened, run_id)
            if not runs.is_waiting(run_id):
                return
        except Exception:  # whatever it is, there is nobody to tell; try again
            pass
        if time.monotonic() > deadline:
            return  # the next run of this machine ends and delivers it
        time.sleep(PAUSE)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
