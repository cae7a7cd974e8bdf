"""What a user waits for before anything happens: imports, and the command line's help."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.cases import ON_CPU, Case, Work, require

ROOT = Path(__file__).parents[1]


def cases(full: bool) -> list[Case]:
    """Each in a fresh interpreter; the twin is the least that one could do."""
    started = {
        "import pano3d": (("-c", "import pano3d; print('done')"), ("-c", "print('done')"), None),
        "import reconstruction": (
            ("-c", "import pano3d.reconstruction; print('done')"),
            ("-c", "import torch; print('done')"),
            None,
        ),
        "pano3d --help": (("-m", "pano3d", "--help"), ("-c", "import argparse; print('usage: pano3d')"), 0.5),
    }
    return [
        Case(name, partial(prepare, ours, least), devices=ON_CPU, limit=limit, counts=False, has_memory=False)
        for name, (ours, least, limit) in started.items()
    ]


def prepare(ours: tuple[str, ...], least: tuple[str, ...], device: str) -> Work:
    """Commands for a Python of their own."""

    def check(printed: str, expected: str) -> None:
        require(
            printed.split()[:2] == expected.split()[:2], f"expected {expected!r} printed first, got {printed[:80]!r}"
        )

    return Work(partial(_run, ours), check, partial(_run, least))


def _run(words: tuple[str, ...]) -> str:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr[-300:]}"
