"""Time and peak memory of one callable, in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Cost:
    """seconds: best of the repeats. mebibytes: peak above what the inputs and weights take."""

    seconds: float
    mebibytes: float


def cost_of(prepare: Callable[[str], Callable[[], object]], device: str, repeats: int) -> Cost:
    """Cost of what `prepare(device)` returns; preparation is not counted."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(prepare, device, repeats, torch.get_num_threads(), sender))
    child.start()
    child.join()
    if child.exitcode != 0 or not receiver.poll():
        raise SystemExit(f"the measured process ended with code {child.exitcode}: not enough memory?")
    return Cost(**json.loads(receiver.recv()))


def _measure(
    prepare: Callable[[str], Callable[[], object]], device: str, repeats: int, threads: int, sender: object
) -> None:
    torch.set_num_threads(threads)
    work = prepare(device)
    before = _start_peak(device)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    cost = Cost(min(seconds), (_peak(device) - before) / 2**20)
    sender.send(json.dumps(asdict(cost)))  # type: ignore[attr-defined]


def _start_peak(device: str) -> int:
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark restarts here
    return _peak(device)


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform != "linux":
        raise SystemExit("peak memory of a CPU run is read from /proc, which only Linux has")
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def report(title: str, lean: Cost, plain: Cost) -> None:
    """One line: both costs and their ratios."""
    print(
        f"{title:<44} ours {lean.seconds:7.2f} s {lean.mebibytes:8.0f} MiB   plain {plain.seconds:7.2f} s "
        f"{plain.mebibytes:8.0f} MiB   {plain.seconds / lean.seconds:5.1f}x faster "
        f"{plain.mebibytes / max(lean.mebibytes, 1):5.1f}x less memory",
        flush=True,
    )
