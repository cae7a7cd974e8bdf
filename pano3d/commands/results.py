"""Where a reproduction leaves what the commands read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pano3d import config
from pano3d.types import DataError


@dataclass(frozen=True)
class Layout:
    """The folders of one dataset, as dvc.yaml writes them."""

    root: Path
    dataset: str

    def backbones(self) -> list[str]:
        """Backbones that were composed for this dataset.

        Raises:
            DataError: none was.
        """
        names = sorted(path.parent.name for path in (self.root / "results" / self.dataset).glob("*/params.yaml"))
        if not names:
            raise DataError(f"no results for dataset {self.dataset!r} in {self.root}; run `dvc repro` first")
        return names

    def params(self, backbone: str) -> Path:
        return self.root / "results" / self.dataset / backbone / "params.yaml"

    def model(self, backbone: str, stage: str) -> Path:
        return self.models() / backbone / stage

    def models(self) -> Path:
        return self.root / "models" / self.dataset

    def metrics(self, backbone: str, stage: str) -> Path:
        return self.root / "results" / self.dataset / backbone / stage / "metrics.json"

    def reports(self, backbone: str, stage: str) -> Path:
        return self.root / "reports" / self.dataset / backbone / stage

    def data(self) -> Path:
        return self.root / "data" / "prepared" / self.dataset

    def report(self) -> Path:
        return self.root / "reports" / self.dataset / "report" / "index.html"


def layout(dataset: str | None, root: Path | None = None) -> Layout:
    """The layout of a dataset, by default the one params/run.yaml chooses."""
    root = root or Path.cwd()
    return Layout(root, dataset or str(config.read(root / "params/run.yaml")["dataset"]))


def read_metrics(path: Path) -> dict[str, Any]:
    """A stage's metrics.json.

    Raises:
        DataError: it is missing or not a JSON mapping.
    """
    try:
        return parse_metrics(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise DataError(f"reading {path}: no such file; run `dvc repro` first") from None


def parse_metrics(text: str, where: str) -> dict[str, Any]:
    """The mapping in the text of a metrics.json.

    Raises:
        DataError: it is not a JSON mapping.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"reading {where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"reading {where}: expected a mapping of metric names, found {type(value).__name__}")
    return value


def flat(metrics: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float | None]]:
    """Name and number of every metric, nested names joined by dots; null is a metric that does not apply."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        elif value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            yield f"{above}{name}", value
