"""Which system calls reach beyond this machine: strace sees C libraries too, which an audit hook of Python does not."""

from __future__ import annotations

import functools
import ipaddress
import re
import shutil
import subprocess
from pathlib import Path

_CALLS = "connect,sendto,sendmsg,sendmmsg"
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')


@functools.cache
def is_allowed() -> bool:
    """strace is installed, and this process may trace others (containers often may not)."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


REASON = "strace is not installed or not allowed here: apt-get install strace, and the right to trace (CAP_SYS_PTRACE)"


def traced(log: Path) -> list[str]:
    """What to put before a command: notes its calls, and those of all it starts, in `log`."""
    return [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qqq",
        "-s",
        "0",
        "-e",
        f"trace={_CALLS}",
        "-e",
        "signal=none",
        "-o",
        str(log),
    ]


def beyond(log: Path) -> list[str]:
    """The calls whose address is that of another machine."""
    return [line for line in log.read_text(errors="replace").splitlines() if any(map(_is_far, _ADDRESS.findall(line)))]


def _is_far(found: tuple[str, str]) -> bool:
    address = ipaddress.ip_address("".join(found))
    mapped = getattr(address, "ipv4_mapped", None) or address
    return not (mapped.is_loopback or mapped.is_unspecified)
