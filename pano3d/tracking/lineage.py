"""Where a registered version comes from, read back from the store alone."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pano3d import config
from pano3d.tracking import promotion, store
from pano3d.tracking.provenance import LOCK, PATCH
from pano3d.types import ConfigError, WeightsError

PARAMS = "params.yaml"


@dataclass(frozen=True)
class Lineage:
    """A version and what made it. tags: of the version. params: the composed parameters, whole. scores: what the
    evaluation gave. files: of `LOCK` and `PATCH`, those that were recorded. address: of the store."""

    name: str
    number: str
    run_id: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    scores: Mapping[str, float]
    files: tuple[str, ...]
    address: str


def trace(uri: str) -> Lineage:
    """Look a version up.

    Args:
        uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        ConfigError: the address has another form.
        WeightsError: there is no such version, or it was not made by `pano3d register`.
        TrackingError: the store cannot be reached.
    """
    name, number = _parse(uri)
    opened = store.open_store()
    if not number.isdecimal():
        known = promotion.aliases(opened, name)
        if number not in known:
            raise WeightsError(f"tracing {uri}: {name} has no alias {number!r}, only {sorted(known) or 'none'}")
        number = known[number]
    version = promotion.find(opened, name, number)
    run = opened.client.get_run(version.run_id)
    present = {one.path for one in opened.client.list_artifacts(version.run_id)}
    if PARAMS not in present:
        raise WeightsError(f"tracing {uri}: its run has no {PARAMS}; was it registered by `pano3d register`?")
    with tempfile.TemporaryDirectory() as folder:
        params = config.read(opened.client.download_artifacts(version.run_id, PARAMS, folder))
    scores = {k.removeprefix("evaluate."): v for k, v in run.data.metrics.items() if k.startswith("evaluate.")}
    files = tuple(name for name in (LOCK, PATCH) if name in present)
    return Lineage(name, number, version.run_id, version.tags, params, scores, files, opened.uri)


def fetch(found: Lineage, folder: Path) -> list[Path]:
    """Write the recorded files of a version into a folder; their paths.

    Raises:
        WeightsError: the folder has none to put them into.
    """
    if not folder.is_dir():
        raise WeightsError(f"fetching into {folder}: not a folder; make the clone or worktree first")
    opened = store.open_store()
    written = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in found.files:
            source = opened.client.download_artifacts(found.run_id, name, temporary)
            written.append(Path(shutil.copy(source, folder / name)))
    return written


def _parse(uri: str) -> tuple[str, str]:
    match = re.fullmatch(r"models:/([^/@]+)[/@]([^/@]+)", uri)
    if match is None:
        raise ConfigError(f"tracing {uri!r}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    return match[1], match[2]
