"""The machine: its name, its ceilings, and what PyTorch asks of it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.main_paths import FLOPS


@dataclass(frozen=True)
class Ceilings:
    """flops: per second, of a large float32 matrix product. bytes: per second read and written, of a large copy."""

    flops: float
    bytes: float


def device_name(device: str) -> str:
    """What the table of results is headed by."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    if (path := Path("/proc/cpuinfo")).is_file():
        models = [line.split(":")[1].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
        name = models[0] if models else name
    return f"{name}, {torch.get_num_threads()} threads"


def describe(device: str) -> dict[str, Any]:
    """What a reader needs to compare two runs."""
    return {
        "device": device,
        "name": device_name(device),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def measure_ceilings(device: str, full: bool) -> Ceilings:
    """Best of a few, after one to warm up."""
    side = 8192 if device == "cuda" else 3072 if full else 1536
    length = 2**28 if device == "cuda" else 2**26  # float32: 1 GiB or 256 MiB, beyond every cache
    a, b = (torch.rand(side, side, device=device) for _ in range(2))
    product = torch.empty_like(a)
    flops = 2 * side**3 / _best(lambda: torch.mm(a, b, out=product), device)
    source = torch.rand(length, device=device)
    target = torch.empty_like(source)
    return Ceilings(flops, 2 * source.nbytes / _best(lambda: target.copy_(source), device))


def _best(work: Callable[[], object], device: str) -> float:
    seconds = []
    for _ in range(6):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def synchronise(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass
class Demand:
    """What a call asks for. operators: that reach PyTorch's dispatcher. flops: of matrix products, convolutions and
    attention. bytes: read and written by all operators that are not views, as if none of it stayed in a cache."""

    operators: int = 0
    flops: int = 0
    bytes: int = 0


class _Meter(TorchDispatchMode):
    def __init__(self, demand: Demand) -> None:
        super().__init__()
        self._demand = demand

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        known = {one.untyped_storage().data_ptr() for one in given}
        is_view = all(one.untyped_storage().data_ptr() in known for one in made) and not function._schema.is_mutable
        self._demand.operators += 1
        if not is_view:
            self._demand.bytes += sum(_bytes(one) for one in (*given, *made))
        if (formula := FLOPS.get(function.overloadpacket)) is not None:
            self._demand.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _bytes(tensor: torch.Tensor) -> int:
    """Of a tensor's entries; an expanded one has no more than its storage."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


@contextmanager
def metering() -> Iterator[Demand]:
    """What PyTorch is asked for inside."""
    demand = Demand()
    with _Meter(demand):
        yield demand
