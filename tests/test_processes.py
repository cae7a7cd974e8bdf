"""Workers end with the process whose pool they are, even when it is killed and can tell them nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.project import ROOT

POOL = """
import os, signal, time
from {module} import _executor

def pid(_):
    time.sleep(0.5)  # so that both workers get one
    return os.getpid()

if __name__ == "__main__":
    with _executor(2) as executor:
        print(*set(executor.map(pid, range(4))), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
LOADER = """
import os, signal
from pano3d.data.batches import training_batches

class Pids:
    def __getitem__(self, _):
        return os.getpid()

if __name__ == "__main__":
    batches = training_batches(Pids(), 0, 8, 2)
    print(*{next(batches) for _ in range(4)}, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
EVALUATION = """
import os, signal
from multiprocessing import get_context
from concurrent.futures import ProcessPoolExecutor
from pano3d import evaluation

def start():
    evaluation.load_reconstructor = lambda *_: None
    free = get_context("forkserver").Queue()
    free.put("cpu")
    evaluation._load_worker(None, type("C", (), {"scene": None}), 1, free)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver"), initializer=start) as executor:
        print(executor.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "script",
    [
        POOL.format(module="pano3d.stages.prepare"),
        POOL.format(module="pano3d.stages.check_data"),
        LOADER,
        EVALUATION,
    ],
    ids=["prepare", "check_data", "training_batches", "evaluation"],
)
def test_workers_end_with_a_process_that_is_killed(script: str, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(script)
    command = [sys.executable, str(tmp_path / "killed.py")]
    with (tmp_path / "printed").open("w+") as printed:  # not a pipe: an orphan would hold it open
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PANO3D_CLUSTER": ""},
            stdout=printed,
            timeout=120,
        )
        printed.seek(0)
        workers = [int(word) for word in printed.read().split()]
    assert workers
    limit = time.monotonic() + 20
    while time.monotonic() < limit and any(_lives(worker) for worker in workers):
        time.sleep(0.1)
    assert not [worker for worker in workers if _lives(worker)]


def _lives(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
