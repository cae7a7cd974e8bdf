"""One case or growth, measured in a process of its own: checked first, then timed in turn with its plain twin."""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Case, CheckError, Growth
from benchmarks.fits import fit_exponent, spread_of
from benchmarks.machine import metering, synchronise
from pano3d.processes import peak_bytes, restart_peak


@dataclass(frozen=True)
class Effort:
    """seconds: aimed at, for the timed calls of ours and the twin. fewest, most: calls of each. patience: seconds
    after which two of each are enough, for networks that take a minute."""

    seconds: float
    fewest: int
    most: int
    patience: float


QUICK, FULL = Effort(1.0, 3, 10, 3.0), Effort(20.0, 5, 40, 60.0)
GROWTH_CALLS = 3
LONG = 5.0  # seconds


class MeasuredProcessError(Exception):
    """The process of a case raised or died; the message says how."""


def measure(target: Case | Growth, device: str, effort: Effort) -> dict[str, Any]:
    """What `_measure_case` or `_measure_growth` found.

    Raises:
        CheckError: a result is wrong; nothing was timed.
        MeasuredProcessError: something else went wrong.
    """
    context = multiprocessing.get_context("forkserver")
    # The server imports PyTorch once; the processes forked from it start with clean threads and memory.
    context.set_forkserver_preload(["benchmarks.timing"])
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([root, *_folders(os.environ.get("PYTHONPATH"))]))
    with tempfile.TemporaryDirectory(prefix="pano3d-bench-", ignore_cleanup_errors=True) as folder:
        receiver, sender = context.Pipe(duplex=False)
        threads = torch.get_num_threads()
        child = context.Process(target=_serve, args=(target, device, effort, threads, folder, sender))
        child.start()
        sender.close()
        try:
            kind, answer = json.loads(receiver.recv())
            child.join(LONG)  # it ends what it has started
        except EOFError:
            child.join()
            raise MeasuredProcessError(
                f"{target.title}: its process died with {child.exitcode}; not enough memory?"
            ) from None
        finally:
            child.kill()  # not wanted any more, nor what it has started
            assert child.pid is not None, "it was started"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.join()
    if kind == "check":
        raise CheckError(answer)
    if kind == "error":
        raise MeasuredProcessError(f"{target.title}: {answer}")
    found: dict[str, Any] = answer
    return found


def _folders(path: str | None) -> list[str]:
    return [folder for folder in (path or "").split(os.pathsep) if folder]


def _serve(target: Case | Growth, device: str, effort: Effort, threads: int, folder: str, sender: Connection) -> None:
    """Measure, and send what came of it; temporary files, those of its own processes too, go into `folder`."""
    os.setpgrp()  # Ctrl-C reaches the parent alone, which ends this process and what it has started
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        if isinstance(target, Case):
            found = _measure_case(target, device, effort)
        else:
            found = _measure_growth(target, device)
        answer: tuple[str, Any] = ("found", found)
    except CheckError as error:
        answer = ("check", f"{target.title}: {error}")
    except Exception as error:
        traceback.print_exc()
        answer = ("error", f"{type(error).__name__}: {error}")
    sender.send(json.dumps(answer))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def _measure_case(case: Case, device: str, effort: Effort) -> dict[str, Any]:
    """The first call of each way warms up and is checked, the second tells the peak memory above what inputs and
    weights take; of a long call the first does, since what a process sets up once is little beside it."""
    work = case.prepare(device)
    started = time.perf_counter()
    ours, peak = _with_peak(work.ours, device)
    plain, plain_peak = (None, None) if work.plain is None else _with_peak(work.plain, device)
    is_long = time.perf_counter() - started > LONG
    work.check(ours, plain)
    del ours, plain
    if case.has_memory and not is_long:
        _, peak = _with_peak(work.ours, device)
        if work.plain is not None:
            _, plain_peak = _with_peak(work.plain, device)
    demand = None
    if case.counts:
        with metering() as demand:
            work.ours()
    samples, twins = _time_in_turn(case, work.ours, work.plain, device, effort)
    seconds = [each / work.units for each in samples]
    twin_seconds = [each / work.units for each in twins]
    return {
        "unit": case.unit,
        "clock": case.clock,
        "limit": case.limit if device == "cpu" else None,
        "seconds": asdict(spread_of(seconds)),
        "plain_seconds": asdict(spread_of(twin_seconds)) if twins else None,
        "speedup": asdict(spread_of([b / a for a, b in zip(seconds, twin_seconds)])) if twins else None,
        "peak_bytes": peak if case.has_memory else None,
        "plain_peak_bytes": plain_peak if case.has_memory else None,
        "demand": None if demand is None else {name: value / work.units for name, value in asdict(demand).items()},
        "over_calls": None if case.calls is None else _over_calls(seconds),
        "figures": work.figures(),
    }


