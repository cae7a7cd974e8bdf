"""`scene.html` and the interactive viewer in a browser: what is seen follows what is chosen."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pano3d.palette import segment_colors
from pano3d.types import ConfigError
from pano3d.viz.cloud import CloudSegment, SceneCloud, upright_from_world
from pano3d.viz.interactive import CloudViewer
from pano3d.viz.page import render_page
from tests.viz.browser import open_page


def cloud(count: int, name: str = "a room") -> SceneCloud:
    """Two cubes beside each other, red and green in the photos, the red one surer; cameras between them."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (count, 3))
    segment = np.arange(count) % 2
    points[:, 0] += np.where(segment == 0, -1.5, 1.5)
    colors = np.where(segment[:, None] == 0, (220, 20, 20), (20, 220, 20)).astype(np.uint8)
    listed = tuple(
        CloudSegment(f"{kind} {number}", kind, tuple(segment_colors(np.array(number)).tolist()), color)
        for number, (kind, color) in enumerate((("chair", (10, 20, 250)), ("table", (250, 240, 10))), 1)
    )
    rank = np.where(segment == 0, 0.9, 0.1) + rng.uniform(-0.1, 0.1, count)
    frusta = np.array([[[0, 0, 0], [-0.2, 0.3, -0.2], [0.2, 0.3, -0.2], [0.2, 0.3, 0.2], [-0.2, 0.3, 0.2]]], float)
    return SceneCloud(name, points, colors, rank, segment, listed, frusta)


def share(page: Any, color: tuple[int, int, int], tolerance: int = 12) -> float:
    """Part of the picture that has about this colour."""
    picture = np.asarray(Image.open(io.BytesIO(page.locator("canvas").first.screenshot())).convert("RGB"), np.int64)
    return float((np.abs(picture - color).max(-1) <= tolerance).mean())


def drawn(page: Any) -> int:
    page.wait_for_timeout(200)
    return int(page.evaluate("document.querySelector('.viewer').dataset.drawn"))


def test_every_control_does_what_it_says(tmp_path: Path) -> None:
    path, complaints = tmp_path / "scene.html", []
    path.write_text(render_page(cloud(20_000, "</script><b>room"), ["a remark <i>"]), encoding="utf-8")
    with open_page(path.as_uri(), complaints) as page:
        page.wait_for_selector(".viewer[data-drawn]")
        assert drawn(page) == 20_000
        assert share(page, (220, 20, 20)) > 0.01
        assert share(page, (255, 180, 84), 30) > 0.00005  # the camera
        page.get_by_label("cameras").uncheck()
        drawn(page)
        assert share(page, (255, 180, 84), 30) == 0
        page.get_by_role("button", name="classes").click()
        drawn(page)
        assert share(page, (10, 20, 250)) > 0.01
        assert share(page, (220, 20, 20)) == 0
        assert page.locator("aside label").all_inner_texts() == ["chair", "table"]
        page.get_by_role("button", name="segments").click()
        drawn(page)
        assert share(page, tuple(segment_colors(np.array(1)).tolist())) > 0.01
        page.get_by_label("chair 1").uncheck()
        assert drawn(page) == 10_000
        assert share(page, tuple(segment_colors(np.array(1)).tolist())) == 0
        page.get_by_role("button", name="all", exact=True).click()
        page.get_by_role("button", name="confidence").click()
        page.get_by_label("least sure").fill("128")  # the table's points are all less sure
        assert 9_900 < drawn(page) <= 10_000
        assert page.locator("footer").inner_text() == "a remark <i>"
    assert complaints == []


@pytest.mark.slow
def test_a_million_points_are_all_drawn(tmp_path: Path) -> None:
    """How soon: `python -m benchmarks.viewer`."""
    path, complaints = tmp_path / "scene.html", []
    path.write_text(render_page(cloud(1_000_000), []), encoding="utf-8")
    with open_page(path.as_uri(), complaints) as page:
        page.wait_for_selector(".viewer[data-drawn='1000000']")
        page.locator("canvas").press("ArrowLeft")
        assert drawn(page) == 1_000_000
    assert complaints == []


