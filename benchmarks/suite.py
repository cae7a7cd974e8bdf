"""All benchmarks in one run: chosen, measured one after the other, kept one by one, put together.

Called by `pano3d bench`. A module takes part by its line in MODULES and its `cases(full) -> list[Case | Growth]`.
"""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.cases import Case, CheckError, Device, Growth
from benchmarks.tables import markdown, plots
from benchmarks.timing import FULL, QUICK, MeasuredProcessError, measure
from pano3d.files import write_whole
from pano3d.types import ConfigError, Pano3DError

MODULES = (
    "startup",
    "backbones",
    "streaming",
    "mask_decoder",
    "merging",
    "panoptic_loss",
    "training_step",
    "data_loading",
    "sens_decoding",
    "label_rendering",
    "rooms",
    "metrics",
    "reconstruct",
)

RESULTS = "results.json"
_PARTS = "parts"


class WrongResultError(Pano3DError):
    """What was to be timed gives a wrong answer."""


@dataclass(frozen=True)
class Choice:
    """What a run measures. only: modules or titles of cases; empty = all. code: names the code that is measured."""

    full: bool
    device: Device
    only: tuple[str, ...]
    code: str


def run(
    choice: Choice,
    output: Path,
    stages: Callable[[], Sequence[Mapping[str, Any]]],
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure what was chosen, and write results.json, table.md and the plots into `output`.

    Every finished part is kept: the same run after an interruption goes on where it stopped, if code and machine are
    the same. A wrong result ends the run; a process that fails, of lack of memory for instance, is noted in the table.

    Args:
        stages: wall time and peak memory of the last reproduction's stages, as `table.md` shows them.

    Raises:
        ConfigError: an unknown name, a device that is not there, or nothing to measure.
        WrongResultError: a result is wrong.
    """
    if choice.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("benchmarks on cuda: PyTorch sees no such device here; use --device cpu")
    chosen = choose(choice)
    about = {"full": choice.full, "code": choice.code, **machine.describe(choice.device)}
    costs = list(stages())  # what cannot be read is told now, not after half an hour
    parts = output / _PARTS
    _keep_only_parts_of(parts, {name: value for name, value in about.items() if name != "load"})
    ceilings = machine.measure_ceilings(choice.device, choice.full)
    is_finished = False
    try:
        for number, target in enumerate(chosen, 1):
            part = parts / f"{_file_name(target.title)}.json"
            if part.is_file():
                say(f"[{number}/{len(chosen)}] {target.title}: measured before")
                continue
            started = time.perf_counter()
            found = _measure(target, choice)
            write_whole(part, json.dumps({"name": target.title, **found}, indent=1).encode())
            say(f"[{number}/{len(chosen)}] {target.title}: {_headline(found)} ({time.perf_counter() - started:.0f} s)")
        is_finished = True
    finally:
        results = _collect(parts, chosen, {**about, "ceilings": asdict(ceilings)}, is_finished)
        results["stages"] = costs
        write_whole(output / RESULTS, (json.dumps(results, indent=1) + "\n").encode())
        write_whole(output / "table.md", markdown(results).encode())
        plots(results, output)
    shutil.rmtree(parts)
    return results


def choose(choice: Choice) -> list[Case | Growth]:
    """The cases that are meant by name, on the device, in the order of the modules.

    Raises:
        ConfigError: a name that is neither a module nor a case, or a device on which none of them runs.
    """
    found: dict[str, list[Case | Growth]] = {
        module: importlib.import_module(f"benchmarks.{module}").cases(choice.full) for module in MODULES
    }
    every = [case for cases in found.values() for case in cases]
    known = {*found, *(case.title for case in every)}
    if unknown := [name for name in choice.only if name not in known]:
        raise ConfigError(
            f"benchmarks: no {', '.join(unknown)}; choose modules ({', '.join(found)}) or cases "
            f"({'; '.join(case.title for case in every)})"
        )
    wanted = [
        case
        for module, cases in found.items()
        for case in cases
        if not choice.only or module in choice.only or case.title in choice.only
    ]
    runnable = [case for case in wanted if choice.device in case.devices]
    if not runnable:
        raise ConfigError(f"benchmarks: none of {', '.join(choice.only)} runs on {choice.device}; use --device cpu")
    return runnable


def _measure(target: Case | Growth, choice: Choice) -> dict[str, Any]:
    try:
        return measure(target, choice.device, FULL if choice.full else QUICK)
    except CheckError as error:
        raise WrongResultError(
            f"checking before timing: {error}; nothing was timed, run the tests of that part, then start again"
        ) from error
    except MeasuredProcessError as error:
        return {"failure": str(error)}


def _headline(found: Mapping[str, Any]) -> str:
    if "failure" in found:
        return f"FAILED, {found['failure']}"
    if "sizes" in found:
        return f"exponent {found['exponent']['value']:.2f}"
    speedup = found["speedup"]
    beside = "" if speedup is None else f", {speedup['median']:.1f}x the plain twin's speed"
    return f"{1000 * found['seconds']['median']:.4g} ms per {found['unit']}{beside}"


def _keep_only_parts_of(parts: Path, about: Mapping[str, Any]) -> None:
    """Parts measured by other code, on another machine or with other sizes do not belong to this run."""
    identity, text = parts / "identity.txt", json.dumps(about, sort_keys=True)
    if not identity.is_file() or identity.read_text() != text:
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        identity.write_text(text)


def _file_name(name: str) -> str:
    return name.replace(" ", "_").replace("/", "-").replace(":", "-")


def _collect(
    parts: Path, chosen: Sequence[Case | Growth], about: Mapping[str, Any], is_finished: bool
) -> dict[str, Any]:
    """The parts as one document; shares of the ceilings come in here."""
    found = []
    for target in chosen:
        part = parts / f"{_file_name(target.title)}.json"
        if part.is_file():
            found.append(json.loads(part.read_text()))
    ceilings = about["ceilings"]
    for one in found:
        if demand := one.get("demand"):
            for name in ("flops", "bytes"):
                one[f"{name}_per_second"] = demand[name] / one["seconds"]["median"]
                one[f"{name}_share"] = one[f"{name}_per_second"] / ceilings[name]
            one["floor_seconds"] = max(demand[name] / ceilings[name] for name in ("flops", "bytes"))
    return {
        "format": "pano3d bench 1",
        "is_finished": is_finished,
        "machine": dict(about),
        "cases": [one for one in found if "sizes" not in one and "failure" not in one],
        "growth": [one for one in found if "sizes" in one],
        "failures": [one for one in found if "failure" in one],
    }


def metrics_of(results: Mapping[str, Any]) -> dict[str, float]:
    """The numbers by name, as a tracking store takes them."""
    found: dict[str, float] = {f"ceiling/{name}": value for name, value in results["machine"]["ceilings"].items()}
    for one in results["cases"]:
        name = one["name"]
        found[f"seconds/{name}"] = one["seconds"]["median"]
        if one["speedup"] is not None:
            found[f"speedup/{name}"] = one["speedup"]["median"]
        if one["peak_bytes"] is not None:
            found[f"peak_mib/{name}"] = one["peak_bytes"] / 2**20
        found |= {f"{figure}/{name}": value for figure, value in one["figures"].items()}
        if one["over_calls"] is not None:
            found[f"exponent/{name} over calls"] = one["over_calls"]["exponent"]["value"]
    for one in results["growth"]:
        found[f"exponent/{one['name']}"] = one["exponent"]["value"]
    return found
