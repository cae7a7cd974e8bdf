"""Cases that take milliseconds, for tests of `pano3d bench`; a module, so that measured processes can import them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.cases import ON_CPU, Case, Growth, Work, require_close

SIDE = 64


def cases(full: bool) -> list[Case | Growth]:
    return [
        Case("product", prepare_product, unit="row", limit=60.0),
        Case("counting calls", prepare_counter, calls=20, counts=False, devices=ON_CPU),
        Growth("product", "rows", (8, 16, 32), prepare_rows),
    ]


def prepare_product(device: str) -> Work:
    a = torch.arange(SIDE * SIDE, dtype=torch.float32).view(SIDE, SIDE) / SIDE**2

    def rows() -> torch.Tensor:
        return torch.stack([torch.stack([(row * column).sum() for column in a.T]) for row in a])

    return Work(partial(torch.mm, a, a), partial(require_close, "product", tolerance=1e-4), rows, units=SIDE)


def prepare_counter(device: str) -> Work:
    called: list[int] = []
    return Work(lambda: called.append(0), lambda ours, plain: None, figures=lambda: {"calls": len(called)})


def prepare_rows(rows: int, device: str) -> Callable[[], object]:
    return partial(torch.mm, torch.rand(rows, SIDE), torch.rand(SIDE, SIDE))


def prepare_wrong(device: str) -> Work:
    """Twice what it should be; asked for its time, it leaves a trace."""
    calls: list[int] = []

    def ours() -> torch.Tensor:
        calls.append(0)
        if len(calls) > 1:
            print("timed")
        return torch.full((2,), 2.0)

    return Work(ours, partial(require_close, "ones", tolerance=0.1), lambda: torch.ones(2))


def prepare_death(device: str) -> Work:
    return Work(lambda: os._exit(9), lambda ours, plain: None)


def prepare_traces(told: str, is_dying: bool, device: str) -> Work:
    """Starts a process that would stay and makes a file; `told` then holds the process id and the file's name."""

    def work() -> None:
        child = subprocess.Popen(["sleep", "600"])
        with tempfile.NamedTemporaryFile(delete=False) as file, open(told, "w", encoding="utf-8") as note:
            note.write(f"{child.pid} {file.name}")
        if is_dying:
            os._exit(9)

    return Work(work, lambda ours, plain: None)
