"""Files that are whole or absent, and locks that one holds while others wait and say so."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pano3d.files import locked


def test_who_comes_second_waits_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new folder" / "one.lock"
    entered = threading.Event()

    def second() -> None:
        with locked(path, "waiting for the first"):
            entered.set()

    thread = threading.Thread(target=second)
    with locked(path, "nobody is before us"):
        thread.start()
        assert not entered.wait(0.3)
    thread.join()
    assert entered.is_set()
    assert capsys.readouterr().err == "waiting for the first\n"
