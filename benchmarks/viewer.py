"""How soon a page with a million points shows its first picture, and how long a frame takes while it turns.

`python -m benchmarks.viewer` prints both for `scene.html` and for `pano3d view`, drawn in software by a headless
Chromium (on the path, or PANO3D_CHROMIUM) in a window of 1280x720. Needs pip install 'pano3d[viewer]' and Playwright.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pano3d.viz.cloud import CloudSegment, SceneCloud
from pano3d.viz.interactive import CloudViewer
from pano3d.viz.page import render_page

POINTS = 1_000_000
_COUNT_FRAMES = """() => { window.times = []; const tick = (now) => { times.push(now); requestAnimationFrame(tick); };
    requestAnimationFrame(tick); }"""


def cloud() -> SceneCloud:
    """Two cubes of points beside each other."""
    points = np.random.default_rng(0).uniform(-1, 1, (POINTS, 3))
    segment = np.arange(POINTS) % 2
    points[:, 0] += np.where(segment == 0, -1.5, 1.5)
    colors = np.where(segment[:, None] == 0, (220, 20, 20), (20, 220, 20)).astype(np.uint8)
    listed = (CloudSegment("chair 1", "chair", (255, 0, 0), (10, 20, 250)),) * 2
    return SceneCloud("a room", points, colors, np.ones(POINTS), segment, listed, None)


def chromium() -> str | None:
    """Where Chromium is, if it is here."""
    return os.environ.get("PANO3D_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def empty_page() -> Iterator[Any]:
    """A page of 1280x720 in a headless Chromium that draws in software."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
        )
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.set_default_timeout(120_000)  # a busy machine is slow, not wrong
            yield page
        finally:
            browser.close()


def static_page() -> tuple[float, float]:
    """Seconds to the first picture, and of a frame, of `scene.html`."""
    with tempfile.TemporaryDirectory() as folder, empty_page() as page:
        path = Path(folder) / "scene.html"
        path.write_text(render_page(cloud(), []), encoding="utf-8")
        started = time.monotonic()
        page.goto(path.as_uri())
        page.wait_for_selector(f".viewer[data-drawn='{POINTS}']")
        first, frames = time.monotonic() - started, []
        for _ in range(9):
            page.locator("canvas").press("ArrowLeft")
            page.wait_for_timeout(50)
            frames.append(float(page.evaluate("document.querySelector('.viewer').dataset.milliseconds")) / 1000)
    return first, statistics.median(frames)


def interactive_page() -> tuple[float, float]:
    """The same of `pano3d view`, turned by the mouse."""
    viewer = CloudViewer(cloud(), "127.0.0.1", 0, POINTS)
    try:
        with empty_page() as page:
            started = time.monotonic()
            page.goto(viewer.url)
            while not _shows_points(page):
                page.wait_for_timeout(100)
            first = time.monotonic() - started
            while not viewer.shows_all:
                page.wait_for_timeout(250)
            page.wait_for_timeout(5000)
            page.mouse.move(500, 360)
            page.mouse.down()
            page.evaluate(_COUNT_FRAMES)
            for step in range(40):
                page.mouse.move(500 + 6 * step, 360 + 2 * step)
                page.wait_for_timeout(60)
            frames = np.diff(page.evaluate("times")) / 1000
            page.mouse.up()
    finally:
        viewer.stop()
    return first, float(np.median(frames))


def _shows_points(page: Any) -> bool:
    canvas = page.locator("canvas")
    if canvas.count() == 0:
        return False
    picture = np.asarray(Image.open(io.BytesIO(canvas.first.screenshot())).convert("RGB"), np.int64)
    return float((np.abs(picture - (20, 220, 20)).max(-1) <= 40).mean()) > 0.005


def main() -> None:
    if chromium() is None:
        sys.exit("benchmarks.viewer: no Chromium; install one, or set PANO3D_CHROMIUM")
    for name, (first, frame) in (("scene.html", static_page()), ("pano3d view", interactive_page())):
        print(f"{name}: first picture after {first:.1f} s, {1000 * frame:.0f} ms a frame while turning (median)")


if __name__ == "__main__":
    main()
