"""Which process is behind a run, and whether it still lives."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping


def this_process() -> dict[str, str]:
    """Tags: the machine, and number and start of this process, since a number alone is used again."""
    import psutil

    return {"host": platform.node(), "process": f"{os.getpid()} {psutil.Process().create_time():.0f}"}


def is_alive(tags: Mapping[str, str]) -> bool:
    """Whether the process these tags name runs. One of another machine counts as alive: we cannot see it."""
    import psutil

    if tags.get("host") != platform.node():
        return True
    number, started = tags.get("process", "0 0").split()
    try:
        process = psutil.Process(int(number))
        return f"{process.create_time():.0f}" == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
