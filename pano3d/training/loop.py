"""The training loop: one, for both stages and any number of processes, written out."""

from __future__ import annotations

import math
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
from pano3d.data.label_spaces import LabelSpace
from pano3d.model import Pano3D
from pano3d.training.compilation import compile_blocks
from pano3d.training.memory import (
    GIB,
    MemoryEstimate,
    available_bytes,
    estimate_memory,
    peak_bytes,
    recompute_blocks,
)
from pano3d.training.objective import Objective
from pano3d.training.optimizer import OptimizerConfig, Optimizers, clip_gradients, make_optimizer, set_learning_rates
from pano3d.training.processes import ALONE, Processes
from pano3d.training.sharding import gather, shard
from pano3d.training.slices import require_equal_shares, scenes_of, slices
from pano3d.training.state import ResumePoint, read_state, restore_optimizer, restore_weights, save_state
from pano3d.types import Batch, ConfigError, Interrupted, TrainingError

Log = Callable[[dict[str, float], int], None]

_KNOBS = (
    "set training.recompute, raise training.accumulate, choose precision bf16, spread over more processes (with "
    "sharding=fsdp), or lower loader.images_per_batch or the image size"
)


@dataclass(frozen=True)
class TrainingConfig:
    """How long and in which form; `loader.images_per_batch` is what a step sees, over all processes and parts.

    steps: optimiser steps.
    precision: autocast dtype of the forward pass.
    log_every, checkpoint_every: in steps.
    probe_every: steps between measurements of both losses' gradients at the decoder (0 = never).
    accumulate: parts a step is computed in, one after the other; the same gradient from less memory.
    recompute: keep only the inputs of blocks for the backward pass; the same gradient from less memory, slower.
    compile: make kernels for the blocks at the first steps, which takes a minute or so: for long runs on a GPU.
    sharding: what each of several processes holds of weights, gradients and moments: all ("none") or a part ("fsdp").
    """

    steps: int
    loader: LoaderConfig
    optimizer: OptimizerConfig
    precision: Literal["fp32", "bf16"] = "fp32"
    log_every: int = 20
    checkpoint_every: int = 200
    probe_every: int = 0
    accumulate: int = 1
    recompute: bool = False
    compile: bool = False
    sharding: Literal["none", "fsdp"] = "none"

    def __post_init__(self) -> None:
        if min(self.steps, self.log_every, self.checkpoint_every) < 1 or self.probe_every < 0:
            raise ConfigError("training: steps, log_every and checkpoint_every must be positive, probe_every >= 0")
        if self.accumulate < 1:
            raise ConfigError(f"training: accumulate is {self.accumulate}; expected 1 or more parts of a step")
        require_equal_shares(self.loader.images_per_batch, self.loader.views, self.accumulate)
        if self.sharding == "fsdp" and self.probe_every:
            raise ConfigError("training: gradients cannot be probed while they are sharded; set probe_every to 0")
        if self.sharding == "fsdp" and self.compile:
            raise ConfigError(
                "training: compiled blocks were never tried sharded; set compile or sharding to its default"
            )
        if self.sharding == "fsdp" and self.optimizer.muon:
            raise ConfigError("training: Muon needs whole matrices; set optimizer.muon to 0 with sharding=fsdp")

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.precision == "bf16" else None


_Sums = dict[str, tuple[float, int]]
History = list[dict[str, float]]
"""Means of each logged quantity between log points, with "step": what training curves are drawn from."""


