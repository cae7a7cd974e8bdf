"""The training state on disk: complete or absent, and enough to go on bit for bit."""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pano3d.model import Pano3D
from pano3d.training.optimizer import Optimizers
from pano3d.training.processes import ALONE, Processes
from pano3d.training.sharding import sharded_moments, whole_state
from pano3d.types import TrainingError

FORMAT_VERSION = 1
_DAMAGED = (RuntimeError, KeyError, ValueError, EOFError, OSError, pickle.UnpicklingError)


@dataclass(frozen=True)
class ResumePoint:
    """Where an interrupted run goes on. Batches and random draws are functions of the step, so no stream is kept.

    window: sums and counts of what was measured since the last log point, over all processes.
    """

    step: int
    seconds: float
    history: list[dict[str, float]]
    window: dict[str, tuple[float, int]] = field(default_factory=dict)


def save_state(
    path: Path, model: Pano3D, optimizer: Optimizers, point: ResumePoint, processes: Processes = ALONE
) -> None:
    """Write model, optimizer and position atomically; the file holds whole tensors and plain containers only.

    Every process must call it; the first one writes, and none returns before the file is there.
    """
    state = {
        "format_version": FORMAT_VERSION,
        "model": whole_state(dict(model.state_dict())),
        "optimizer": whole_state(optimizer.state_dict()),
        **asdict(point),
    }
    if processes.is_first:
        _write(path, state)
    processes.wait()


def _write(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        torch.save(state, partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(f"saving the training state to {path}: {error}; free disk space and start again") from error


def read_state(path: Path) -> dict[str, Any] | None:
    """The contents of a training state, None where there is none.

    Raises:
        TrainingError: the file is not a training state.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["format_version"] != FORMAT_VERSION:
            raise TrainingError(f"resuming from {path}: format {state['format_version']}; delete it to start afresh")
        return state
    except _DAMAGED as error:
        raise _unusable(path, error) from error


def restore_weights(state: dict[str, Any], path: Path, model: Pano3D) -> None:
    """Put the weights into a model that is not sharded yet.

    Raises:
        TrainingError: they are another model's.
    """
    try:
        model.load_state_dict(state["model"])
    except _DAMAGED as error:
        raise _unusable(path, error) from error


def restore_optimizer(state: dict[str, Any], path: Path, optimizer: Optimizers) -> ResumePoint:
    """Put the moments into the optimizer of a model, sharded or not, and say where the run goes on.

    Raises:
        TrainingError: they are another model's.
    """
    try:
        # Before there were several rules, a state held AdamW's alone.
        states = state["optimizer"] if isinstance(state["optimizer"], list) else [state["optimizer"]]
        rules = [[p for group in rule.param_groups for p in group["params"]] for rule in optimizer.rules]
        # Where their numbers differ, load_state_dict says so.
        optimizer.load_state_dict([sharded_moments(*each) for each in zip(states, rules)] + states[len(rules) :])
        # A state of before had no window: its next log point tells of the steps since.
        return ResumePoint(int(state["step"]), float(state["seconds"]), state["history"], state.get("window", {}))
    except _DAMAGED as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> TrainingError:
    return TrainingError(f"resuming from {path}: {error}; delete the file to start this stage afresh")
