"""A headless Chromium to look at pages with; tests that need one are skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.viewer import chromium, empty_page


@contextmanager
def open_page(url: str, complaints: list[str]) -> Iterator[Any]:
    """A page of 1280x720 at `url`; what its console complains about is added to `complaints`."""
    if chromium() is None:
        pytest.skip("no Chromium: install one, or set PANO3D_CHROMIUM")
    with empty_page() as page:
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        yield page
