"""Slots of devices on a Prefect server: made once, by whoever comes first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.orchestration._concurrency_limits import client as limits
from prefect.testing.utilities import prefect_test_harness

from flows.devices import ensure_slots

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=240):
        yield


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
