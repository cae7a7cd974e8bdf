"""Several processes, one training: how they start, find each other, add up, and agree.

`PANO3D_PROCESSES=N` makes a training command start itself N times through torchrun; a command that torchrun started
joins the others. Each process holds one device, takes its share of every step's scenes and sums with the others, so the
number of processes changes the speed of a run and not its curve.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from pano3d.processes import AGAIN
from pano3d.types import ConfigError, TrainingError

_BUCKET = 1 << 24  # elements sent at once: 64 MiB of float32


@dataclass(frozen=True)
class Processes:
    """This process among `count`; `rank` 0 writes files and talks to the tracking store."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each; `values` itself in a single one."""
        return self._reduce(values, distributed.ReduceOp.SUM)

    def max(self, values: Tensor) -> Tensor:
        """The elementwise maximum over all processes."""
        return self._reduce(values, distributed.ReduceOp.MAX)

    def any(self, value: bool) -> bool:
        """Whether it holds in any process: all must act alike, or those that go on wait for ever."""
        if self.count == 1:
            return value
        return bool(self.max(torch.tensor(float(value), device=self.device)) > 0)

    def wait(self) -> None:
        """Until all processes are here."""
        self.any(False)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, in place and in pieces of 64 MiB.

        A parameter without gradient everywhere stays without, so that the optimizer skips it as it would alone.
        """
        if self.count == 1 or not parameters:
            return
        present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=self.device)
        used = [p for p, has in zip(parameters, self.max(present).tolist(), strict=True) if has]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets(used):
            gradients = [p.grad for p in bucket if p.grad is not None]
            total = self.sum(torch.cat([g.flatten() for g in gradients]))
            for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def _reduce(self, values: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        if self.count == 1:
            return values
        total = values.detach().clone()
        try:
            distributed.all_reduce(total, operation)
        except RuntimeError as error:
            reason = " ".join(str(error).split())  # NCCL gives several lines
            raise TrainingError(
                f"process {self.rank} of {self.count}: another process of this training is gone ({reason}); run the "
                f"same command {AGAIN} from the last checkpoint"
            ) from error
        return total


ALONE = Processes(0, 1, torch.device("cpu"))
"""One process; its `device` is read by nobody."""


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and size + parameter.numel() > _BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket


def spread_over_processes() -> None:
    """Become torchrun with PANO3D_PROCESSES copies of this command; return where that is 1, unset, or done already.

    The process number stays the same, so whoever started this command still owns it.

    Raises:
        ConfigError: PANO3D_PROCESSES is not a positive number, or larger than the number of GPUs where there are any.
    """
    asked = os.environ.get("PANO3D_PROCESSES", "1")
    if "RANK" in os.environ:
        return
    if not asked.isdigit() or int(asked) < 1:
        raise ConfigError(f"PANO3D_PROCESSES is {asked!r}; expected a positive number")
    if asked == "1":
        return
    if torch.cuda.is_available() and int(asked) > torch.cuda.device_count():
        raise ConfigError(f"PANO3D_PROCESSES is {asked}, but this machine shows {torch.cuda.device_count()} GPUs")
    runner = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={asked}"]
    os.execv(sys.executable, [sys.executable, *runner, "-m", "pano3d", *sys.argv[1:]])


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """The processes torchrun started (NCCL on GPUs, gloo elsewhere), or this one alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    on_gpu = torch.cuda.is_available()
    if count == 1:
        yield Processes(0, 1, torch.device("cuda" if on_gpu else "cpu"))
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()
