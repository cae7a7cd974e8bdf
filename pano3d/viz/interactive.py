"""A cloud in viser: a page served on this machine, with colours, objects, confidence and cameras to switch.

A browser without a graphics card draws about half a million points a second, so there are two levels of detail: what
moves or changes is shown by few, large points, and all points come when the view has rested. Positions travel as 16-bit
floats in units of the scene, a change of colour as colours alone.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.types import ConfigError
from pano3d.viz.cloud import CloudSegment, SceneCloud
from pano3d.viz.colors import scale_colors

MODES = ("image", "classes", "segments", "confidence")
MOVING_POINTS = 50_000
"""Drawn while the view turns: about 100 ms a frame where the processor draws them (SwiftShader, two cores)."""
REST_SECONDS = 2.0
"""How long the view stands still before all points are shown: longer than a few frames with all of them take, or those
still on their way would look like rest."""
ARRIVAL_SECONDS = 5.0
"""The same for a page that has just been opened: its first picture must not wait for all points."""
SCENE_SIZE = 4.0
"""Diagonal of the inner part of the scene, in the viewer's units: 16-bit floats and its clipping plane suit a room."""


class CloudViewer:
    """One cloud on a viser server. `url` is where it is seen.

    Raises:
        ConfigError: the viewer's packages are missing, or nothing can listen at the address. Where only the port is
            taken, viser takes the next free one.
    """

    def __init__(self, cloud: SceneCloud, host: str, port: int, maximum_points: int) -> None:
        try:
            import viser
        except ImportError as error:
            raise ConfigError("the viewer needs viser; run `pip install 'pano3d[viewer]'`") from error
        low, high = np.percentile(cloud.points, [3, 97], axis=0)
        self._middle, self._scale = (low + high) / 2, SCENE_SIZE / max(float(np.linalg.norm(high - low)), 1e-12)
        self._lock, self._thins = threading.RLock(), True
        _check_address(host, port)
        self.server: Any = viser.ViserServer(host=host, port=port, label=cloud.name, verbose=False)
        self.url = f"http://{host}:{self.server.get_port()}"
        scene = self.server.scene
        scene.set_up_direction("+z")
        camera = self.server.initial_camera
        camera.position, camera.look_at = tuple(SCENE_SIZE * np.array([-0.5, -0.6, 0.5])), (0.0, 0.0, 0.0)
        self._all = self._level("all", cloud, maximum_points)
        has_more = len(self._all.points) > MOVING_POINTS
        self._few = self._level("few", cloud, MOVING_POINTS) if has_more else self._all
        self._few.show()
        self._add_frusta(cloud)
        self._add_controls(cloud)
        if has_more:
            self._rest = _Rest(self._show_all)
            self.server.on_client_connect(self._welcome)
            self.server.on_client_disconnect(self._leave)

    def _level(self, name: str, cloud: SceneCloud, maximum: int) -> _Level:
        shown = np.linspace(0, len(cloud.points) - 1, min(len(cloud.points), maximum)).astype(np.int64)
        points = (cloud.points[shown] - self._middle) * self._scale
        # As large as fills the surfaces: the fewer, the larger.
        size = 0.002 * SCENE_SIZE * min(4.0, max(1.0, float(np.sqrt(300_000 / len(shown)))))
        return _Level(self.server.scene, name, points.astype(np.float32), cloud, shown, size)

    def _welcome(self, client: Any) -> None:
        """A page was opened: few points first, and again whenever its camera moves."""
        self._show_few(ARRIVAL_SECONDS)

        @client.camera.on_update
        def _(_: Any) -> None:
            self._show_few(REST_SECONDS)

    def _leave(self, _: Any) -> None:
        """A page was closed: the next to be opened must not begin with all points."""
        if not self.server.get_clients():
            self._rest.cancel()
            with self._lock:
                self._few.show()
                self._all.forget()

    def _show_few(self, seconds: float) -> None:
        """Few points until nothing has happened for so long, in every page that is open."""
        if self._few is self._all or not self._thins:
            return
        with self._lock:
            self._few.show()
            self._all.hide()
        self._rest.wait(seconds)

    def _show_all(self) -> None:
        with self._lock:
            self._all.show()
            self._few.hide()

    def _add_frusta(self, cloud: SceneCloud) -> None:
        self._frusta: Any = None
        if cloud.frusta is None:
            return
        order = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)]
        corners = (cloud.frusta - self._middle) * self._scale
        lines = np.stack([corners[:, list(pair)] for pair in order], axis=1).reshape(-1, 2, 3).astype(np.float32)
        self._frusta = self.server.scene.add_line_segments("/cameras", lines, colors=(255, 150, 40), line_width=2.0)

    def _add_controls(self, cloud: SceneCloud) -> None:
        gui = self.server.gui
        mode = gui.add_dropdown("colour", MODES, initial_value=MODES[0])
        least = gui.add_slider("hide least sure", min=0.0, max=0.99, step=0.01, initial_value=0.0)

        @mode.on_update
        def _(_: Any) -> None:
            self.color_by(mode.value)

        @least.on_update
        def _(_: Any) -> None:
            self.hide_below(least.value)

        if self._frusta is not None:
            cameras = gui.add_checkbox("cameras", initial_value=True)

            @cameras.on_update
            def _(_: Any) -> None:
                self._frusta.visible = cameras.value

        self._ramp = gui.add_html(_ramp(), visible=False)
        self._legend: list[tuple[Any, CloudSegment]] = []
        if self._few is not self._all:
            thins = gui.add_checkbox(
                "fewer points while turning", initial_value=True, hint="not needed with a graphics card"
            )

            @thins.on_update
            def _(_: Any) -> None:
                self._thins = thins.value
                self._show_all()

        with gui.add_folder("objects"):
            for index, segment in enumerate(cloud.segments):
                self._add_object(index, segment)

    def _add_object(self, index: int, segment: CloudSegment) -> None:
        gui = self.server.gui
        box = gui.add_checkbox(segment.name, initial_value=True)
        self._legend.append((gui.add_html(_bar(f"rgb{segment.color}")), segment))

        @box.on_update
        def _(_: Any) -> None:
            self.show_object(index, box.value)

    def show_object(self, index: int, is_shown: bool) -> None:
        """Show or hide one object."""
        with self._lock:
            for level in {self._few, self._all}:
                level.show_object(index, is_shown)

    def color_by(self, mode: str) -> None:
        """Colour all points by one of MODES, and the legend with them."""
        self._ramp.visible = mode == "confidence"
        for bar, segment in self._legend:
            bar.content = _bar(f"rgb{segment.class_color if mode == 'classes' else segment.color}")
        self._change(lambda level: level.color_by(mode))

    def hide_below(self, rank: float) -> None:
        """Hide points whose confidence rank is below."""
        self._change(lambda level: level.hide_below(rank))

    def _change(self, change: Callable[[_Level], None]) -> None:
        with self._lock:
            for level in {self._few, self._all}:
                change(level)
        self._show_few(REST_SECONDS)

    @property
    def shows_all(self) -> bool:
        """Whether all points are there to see, not a few that stand for them."""
        with self._lock:
            return self._all.is_shown

    @property
    def drawn(self) -> int:
        """Points of the objects that are shown, when the view rests."""
        with self._lock:
            return self._all.count

    def stop(self) -> None:
        if self._few is not self._all:
            self._rest.stop()
        self.server.stop()