def _over_calls(seconds: list[float]) -> dict[str, Any]:
    """Growth over the number of the call, from means of ten neighbours: single calls scatter more than they grow."""
    width = max(1, len(seconds) // 10)
    means = [sum(seconds[at : at + width]) / width for at in range(0, width * (len(seconds) // width), width)]
    sizes = [at * width + (width + 1) / 2 for at in range(len(means))]
    return {"over": "calls", "sizes": sizes, "seconds": means, "exponent": asdict(fit_exponent(sizes, means))}


def _time_in_turn(
    case: Case, ours: Callable[[], Any], plain: Callable[[], Any] | None, device: str, effort: Effort
) -> tuple[list[float], list[float]]:
    """Seconds of calls, ours and the twin's by turns, so that both meet the same machine."""
    samples: list[float] = []
    twins: list[float] = []
    while True:
        samples.append(_seconds(ours, device, case.clock))
        if plain is not None:
            twins.append(_seconds(plain, device, case.clock))
        if case.calls is not None:
            is_done = len(samples) >= case.calls
        else:
            spent = sum(samples) + sum(twins)
            is_enough = len(samples) >= effort.fewest and spent >= effort.seconds
            is_enough |= len(samples) >= 2 and spent >= effort.patience
            is_done = is_enough or len(samples) >= effort.most
        if is_done:
            return samples, twins


def _measure_growth(growth: Growth, device: str) -> dict[str, Any]:
    seconds, peaks = [], []
    for size in growth.sizes:
        work = growth.prepare(size, device)
        _, peak = _with_peak(work, device)
        peaks.append(peak)
        seconds.append(spread_of([_seconds(work, device, "wall") for _ in range(GROWTH_CALLS)]).median)
        del work
    known = [peak for peak in peaks if peak is not None]
    # Below a page or two the kernel's count says nothing.
    measurable = len(known) == len(peaks) and min(known) > 2**16
    return {
        "over": growth.over,
        "sizes": list(growth.sizes),
        "seconds": seconds,
        "peak_bytes": peaks,
        "exponent": asdict(fit_exponent(growth.sizes, seconds)),
        "memory_exponent": asdict(fit_exponent(growth.sizes, known)) if measurable else None,
    }


def _seconds(work: Callable[[], Any], device: str, clock: str) -> float:
    now = time.process_time if clock == "cpu" else time.perf_counter
    synchronise(device)
    start = now()
    work()
    synchronise(device)
    return now() - start


def _with_peak(work: Callable[[], Any], device: str) -> tuple[Any, int | None]:
    """What a call returns, and its peak memory above what was held before; None where the system cannot tell."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = work()
        torch.cuda.synchronize()
        return result, torch.cuda.max_memory_allocated() - before
    if sys.platform != "linux":
        return work(), None
    with contextlib.suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left would hide what this one takes
    restart_peak()
    before = peak_bytes()
    result = work()
    return result, peak_bytes() - before
