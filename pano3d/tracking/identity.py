"""Who a run is: the commit, the parameters, the data and the machine behind its numbers, as tags."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pano3d import config

# Produced by the runs themselves: they say nothing about the code.
PRODUCED = (":(exclude)results", ":(exclude)dvc.lock")


def identity(params: Mapping[str, Any], workspace: Path, device: str) -> dict[str, str]:
    """Tags that tell two runs apart, or prove them the same.

    Args:
        params: a composed file of params/, whole.
        workspace: the folder with dvc.lock; its git commit counts.
        device: what the stage computes on, such as "cpu" or "cuda:0".
    """
    own = {key: value for key, value in params.items() if key != "reproduction"}
    tags = {
        "params.sha256": config.digest(own),
        "reproduction": str(params.get("reproduction") or config.digest(own)),
        "backbone": str(_get(params, "backbone", "name")),
        "dataset": str(_get(params, "dataset", "name")),
        "seed": str(params.get("seed", "")),
        "torch.version": metadata.version("torch"),
        "device": device,
        "host": platform.node(),
        "dvc.exp.name": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.exp.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        "prefect.flow_run_id": os.environ.get("PREFECT__FLOW_RUN_ID", ""),
        **git_tags(workspace),
        **lock_tags(workspace, str(_get(params, "dataset", "name"))),
    }
    return {name: value for name, value in tags.items() if value}


def git_tags(workspace: Path) -> dict[str, str]:
    """Commit and, when the code differs from it, the digest of the difference. Nothing outside a repository."""
    commit = _git(workspace, "rev-parse", "HEAD")
    if commit is None:
        return {}
    tags = {"git.sha": commit.decode().strip()}
    status = _git(workspace, "status", "--porcelain", "--", ".", *PRODUCED) or b""
    tags["git.dirty"] = "true" if status.strip() else "false"
    if status.strip():
        difference = _git(workspace, "diff", "HEAD", "--", ".", *PRODUCED) or b""
        tags["git.diff.sha256"] = hashlib.sha256(status + difference).hexdigest()
    return tags


def lock_tags(workspace: Path, dataset: str) -> dict[str, str]:
    """Digest of dvc.lock, and the version of the prepared dataset recorded in it."""
    lock = workspace / "dvc.lock"
    if not lock.is_file():
        return {}
    tags = {"dvc.lock.sha256": hashlib.sha256(lock.read_bytes()).hexdigest()}
    outputs = config.read(lock).get("stages", {}).get("prepare", {}).get("outs", [])
    for output in outputs:
        if Path(output["path"]).name == dataset:
            tags["data.md5"] = str(output.get("md5", ""))
    return tags


def locked_digest(workspace: Path, output: Path) -> str:
    """The digest dvc.lock has for an output, such as a prepared dataset; nothing where it has none."""
    lock = workspace / "dvc.lock"
    if not lock.is_file():
        return ""
    wanted = Path(output if output.is_absolute() else Path.cwd() / output)
    for stage in config.read(lock).get("stages", {}).values():
        for entry in stage.get("outs", []):
            if workspace / entry["path"] == wanted:
                return str(entry.get("md5", ""))
    return ""


def _get(params: Mapping[str, Any], section: str, key: str) -> Any:
    value = params.get(section)
    return value.get(key, "") if isinstance(value, Mapping) else ""


def _git(workspace: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(workspace), *words], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
