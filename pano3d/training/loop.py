"""The training loop: one, for both stages, written out."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from pano3d.data.batches import LoaderConfig, TrainingSteps, training_batches
from pano3d.model import Pano3D
from pano3d.training.objective import Objective
from pano3d.training.optimizer import OptimizerConfig, Optimizers, clip_gradients, make_optimizer, set_learning_rates
from pano3d.training.state import ResumePoint, load_state, save_state
from pano3d.types import Batch, ConfigError, Interrupted, TrainingError

Log = Callable[[dict[str, float], int], None]


@dataclass(frozen=True)
class TrainingConfig:
    """steps: optimiser steps. precision: autocast dtype of the forward pass. log_every, checkpoint_every: in steps.
    probe_every: steps between measurements of both losses' gradients at the decoder (0 = never)."""

    steps: int
    loader: LoaderConfig
    optimizer: OptimizerConfig
    precision: Literal["fp32", "bf16"] = "fp32"
    log_every: int = 20
    checkpoint_every: int = 200
    probe_every: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.log_every, self.checkpoint_every) < 1 or self.probe_every < 0:
            raise ConfigError("training: steps, log_every and checkpoint_every must be positive, probe_every >= 0")


History = list[dict[str, float]]
"""Means of each logged quantity between log points, with "step": what training curves are drawn from."""


def train(
    model: Pano3D,
    objective: Objective,
    paths: list[Path],
    config: TrainingConfig,
    seed: int,
    state_path: Path,
    device: torch.device,
    log: Log,
    label: str = "training",
) -> History:
    """Train in place; on return the model holds the weights of the last step.

    The same call after an interruption at any moment resumes from `state_path` and ends, on CPU, with the weights
    an uninterrupted run would have had. The file is left for the caller to delete once its outputs are written.

    Raises:
        TrainingError: a loss is not finite (the batch is saved beside `state_path`), or memory ran out.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    model.to(device).train()
    optimizer = make_optimizer(model, config.optimizer)
    resume = load_state(state_path, model, optimizer)
    first, seconds_before = (resume.step, resume.seconds) if resume else (0, 0.0)
    steps = TrainingSteps(paths, config.loader, seed)
    batches = training_batches(steps, first, config.steps, config.loader.workers)
    window = _Window()
    history: History = list(resume.history) if resume else []
    started = time.monotonic()
    progress = tqdm(total=config.steps, initial=first, desc=label, unit="step", mininterval=2.0, file=sys.stderr)
    with progress, _stop_requests() as stop_requested:
        for step in range(first, config.steps):
            batch = window.timed_wait(batches).to(device)
            values = _step(model, objective, optimizer, batch, config, seed, step, state_path)
            window.add(values, batch.views.images.shape[0] * batch.views.images.shape[1])
            progress.update()
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                row = window.close(optimizer)
                progress.set_postfix(loss=f"{row['loss/total']:.3f}", refresh=False)
                history.append({"step": float(done), **row})
                log(row, done)
            if stop_requested() or (done % config.checkpoint_every == 0 and done < config.steps):
                elapsed = seconds_before + time.monotonic() - started
                save_state(state_path, model, optimizer, ResumePoint(done, elapsed, history))
                if stop_requested():
                    raise Interrupted(f"{label} stopped at step {done} of {config.steps}; run it again to go on")
    return history


def _step(
    model: Pano3D,
    objective: Objective,
    optimizer: Optimizers,
    batch: Batch,
    config: TrainingConfig,
    seed: int,
    step: int,
    state_path: Path,
) -> dict[str, float]:
    # Every draw of a step comes from its number, so an interrupted run repeats the draws of an uninterrupted one.
    step_seed = (seed * 1_000_003 + step) & 0x7FFFFFFF
    torch.manual_seed(step_seed)
    generator = torch.Generator().manual_seed(step_seed)
    set_learning_rates(optimizer, step, config.steps, config.optimizer)
    device_type = batch.views.images.device.type
    try:
        with torch.autocast(device_type, torch.bfloat16, enabled=config.precision == "bf16"):
            losses = objective(model, batch, generator)
        _require_finite(losses, batch, step, state_path)
        values = {f"loss/{name}": float(value.detach()) for name, value in losses.items()}
        if config.probe_every and step % config.probe_every == 0:
            values |= _gradient_norms(model, losses)
        optimizer.zero_grad()
        losses["total"].backward()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"step {step} ran out of memory on {device_type}: lower loader.images_per_batch or the views per sample, "
            "choose precision bf16, or a smaller image size"
        ) from error
    norm = clip_gradients(model, config.optimizer.clip_norm)
    if not norm < float("inf"):
        _save_batch(batch, state_path)
        raise TrainingError(f"step {step}: the gradient is not finite; the batch is saved beside {state_path.name}")
    optimizer.step()
    return {**values, "grad_norm/all": norm}


def _require_finite(losses: dict[str, Tensor], batch: Batch, step: int, state_path: Path) -> None:
    wrong = [name for name, value in losses.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        saved = _save_batch(batch, state_path)
        raise TrainingError(
            f"step {step}: loss {wrong} is not finite (scenes {batch.scenes}); the batch is saved in {saved}. "
            "Lower the learning rate, choose fp32, or inspect the batch"
        )


def _save_batch(batch: Batch, state_path: Path) -> Path:
    path = state_path.with_suffix(".bad-batch.pt")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "scenes": batch.scenes,
            "images": batch.views.images,
            "depth": batch.geometry.depth,
            "intrinsics": batch.geometry.intrinsics,
            "scan_from_camera": batch.geometry.scan_from_camera,
            "segment_index": batch.panoptic.segment_index,
        },
        path,
    )
    return path


def _gradient_norms(model: Pano3D, losses: dict[str, Tensor]) -> dict[str, float]:
    """Norms of both losses' gradients at the multi-view decoder: the evidence behind the paper's gradient gate."""
    decoder = [p for p in model.parts()["decoder"] if p.requires_grad]
    norms: dict[str, float] = {}
    for name in ("geometry", "segmentation"):
        if name in losses and decoder:
            gradients = torch.autograd.grad(losses[name], decoder, retain_graph=True, allow_unused=True)
            squares = [g.square().sum() for g in gradients if g is not None]
            norms[f"grad_norm/{name}"] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


class _Window:
    """Sums between two log points: losses, images, and the time spent waiting for data."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}
        self._images, self._waited, self._since = 0, 0.0, time.monotonic()

    def timed_wait(self, batches: Iterator[Batch]) -> Batch:
        before = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - before
        return batch

    def add(self, values: dict[str, float], images: int) -> None:
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        self._images += images

    def close(self, optimizer: Optimizers) -> dict[str, float]:
        elapsed = max(time.monotonic() - self._since, 1e-9)
        row = {name: total / count for name, (total, count) in self._sums.items()}
        row |= {f"learning_rate/{group['part']}": group["lr"] for group in optimizer.param_groups}
        row["throughput/images_per_second"] = self._images / elapsed
        row["throughput/data_wait_share"] = self._waited / elapsed
        row["memory/peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.__init__()  # type: ignore[misc]
        return row


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and SIGINT into a question the loop asks between steps; a second SIGINT interrupts at once."""
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    try:
        previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: signals are somebody else's business
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
