"""The training state on disk: complete or absent, and enough to go on bit for bit."""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pano3d.model import Pano3D
from pano3d.training.optimizer import Optimizers
from pano3d.types import TrainingError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ResumePoint:
    """Where an interrupted run goes on. Batches and random draws are functions of the step, so no stream is kept."""

    step: int
    seconds: float
    history: list[dict[str, float]]


def save_state(path: Path, model: Pano3D, optimizer: Optimizers, point: ResumePoint) -> None:
    """Write model, optimizer and position atomically; the file holds tensors and plain containers only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    state = {
        "format_version": FORMAT_VERSION,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        **asdict(point),
    }
    try:
        torch.save(state, partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(f"saving the training state to {path}: {error}; free disk space and start again") from error


def load_state(path: Path, model: Pano3D, optimizer: Optimizers) -> ResumePoint | None:
    """Restore a run in place; None where there is nothing to restore.

    Raises:
        TrainingError: the file is not a training state of this model.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["format_version"] != FORMAT_VERSION:
            raise TrainingError(f"resuming from {path}: format {state['format_version']}; delete it to start afresh")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return ResumePoint(int(state["step"]), float(state["seconds"]), state["history"])
    except (RuntimeError, KeyError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise TrainingError(f"resuming from {path}: {error}; delete the file to start this stage afresh") from error
