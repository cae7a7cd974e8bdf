"""What a benchmark module declares: `cases(full) -> list[Case | Growth]`, found by `benchmarks.suite.MODULES`.

A `prepare` is a function of a module or a `functools.partial` of one: each is called in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

Device = Literal["cpu", "cuda"]
EVERYWHERE: tuple[Device, ...] = ("cpu", "cuda")
ON_CPU: tuple[Device, ...] = ("cpu",)


class CheckError(Exception):
    """What is to be timed is wrong, so its time means nothing."""


@dataclass(frozen=True)
class Work:
    """A call ready to be measured: weights and inputs exist, nothing has run.

    ours: the measured call. plain: the same work in the obvious way, where there is such a twin.
    check: given what `ours` and `plain` returned (None without a twin); raises `CheckError`.
    units: how many of the case's unit one call does.
    figures: further numbers of the work, by name; asked for after timing.
    """

    ours: Callable[[], Any]
    check: Callable[[Any, Any], None]
    plain: Callable[[], Any] | None = None
    units: float = 1.0
    figures: Callable[[], dict[str, float]] = dict


@dataclass(frozen=True)
class Case:
    """One thing that is timed.

    name: letters, digits, spaces and `_-./:`, as MLflow allows in metrics. prepare: device -> work.
    unit: what the seconds are per. devices: where it runs.
    clock: "cpu" counts the processor time of the process, for work on one thread.
    limit: seconds per unit that the project has promised on a CPU.
    calls: exactly so many timed calls, whose seconds are also fitted over their number: for a state that grows.
    counts: whether PyTorch does the work, so that its arithmetic and traffic can be counted.
    has_memory: whether the measured process does the work itself, so that its memory says something.
    """

    name: str
    prepare: Callable[[str], Work]
    unit: str = "call"
    devices: tuple[Device, ...] = EVERYWHERE
    clock: Literal["wall", "cpu"] = "wall"
    limit: float | None = None
    calls: int | None = None
    counts: bool = True
    has_memory: bool = True

    @property
    def title(self) -> str:
        return self.name


@dataclass(frozen=True)
class Growth:
    """Time and memory of one thing over a size.

    prepare: (size, device) -> the measured call. over: the name of the size. sizes: ascending, at least three.
    """

    name: str
    over: str
    sizes: tuple[int, ...]
    prepare: Callable[[int, str], Callable[[], Any]]
    devices: tuple[Device, ...] = EVERYWHERE

    @property
    def title(self) -> str:
        return f"{self.name} over {self.over}"


def require(is_right: bool, complaint: str) -> None:
    """Raise `CheckError` with the complaint unless all is right."""
    if not is_right:
        raise CheckError(complaint)


def require_close(what: str, ours: Any, plain: Any, tolerance: float) -> None:
    """Raise `CheckError` where two arrays differ by more than `tolerance` of the largest entry of `plain`."""
    a, b = (np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, np.float64) for x in (ours, plain))
    require(a.shape == b.shape, f"{what}: ours has shape {a.shape}, the plain twin {b.shape}")
    require(bool(np.isfinite(a).all()), f"{what}: ours holds values that are not finite")
    apart = float(np.abs(a - b).max(initial=0)) / max(float(np.abs(b).max(initial=0)), 1e-12)
    require(apart <= tolerance, f"{what}: ours is {apart:.2g} off the plain twin; expected at most {tolerance:g}")


def require_same(what: str, ours: Any, plain: Any) -> None:
    """Raise `CheckError` where two arrays differ at all."""
    a, b = np.asarray(ours), np.asarray(plain)
    same = a.shape == b.shape and bool((a == b).all())
    require(same, f"{what}: ours and the plain twin differ; expected the same")