@dataclass(frozen=True)
class _Job:
    """What every step needs."""

    model: Pano3D
    objective: Objective
    optimizer: Optimizers
    config: TrainingConfig
    seed: int
    state_path: Path
    processes: Processes


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
    processes: Processes = ALONE,
    vocabulary: LabelSpace | None = None,
) -> History:
    """Train in place; on return the model holds the weights of the last step.

    The same call after an interruption at any moment resumes from `state_path` and ends, on CPU, with the weights
    an uninterrupted run would have had. The file is left for the caller to delete once its outputs are written.

    Several processes that call this together each take their share of a step's scenes. The curve is that of one process
    up to the order of sums; the first process alone logs and writes.

    Raises:
        ConfigError: the scenes of a step do not divide among processes and parts, or nothing is there to shard among.
        TrainingError: a loss is not finite (the batch is saved beside `state_path`), memory ran out, or another process
            is gone.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    require_equal_shares(config.loader.images_per_batch, config.loader.views, config.accumulate * processes.count)
    if config.sharding == "fsdp" and processes.count == 1:
        raise ConfigError("training: sharding=fsdp needs several processes; set PANO3D_PROCESSES or sharding=none")
    model.to(device).train()
    if config.recompute:
        recompute_blocks(model)
    state = read_state(state_path)
    if state:
        restore_weights(state, state_path, model)
    if config.sharding == "fsdp":
        shard(model, processes)
    optimizer = make_optimizer(model, config.optimizer, config.autocast or torch.float32)
    resume = restore_optimizer(state, state_path, optimizer) if state else None
    del state
    first, seconds_before = (resume.step, resume.seconds) if resume else (0, 0.0)
    job = _Job(model, objective, optimizer, config, seed, state_path, processes)
    steps = TrainingSteps(paths, config.loader, seed, processes.rank, processes.count, vocabulary)
    estimate = _announce_memory(job, steps, first, device) if first < config.steps else None
    if config.compile:  # after the estimate, whose bytes are counted operation by operation
        compile_blocks(model, keeps_graph=config.probe_every > 0)
    batches = training_batches(steps, first, config.steps, config.loader.workers, device.type == "cuda")
    window = _Window(estimate, processes, resume.window if resume else {})
    has_warned = False
    history: History = list(resume.history) if resume else []
    started = time.monotonic()
    progress = tqdm(
        total=config.steps,
        initial=first,
        desc=label,
        unit="step",
        mininterval=2.0,
        file=sys.stderr,
        disable=not processes.is_first,
    )
    with progress, _stop_requests() as stop_requested:
        for step in range(first, config.steps):
            batch = window.timed_wait(batches).to(device)
            values = _step(job, batch, step)
            window.add(values, batch.views.images.shape[0] * batch.views.images.shape[1])
            progress.update()
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                row = window.close(optimizer, device)
                progress.set_postfix(loss=f"{row['loss/total']:.3f}", refresh=False)
                history.append({"step": float(done), **row})
                if processes.is_first and not has_warned and row.get("loss/segmentation/unmatched_targets", 0.0) > 0:
                    has_warned = True
                    tqdm.write(
                        f"warning: {label}: {row['loss/segmentation/unmatched_targets']:.1f} segments a step find no "
                        "query and are not learnt; raise head.decoder.queries or loader.minimum_segment_pixels",
                        file=sys.stderr,
                    )
                if processes.is_first:
                    log(row, done)
            stopping = processes.any(stop_requested())
            if stopping or (done % config.checkpoint_every == 0 and done < config.steps):
                elapsed = seconds_before + time.monotonic() - started
                point = ResumePoint(done, elapsed, history, window.sums(device))
                save_state(state_path, model, optimizer, point, processes)
                if stopping:
                    raise Interrupted(f"{label} stopped at step {done} of {config.steps}; run it again to go on")
    if estimate and processes.is_first:
        peak = peak_bytes(device)
        progress.write(
            f"{label}: peak memory {peak / GIB:.2f} GiB, {peak / estimate.total:.2f} of the estimate", file=sys.stderr
        )
    if config.sharding == "fsdp":
        gather(model)
    return history


def _announce_memory(job: _Job, steps: TrainingSteps, first: int, device: torch.device) -> MemoryEstimate:
    batch = steps[first]
    one = scenes_of(batch, 0, 1).to(device)
    scenes = len(batch.scenes) // job.config.accumulate
    frames = steps.cache_bytes if job.config.loader.workers == 0 else 0
    with _memory_advice("estimating memory", device.type):
        estimate = estimate_memory(job.model, job.objective, one, scenes, job.optimizer, job.config.autocast, frames)
    if job.processes.is_first:
        tqdm.write(f"memory of a process, estimated: {estimate}", file=sys.stderr)
        available = available_bytes(device)
        if estimate.total > available:
            tqdm.write(f"warning: {available / GIB:.2f} GiB are there; should that not do, {_KNOBS}", file=sys.stderr)
    return estimate


def _step(job: _Job, batch: Batch, step: int) -> dict[str, float]:
    """One optimiser step. Loss values are this process's shares: over all processes they add up."""
    config, processes = job.config, job.processes
    set_learning_rates(job.optimizer, step, config.steps, config.optimizer)
    job.optimizer.zero_grad()
    probing = bool(config.probe_every) and step % config.probe_every == 0
    probe = _Probe(job.model) if probing else None
    sums: dict[str, Tensor] = {}
    with _memory_advice(f"step {step}", batch.views.images.device.type):
        for losses in _shares(job, batch, step):
            if probe:
                probe.add(losses)
            losses["total"].backward()
            for name, value in losses.items():
                sums[f"loss/{name}"] = sums.get(f"loss/{name}", 0.0) + value.detach().double()
        if config.sharding == "none":
            processes.sum_gradients([p for p in job.model.parameters() if p.requires_grad])
        norm = clip_gradients(job.model, config.optimizer.clip_norm)
        job.optimizer.step()
        # Read once, when all of the step has been asked for: a GPU idles while somebody waits for a number. What a step
        # that is refused here did to the weights is lost with them; the checkpoint before it stays.
        *found, norm_found = torch.stack([*sums.values(), norm.to(next(iter(sums.values())))]).tolist()
    values = dict(zip(sums, found, strict=True))
    wrong = [name.removeprefix("loss/") for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise TrainingError(_not_finite(f"loss {wrong}", batch, step, job))
    if not math.isfinite(norm_found):
        raise TrainingError(_not_finite("the gradient", batch, step, job))
    return {**values, **(probe.norms(processes) if probe else {}), "grad_norm/all": norm_found}


def _shares(job: _Job, batch: Batch, step: int) -> Iterator[dict[str, Tensor]]:
    """Losses of a step, part by part; they and their gradients add up to those of the whole batch."""
    config = job.config
    if job.processes.count * config.accumulate == 1:
        with _draws_of(job, step, batch) as generator:
            losses = job.objective(job.model, batch, generator)
        yield losses
        return
    counted = job.objective.counted(batch.geometry.depth)
    queries = job.model.mask_decoder.config.queries
    for part in slices(batch, counted, config.accumulate, queries, job.processes):
        with _draws_of(job, step, batch) as generator:
            losses = job.objective(job.model, part.batch, generator, part)
        yield losses


@contextmanager
def _draws_of(job: _Job, step: int, batch: Batch) -> Iterator[torch.Generator]:
    """Every draw of a step comes from its number, so an interrupted run repeats the draws of an uninterrupted one, and
    all parts of a step draw alike. The forward pass runs in the precision chosen."""
    step_seed = (job.seed * 1_000_003 + step) & 0x7FFFFFFF
    torch.manual_seed(step_seed)
    with torch.autocast(batch.views.images.device.type, torch.bfloat16, enabled=job.config.precision == "bf16"):
        yield torch.Generator().manual_seed(step_seed)


@contextmanager
def _memory_advice(what: str, device_type: str) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On a CPU PyTorch has no error class of its own for this.
        if isinstance(error, RuntimeError) and not _tells_of_memory(error):
            raise
        raise TrainingError(f"{what} ran out of memory on {device_type}: {_KNOBS}") from error


def _tells_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _not_finite(what: str, batch: Batch, step: int, job: _Job) -> str:
    """Save the batch; what to say about it."""
    saved = _save_batch(batch, job)
    return (
        f"step {step}: {what} is not finite (scenes {batch.scenes}); the batch is saved in {saved}. Lower the learning "
        "rate, choose fp32, or inspect the batch"
    )


def _save_batch(batch: Batch, job: _Job) -> Path:
    # Each of several processes has scenes of its own, and may come here at the same moment as the others.
    rank = f"-{job.processes.rank}" if job.processes.count > 1 else ""
    path = job.state_path.with_suffix(f".bad-batch{rank}.pt")
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


class _Probe:
    """Norms of both losses' gradients at the multi-view decoder: the evidence behind the paper's gradient gate."""

    def __init__(self, model: Pano3D) -> None:
        self._decoder = [p for p in model.parts()["decoder"] if p.requires_grad]
        self._sums: dict[str, list[Tensor | None]] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        """Of one part of a step; before its backward pass, which frees the graph."""
        for name in ("geometry", "segmentation"):
            if name in losses and self._decoder:
                found = torch.autograd.grad(losses[name], self._decoder, retain_graph=True, allow_unused=True)
                before = self._sums.get(name, [None] * len(found))
                self._sums[name] = [a if b is None else b if a is None else a + b for a, b in zip(before, found)]

    def norms(self, processes: Processes) -> dict[str, float]:
        norms: dict[str, float] = {}
        for name, gradients in self._sums.items():
            squares = [processes.sum(g).square().sum() for g in gradients if g is not None]
            norms[f"grad_norm/{name}"] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
        return norms


class _Window:
    """Sums between two log points: losses, images, and the time spent waiting for data.

    begun: what `sums` gave when the run was interrupted between the two.
    """

    def __init__(self, estimate: MemoryEstimate | None, processes: Processes, begun: _Sums) -> None:
        self._estimate, self._processes = estimate, processes
        # Losses are shares that add up over processes; what was added up already is the first one's.
        self._sums = {
            name: (0.0 if _is_shared(name) and not processes.is_first else total, count)
            for name, (total, count) in begun.items()
        }
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

    def sums(self, device: torch.device) -> _Sums:
        """Sum and count of each quantity since the last log point, over all processes; every process must ask."""
        shared = [name for name in self._sums if _is_shared(name)]
        if self._processes.count == 1 or not shared:
            return dict(self._sums)
        parts = torch.tensor([self._sums[name][0] for name in shared], dtype=torch.float64, device=device)
        totals = self._processes.sum(parts).tolist()
        return self._sums | {name: (total, self._sums[name][1]) for name, total in zip(shared, totals, strict=True)}

    def close(self, optimizer: Optimizers, device: torch.device) -> dict[str, float]:
        """Means since the last log point, over all processes; every process must ask."""
        elapsed = max(time.monotonic() - self._since, 1e-9)
        row = {name: total / count for name, (total, count) in self.sums(device).items()}
        row |= {f"learning_rate/{group['part']}": group["lr"] for group in optimizer.param_groups}
        row["throughput/images_per_second"] = self._images * self._processes.count / elapsed
        row["throughput/data_wait_share"] = self._waited / elapsed
        row["memory/peak_gib"] = peak_bytes(device) / GIB
        if self._estimate:
            row["memory/estimate_gib"] = self._estimate.total / GIB
        self.__init__(self._estimate, self._processes, {})  # type: ignore[misc]
        return row


def _is_shared(name: str) -> bool:
    return name.startswith("loss/")


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
