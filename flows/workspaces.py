"""A place of its own for every variant: a clone of the commit that shares the project's DVC cache.

What a variant has in common with others (data, geometry) comes from the cache, so it is computed once; what is its own
can be computed beside others, since each clone has its own DVC lock. The same variant at the same commit is the same
folder: a second attempt goes on where the first one stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from flows.children import read_child, run_child
from pano3d import config
from pano3d.files import locked

PYTHON = "python"


@dataclass(frozen=True)
class Selection:
    """What a workspace runs.

    ablation: an option of params/ablation, None for the run all variants share.
    seed: of joint_finetune, None for the run's own.
    profile, overrides: as in params/run.yaml, for all variants alike.
    """

    backbone: str
    ablation: str | None = None
    seed: int | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return " ".join(
            [self.ablation or "shared", self.backbone, *([] if self.seed is None else [f"seed {self.seed}"])]
        )


@dataclass(frozen=True)
class Workspace:
    """A clone and the stages that run in it. `log` takes what they print."""

    project: Path
    folder: Path
    commit: str
    selection: Selection

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def held(self) -> AbstractContextManager[None]:
        """Used by one run at a time: the next one waits, also one of another ablation or another process."""
        return locked(self.folder.with_suffix(".lock"))

    def prepare(self) -> None:
        """Clone, share the cache, select, and compose: a wrong name or value fails here, before a device is taken."""
        ready = self.folder / ".dvc" / "config.local"
        if not ready.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            read_child(["git", "clone", "--quiet", "--no-checkout", str(self.project), str(self.folder)], self.project)
            read_child(["git", "checkout", "--quiet", "--detach", self.commit], self.folder)
            cache = read_child([PYTHON, "-m", "dvc", "cache", "dir"], self.project).strip()
            _write(
                ready, f'[cache]\n    dir = {(self.project / cache).resolve()}\n    type = "reflink,hardlink,copy"\n'
            )
        committed = read_child(["git", "show", "HEAD:params/run.yaml"], self.folder)
        _select(committed, self.folder / "params/run.yaml", self.selection)
        self.repro(["compose"], {})

    def repro(self, targets: Sequence[str], variables: dict[str, str]) -> None:
        """`dvc repro` of stages and all they need.

        Raises:
            ChildFailedError: with the reason the stage gave.
        """
        shared = {"MLFLOW_TRACKING_URI": _tracking_address(self.project)}
        run_child([PYTHON, "-m", "dvc", "repro", *targets], self.folder, variables=shared | variables, log=self.log)

    def metrics(self, stage: str) -> Path:
        """Where a stage leaves its metrics."""
        dataset = config.read(self.folder / "params/run.yaml")["dataset"]
        return self.folder / "results" / str(dataset) / self.selection.backbone / stage / "metrics.json"


def workspace(project: Path, commit: str, selection: Selection) -> Workspace:
    """The place of a selection at a commit; nothing is made yet."""
    key = config.digest({"commit": commit, **asdict(selection)})[:12]
    name = "-".join([selection.ablation or "shared", selection.backbone, *_words(selection.seed), key])
    return Workspace(project, project / "work" / "ablations" / name, commit, selection)


def project_held(project: Path) -> AbstractContextManager[None]:
    """One `dvc repro` of ours in the project itself at a time; others wait, where DVC alone would refuse."""
    return locked(project / "work" / "flows" / "project.lock")


def clean_commit(project: Path, allow_dirty: bool) -> str:
    """The commit of a project whose working tree agrees with it.

    Raises:
        ValueError: it does not, and `allow_dirty` is not set: the changes would have no part in the runs.
    """
    # What runs write themselves says nothing about the code.
    produced = [":(exclude)results", ":(exclude)dvc.lock"]
    changed = read_child(["git", "status", "--porcelain", "--untracked-files=no", "--", ".", *produced], project)
    if changed.strip() and not allow_dirty:
        raise ValueError(
            f"{project} has uncommitted changes, which variants would not see:\n{changed}commit them, or give "
            "allow_dirty=true to run the last commit all the same"
        )
    return read_child(["git", "rev-parse", "HEAD"], project).strip()


def _select(committed: str, path: Path, selection: Selection) -> None:
    run = yaml.safe_load(committed)
    run["ablation"] = selection.ablation
    run["profile"] = selection.profile or run["profile"]
    seed = [] if selection.seed is None else [f"+joint_finetune.seed={selection.seed}"]
    # geometry_only is a variant like the others: it is trained once, not once beside each of them.
    control = [] if selection.ablation is None else ["geometry_control.train=false"]
    run["overrides"] = [*run["overrides"], *selection.overrides, *seed, *control]
    text = yaml.safe_dump(run, sort_keys=False)
    if path.read_text(encoding="utf-8") != text:
        _write(path, text)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _tracking_address(project: Path) -> str:
    """All workspaces write to the project's own store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project / 'mlflow.db'}"


def _words(seed: int | None) -> Sequence[str]:
    return [] if seed is None else [f"s{seed}"]
