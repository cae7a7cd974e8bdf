"""One device, one slot: whoever trains holds a device, and nobody else gets it."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import combinations, takewhile

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

CPU = "cpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"
LEASE = 60.0  # seconds: how long a slot stays taken after its holder was killed
_PATIENCE = 1.0  # seconds to wait at one busy device before asking the next


def _is_no_busy_slot(record: logging.LogRecord) -> bool:
    """Prefect calls every slot that stays busy beyond our patience a failed service, once a second for hours."""
    said = record.getMessage()
    return not ("ConcurrencySlotAcquisition" in said and "TimeoutError" in said)


logging.getLogger("prefect._internal.concurrency").addFilter(_is_no_busy_slot)


def devices() -> tuple[str, ...]:
    """PANO3D_DEVICES ("0,1"), or those CUDA_VISIBLE_DEVICES leaves, or the GPUs the driver lists; "cpu" where there are
    none. Several names may stand for one CPU."""
    named = os.environ.get("PANO3D_DEVICES")
    if named:
        return _names(named)
    visible = os.environ.get(VISIBLE)
    if visible is not None:
        # CUDA itself stops reading at a number that is none, which is how -1 hides all.
        return tuple(takewhile(lambda name: name != "-1", _names(visible))) or (CPU,)
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True
        ).stdout.split()
    except (FileNotFoundError, subprocess.CalledProcessError):
        listed = []
    return tuple(listed) or (CPU,)


def ensure_slots(names: Sequence[str]) -> None:
    """A global concurrency limit of one for every device; existing ones are kept."""
    with get_client(sync_client=True) as client:
        for name in names:
            try:
                client.upsert_global_concurrency_limit_by_name(_limit(name), 1)
            except ObjectAlreadyExists:  # Prefect looks, then makes: another flow that starts now made it in between
                client.upsert_global_concurrency_limit_by_name(_limit(name), 1)


@contextmanager
def take_devices(names: Sequence[str], count: int = 1) -> Iterator[tuple[str, ...]]:
    """Hold the first `count` devices that are free together; their slots are given back at the end, or by the server
    `LEASE` seconds after their holder was killed.

    Raises:
        ValueError: there are fewer devices.
    """
    if not 1 <= count <= len(names):
        raise ValueError(f"taking {count} devices: there are {len(names)} ({', '.join(names)})")
    with ExitStack() as held:
        yield _wait(names, count, held)


def variables_of(taken: Sequence[str]) -> dict[str, str]:
    """What a child process must know to use these devices and no others, one process on each."""
    variables = {"PANO3D_PROCESSES": str(len(taken)), VISIBLE: "" if CPU in taken else ",".join(taken)}
    # nvidia-smi counts GPUs by bus, CUDA from the fastest on. Where CUDA_VISIBLE_DEVICES is set, its owner chose how.
    if CPU not in taken and VISIBLE not in os.environ:
        variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return variables


def _wait(names: Sequence[str], count: int, held: ExitStack) -> tuple[str, ...]:
    while True:
        for taken in combinations(names, count):
            # All of them or none: two that hold one each would wait for each other.
            slots = concurrency(
                [_limit(name) for name in taken],
                timeout_seconds=_PATIENCE,
                lease_duration=LEASE,
                strict=True,
                # Losing the server for a moment must not end hours of training.
                raise_on_lease_renewal_failure=False,
            )
            try:
                held.enter_context(slots)
            except TimeoutError:
                continue
            return taken
        time.sleep(_PATIENCE)


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def _limit(name: str) -> str:
    return f"device-{name}"
