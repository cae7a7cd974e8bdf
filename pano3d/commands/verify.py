"""verify: compare a reproduction's metrics with the committed ones, within the tolerances of params/verify.yaml."""

from __future__ import annotations

import argparse
import fnmatch
import math
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pano3d import config
from pano3d.commands.results import Layout, flat, layout, parse_metrics, read_metrics
from pano3d.types import ConfigError, DataError


@dataclass(frozen=True)
class Tolerance:
    """metrics: a shell pattern of names, nested ones joined by dots. absolute: how far apart; None = not compared."""

    metrics: str
    absolute: float | None

    def __post_init__(self) -> None:
        if self.absolute is not None and not self.absolute >= 0:
            raise ConfigError(f"the tolerance of {self.metrics} is {self.absolute}; expected 0 or more, or null")


@dataclass(frozen=True)
class VerifyConfig:
    """stages: whose metrics are compared. tolerances: the first whose pattern fits a metric holds for it."""

    stages: tuple[str, ...]
    tolerances: tuple[Tolerance, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", help="default: the one params/run.yaml chooses")
    parser.add_argument("--against", default="HEAD", help="the commit with the metrics to compare with")


def main(args: argparse.Namespace) -> int:
    """Print every comparison; 1 when one is out of tolerance.

    Raises:
        DataError: nothing was reproduced here, so that the committed metrics would be compared with themselves.
    """
    place = layout(args.dataset)
    settings = config.load(place.root / "params/verify.yaml", VerifyConfig)
    pairs = {}
    for backbone in place.backbones():
        for stage in settings.stages:
            path = place.metrics(backbone, stage)
            pairs[f"{backbone} {stage}"] = committed(place, path, args.against), read_metrics(path)
    if not place.models().is_dir() and all(expected == found for expected, found in pairs.values()):
        raise DataError(
            f"verifying {place.root}: nothing was reproduced here: there is no {place.models()}, and the metrics are "
            f"those of {args.against}; run `make repro` first"
        )
    compared, wrong = 0, 0
    for name, (expected, found) in pairs.items():
        lines, differing = compare(expected, found, settings.tolerances)
        compared, wrong = compared + len(lines), wrong + differing
        print("\n".join([name, *lines]))
    print(f"{compared} metrics compared with {args.against}, {wrong} out of tolerance")
    return 1 if wrong else 0


def committed(place: Layout, path: Path, revision: str) -> dict[str, Any]:
    """The metrics file as it was committed.

    Raises:
        DataError: it is not in that commit.
    """
    name = f"{revision}:./{path.relative_to(place.root).as_posix()}"
    done = subprocess.run(["git", "-C", str(place.root), "show", name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DataError(f"reading {name}: {done.stderr.strip()}; commit the metrics of a run first")
    return parse_metrics(done.stdout, name)


def compare(
    expected: Mapping[str, Any], found: Mapping[str, Any], tolerances: tuple[Tolerance, ...]
) -> tuple[list[str], int]:
    """A line for every metric that has a tolerance, and how many are out of it; a missing metric is."""
    before, now = dict(flat(expected)), dict(flat(found))
    lines, wrong = [], 0
    for name in sorted(before.keys() | now.keys()):
        rule = next((one for one in tolerances if fnmatch.fnmatchcase(name, one.metrics)), None)
        if rule is None:
            raise ConfigError(f"params/verify.yaml: no tolerance fits {name!r}; end the list with a pattern `*`")
        if rule.absolute is None:
            continue
        fits = _agree(before.get(name, math.nan), now.get(name, math.nan), rule.absolute)
        wrong += not fits
        values = f"{_text(before, name)} -> {_text(now, name)}"
        lines.append(f"  {'ok   ' if fits else 'WRONG'} {name:40} {values:24} (tolerance {rule.absolute:g})")
    return lines, wrong


def _agree(before: float | None, now: float | None, tolerance: float) -> bool:
    if before is None or now is None:
        return before is None and now is None
    return abs(before - now) <= tolerance


def _text(values: Mapping[str, float | None], name: str) -> str:
    if name not in values:
        return "absent"
    value = values[name]
    return "null" if value is None else f"{value:g}"
