"""Imported by every Python that starts with this folder in PYTHONPATH: notes what it wants from other machines, and
refuses it.

One line per process ("started") and per connection, datagram or name look-up beyond loopback, in the file that
PANO3D_CONNECTIONS names. An audit hook cannot be taken off again, and sees what C extensions do through `socket` too.
"""

import os
import socket
import sys
from typing import NoReturn

_LOCAL = ("127.", "::1", "localhost", "0.0.0.0", "::")


def _note(what: str) -> None:
    with open(os.environ["PANO3D_CONNECTIONS"], "a", encoding="utf-8") as file:
        file.write(f"{what}\t{' '.join(' '.join(sys.orig_argv).split())[:300]}\n")


def _refuse(what: str) -> NoReturn:
    _note(what)
    raise OSError(f"{what}: the tests let nothing leave this machine")


def _is_local(host: object) -> bool:
    return host is None or str(host).startswith(_LOCAL) or str(host) in ("", "b''", socket.gethostname())


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            _refuse(f"{event} {address}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not _is_local(arguments[0]):
        _refuse(f"{event} {arguments[0]}")


if "PANO3D_CONNECTIONS" in os.environ:
    _note("started")
    sys.addaudithook(_hook)