@pytest.mark.slow
def test_of_a_million_points_few_are_drawn_while_they_turn_and_all_when_they_rest() -> None:
    complaints: list[str] = []
    viewer = CloudViewer(cloud(1_000_000), "127.0.0.1", 0, 1_000_000)
    green, turning, resting = (20, 220, 20), 0.0, 0.0
    try:
        with open_page(viewer.url, complaints) as page:
            wait_until(lambda: share(page, green, 40) > 0.005, page)
            wait_until(lambda: viewer.shows_all, page)
            page.wait_for_timeout(2000)
            resting = share(page, green, 40)
            page.mouse.move(500, 360)
            page.mouse.down()
            for step in range(40):
                page.mouse.move(500 + 6 * step, 360 + 2 * step)
                page.wait_for_timeout(60)
            assert not viewer.shows_all
            assert points_in(viewer) == 50_000
            turning = share(page, green, 40)
            page.mouse.up()
            wait_until(lambda: viewer.shows_all, page)
            assert points_in(viewer) == 1_000_000
    finally:
        viewer.stop()
    assert 0.3 < turning / resting < 3  # few points look like many
    assert viewer.drawn == 1_000_000
    assert complaints == []


def points_in(viewer: CloudViewer) -> int:
    """Points that a page has to draw now."""
    nodes = handles(viewer)
    clouds = [
        one
        for name, one in nodes.items()
        if name.startswith(("/all/", "/few/")) and nodes[name[:4]].visible and one.visible
    ]
    return sum(len(one.points) for one in clouds)


def test_what_is_changed_while_hidden_is_there_when_shown() -> None:
    """Both levels of detail follow every control, and an object's points are the same share of both."""
    viewer = CloudViewer(cloud(200_000), "127.0.0.1", 0, 200_000)
    try:
        viewer.color_by("classes")
        viewer.hide_below(0.5)  # the table's points are all less sure
        assert not viewer.shows_all
        wait_for(lambda: viewer.shows_all)
        assert viewer.drawn == 100_000
        clouds = {name: each for name, each in handles(viewer).items() if name.startswith("/all/")}
        assert {name: len(each.points) for name, each in clouds.items()} == {"/all/0": 100_000}
        assert (clouds["/all/0"].colors == (10, 20, 250)).all()
        viewer.show_object(0, False)
        assert viewer.drawn == 0
        assert not any(each.visible for name, each in handles(viewer).items() if name in ("/all/0", "/few/0"))
    finally:
        viewer.stop()


def handles(viewer: CloudViewer) -> dict[str, Any]:
    return dict(viewer.server.scene._handle_from_node_name)


def wait_for(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def test_upright_turns_minus_y_up() -> None:
    level = np.eye(4)[None]
    upright = upright_from_world(level)
    np.testing.assert_allclose(upright @ (0, -1, 0), (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(upright @ (0, 0, 1), (0, 1, 0), atol=1e-12)  # ahead
    assert np.linalg.det(upright) == pytest.approx(1)
    down = np.eye(4)[None].copy()
    down[0, :3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # its up is along its own z of the world: still a rotation
    assert np.linalg.det(upright_from_world(down)) == pytest.approx(1)


def test_the_interactive_viewer_draws_in_a_browser() -> None:
    complaints: list[str] = []
    viewer = CloudViewer(cloud(10_000), "127.0.0.1", 0, 20_000)
    try:
        assert viewer.url.startswith("http://127.0.0.1:")
        assert viewer.drawn == 10_000
        with open_page(viewer.url, complaints) as page:
            page.get_by_text("hide least sure").wait_for(timeout=60_000)
            wait_until(lambda: share(page, (220, 20, 20), 40) > 0.005, page)
            viewer.hide_below(0.5)  # the table's points are all less sure
            assert viewer.drawn == 5_000
            legend = page.locator("div[style*='height:4px'],div[style*='height: 4px']")
            backgrounds = "all => all.map(one => getComputedStyle(one).backgroundColor)"
            segments = [f"rgb{tuple(segment_colors(np.array(number)).tolist())}" for number in (1, 2)]
            assert legend.evaluate_all(backgrounds) == segments
            assert page.get_by_text("surest").count() == 0
            viewer.color_by("classes")
            wait_until(lambda: legend.evaluate_all(backgrounds) == ["rgb(10, 20, 250)", "rgb(250, 240, 10)"], page)
            viewer.color_by("confidence")
            page.get_by_text("surest").wait_for()
    finally:
        viewer.stop()


def wait_until(condition: Any, page: Any, seconds: float = 40) -> None:
    for _ in range(int(seconds * 4)):
        if condition():
            return
        page.wait_for_timeout(250)
    raise AssertionError("it did not come true in time")


@pytest.mark.parametrize(("host", "port", "told"), [("127.0.0.1", 99_999, "--port"), ("203.0.113.1", 0, "--host")])
def test_an_address_nothing_can_listen_at_is_told(host: str, port: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        CloudViewer(cloud(100), host, port, 100)
