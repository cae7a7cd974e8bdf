"""Devices: which there are, what a child sees of them, and their slots on a Prefect server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.orchestration._concurrency_limits import client as limits
from prefect.testing.utilities import prefect_test_harness

from flows.devices import devices, ensure_slots, variables_of


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that lists GPUs 0 and 1, and an environment that says nothing about devices."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("PANO3D_DEVICES", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5ebe9f91, GPU-a1"}, ("GPU-5ebe9f91", "GPU-a1")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ("cpu",)),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ("cpu",)),
        ({"CUDA_VISIBLE_DEVICES": "1", "PANO3D_DEVICES": "0,1"}, ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": "1", "PANO3D_DEVICES": "cpu"}, ("cpu",)),
    ],
)
def test_which_devices_there_are(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[str, ...]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert devices() == expected


def test_without_a_driver_there_is_one_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PANO3D_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices() == ("cpu",)


def test_a_child_sees_its_devices_and_no_others(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    by_bus = {"PANO3D_PROCESSES": "1", "CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert variables_of(("1",)) == by_bus
    assert variables_of(("cpu",)) == {"PANO3D_PROCESSES": "1", "CUDA_VISIBLE_DEVICES": ""}
    # Numbers out of the variable go on counting as they did there.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert variables_of(("1", "3")) == {"PANO3D_PROCESSES": "2", "CUDA_VISIBLE_DEVICES": "1,3"}


@pytest.fixture
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=240):
        yield


@pytest.mark.slow
def test_flows_that_start_at_once_share_the_slots(server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All have seen that there is no slot before any of them makes one."""
    count, ends = 3, list[object]()
    barrier = threading.Barrier(count)
    create = limits.ConcurrencyLimitClient.create_global_concurrency_limit

    def wait(self: Any, *values: Any, **named: Any) -> Any:
        barrier.wait(60)
        return create(self, *values, **named)

    monkeypatch.setattr(limits.ConcurrencyLimitClient, "create_global_concurrency_limit", wait)

    def start() -> None:
        try:
            ends.append(ensure_slots(["cpu"]))
        except Exception as error:
            ends.append(error)

    threads = [threading.Thread(target=start) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [None] * count
    with get_client(sync_client=True) as client:
        (slot,) = client.read_global_concurrency_limits(limit=10, offset=0)
    assert (slot.name, slot.limit) == ("device-cpu", 1)
