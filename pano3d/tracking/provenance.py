"""Whether files on disk are those that dvc.lock describes: DVC's digests, recomputed here without DVC.

A clean git tree is not enough. Train with changed code, take the change back, and git is clean while the model is not
that of the commit; dvc.lock still names the digests of the code it was trained with.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pano3d import config
from pano3d.tracking.identity import PRODUCED

LOCK = "dvc.lock"
PATCH = "source.patch"
# What .dvcignore leaves out.
_IGNORED = ("__pycache__", ".mypy_cache", ".ruff_cache")


def problems(workspace: Path, stages: Sequence[str], outputs: Sequence[Path]) -> list[str]:
    """Where the files differ from dvc.lock; nothing when these outputs are what this code makes with these parameters.

    Compared are the source files and parameters each stage depends on, and the `outputs` themselves. Prepared data are
    not read again: their manifest's digests are recorded apart.

    Args:
        stages: names as in dvc.lock, such as "evaluate@must3r".
        outputs: folders or files that these stages made.
    """
    path = workspace / LOCK
    if not path.is_file():
        return [f"there is no {LOCK}"]
    locked = config.read(path).get("stages", {})
    found = [f"{LOCK} has no stage {stage}" for stage in stages if stage not in locked]
    known = [locked[stage] for stage in stages if stage in locked]
    sources = {entry["path"]: entry["md5"] for stage in known for entry in stage.get("deps", []) if _is_source(entry)}
    made = {entry["path"]: entry["md5"] for stage in known for entry in stage.get("outs", [])}
    found += [f"{name} is not what dvc.lock says" for name in sorted(sources) if _md5(workspace, name) != sources[name]]
    for output in outputs:
        name = output.resolve().relative_to(workspace.resolve()).as_posix()
        if name not in made:
            found.append(f"{LOCK} does not know {name}")
        elif _md5(workspace, name) != made[name]:
            found.append(f"{name} is not what dvc.lock says")
    for stage in known:
        found += _changed_parameters(workspace, stage.get("params", {}))
    return list(dict.fromkeys(found))


def md5(path: Path) -> str:
    """DVC's digest: MD5 of a file's bytes; for a folder that of the JSON list of its files, with the ending ".dir"."""
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = [one for one in path.rglob("*") if one.is_file() and not _is_ignored(one.relative_to(path))]
    listed = [{"md5": md5(one), "relpath": one.relative_to(path).as_posix()} for one in files]
    listed.sort(key=lambda entry: entry["relpath"].split("/"))
    return f"{hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()}.dir"


def source_patch(workspace: Path) -> bytes:
    """What makes the tracked files of the working tree out of its commit, for `git apply`; empty when nothing does."""
    words = ["git", "-C", str(workspace), "diff", "HEAD", "--binary", "--", ".", *PRODUCED]
    try:
        done = subprocess.run(words, capture_output=True, check=False)
    except FileNotFoundError:
        return b""
    return done.stdout if done.returncode == 0 else b""


def _is_source(entry: Mapping[str, Any]) -> bool:
    return str(entry["path"]).startswith("pano3d/")


def _is_ignored(path: Path) -> bool:
    return path.suffix == ".pyc" or any(part in _IGNORED for part in path.parts)


def _md5(workspace: Path, name: str) -> str | None:
    path = workspace / name
    return md5(path) if path.exists() else None


def _changed_parameters(workspace: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for name, sections in files.items():
        path = workspace / name
        present = config.read(path) if path.is_file() else {}
        changed = [section for section, value in sections.items() if present.get(section) != value]
        found += [f"{section} of {name} is not what dvc.lock says" for section in changed]
    return found