class _Level:
    """All objects at one density: a node of the scene with one cloud per object, hidden at first. Nothing is sent of
    it while it is hidden; what was changed then is sent when it is shown."""

    def __init__(
        self,
        scene: Any,
        name: str,
        points: NDArray[np.float32],
        cloud: SceneCloud,
        shown: NDArray[np.int64],
        size: float,
    ) -> None:
        self.points = points
        self._scene, self._name, self._size = scene, name, size
        self._root = scene.add_frame(f"/{name}", show_axes=False, visible=False)
        self._segment, self._confidence = cloud.segment[shown], cloud.confidence[shown]
        self._colors = _colors(cloud, shown)
        self._mode, self._least, self.is_shown = MODES[0], 0.0, False
        self._visible = dict.fromkeys(range(len(cloud.segments)), True)
        self._clouds: dict[int, Any] = {}
        self._drawn: tuple[str, float] | None = None

    def show(self) -> None:
        if not self.is_shown:
            self.is_shown = True
            self._draw_changes()
            self._root.visible = True

    def hide(self) -> None:
        if self.is_shown:
            self.is_shown = self._root.visible = False

    def forget(self) -> None:
        """Hide it and take its points back from the pages."""
        self.hide()
        for cloud in self._clouds.values():
            cloud.remove()
        self._clouds, self._drawn = {}, None

    def show_object(self, index: int, is_shown: bool) -> None:
        self._visible[index] = is_shown
        if index in self._clouds:
            self._clouds[index].visible = is_shown

    def color_by(self, mode: str) -> None:
        self._mode = mode
        self._draw_changes()

    def hide_below(self, rank: float) -> None:
        self._least = rank
        self._draw_changes()

    def _draw_changes(self) -> None:
        if not self.is_shown:
            return
        if self._drawn is None or self._drawn[1] != self._least:
            self._draw()
        elif self._drawn[0] != self._mode:
            for index, cloud in self._clouds.items():
                cloud.colors = self._colors[self._mode][self._is_mine(index)]
        self._drawn = self._mode, self._least

    def _is_mine(self, index: int) -> NDArray[np.bool_]:
        return (self._segment == index) & (self._confidence >= self._least)

    def _draw(self) -> None:
        """Every object's points again, in the colours and above the confidence that are chosen."""
        for index in self._visible:
            mine = self._is_mine(index)
            old = self._clouds.pop(index, None)
            if old is not None and not mine.any():
                old.remove()
            if mine.any():
                self._clouds[index] = self._scene.add_point_cloud(
                    f"/{self._name}/{index}",
                    self.points[mine],
                    self._colors[self._mode][mine],
                    point_size=self._size,
                    point_shading="flat",
                    visible=self._visible[index],
                )

    @property
    def count(self) -> int:
        """Points of the objects that are shown, drawn or to be drawn."""
        visible = np.array([self._visible[index] for index in range(len(self._visible))])
        return int((visible[self._segment] & (self._confidence >= self._least)).sum())


