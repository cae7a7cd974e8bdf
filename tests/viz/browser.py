"""A headless Chromium to look at pages with; tests that need one are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def open_page(url: str, complaints: list[str]) -> Iterator[Any]:
    """A page of 1280x720 at `url`; what its console complains about is added to `complaints`."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("PANO3D_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: install one, or set PANO3D_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
        )
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.set_default_timeout(120_000)  # a busy machine is slow, not wrong
            page.goto(url)
            yield page
        finally:
            browser.close()