class _Rest:
    """Calls once when nothing has happened for as long as was last asked for."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call, self._due, self._is_stopped = call, 0.0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Call after so long, not before what was asked for earlier, unless asked again."""
        with self._changed:
            self._due = max(self._due, time.monotonic() + seconds)
            self._changed.notify()

    def cancel(self) -> None:
        """Do not call, unless asked again."""
        with self._changed:
            self._due = 0.0

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_stopped and (not self._due or time.monotonic() < self._due):
                    self._changed.wait(self._due - time.monotonic() if self._due else None)
                if self._is_stopped:
                    return
                self._due = 0.0
            self._call()


def _check_address(host: str, port: int) -> None:
    """viser binds in a thread of its own and waits for ever when that fails, so try the address here first."""
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port: expected 0 to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        raise ConfigError(f"--host: cannot listen on {host}: {error}; 127.0.0.1 is this machine alone") from error


def _bar(color: str) -> str:
    return f'<div style="height:4px;margin:0 1em;background:{color}"></div>'


def _ramp() -> str:
    """What the colours of confidence mean."""
    stops = ",".join(f"rgb{tuple(color)}" for color in scale_colors(np.linspace(0, 1, 9)).tolist())
    ends = '<div style="display:flex;justify-content:space-between"><span>least sure</span><span>surest</span></div>'
    ramp = f'<div style="height:8px;background:linear-gradient(90deg,{stops})"></div>'
    return f'<div style="margin:0 1em;font-size:0.8em">{ramp}{ends}</div>'


def _colors(cloud: SceneCloud, shown: NDArray[np.int64]) -> dict[str, NDArray[np.uint8]]:
    of_class = np.array([segment.class_color for segment in cloud.segments], np.uint8)
    of_segment = np.array([segment.color for segment in cloud.segments], np.uint8)
    segment = cloud.segment[shown]
    ranks = scale_colors(cloud.confidence[shown])
    values = (cloud.colors[shown], of_class[segment], of_segment[segment], ranks)
    return dict(zip(MODES, values, strict=True))
