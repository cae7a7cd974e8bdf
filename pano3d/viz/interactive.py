"""A cloud in viser: a page served on this machine, with colours, objects, confidence and cameras to switch."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.types import ConfigError
from pano3d.viz.cloud import SceneCloud
from pano3d.viz.colors import scale_colors

MODES = ("image", "classes", "segments", "confidence")


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
        shown = np.linspace(0, len(cloud.points) - 1, min(len(cloud.points), maximum_points)).astype(np.int64)
        self._points = cloud.points[shown].astype(np.float32)
        self._segment, self._confidence = cloud.segment[shown], cloud.confidence[shown]
        self._colors = _colors(cloud, shown)
        self._mode, self._least = MODES[0], 0.0
        low, high = np.percentile(self._points, [3, 97], axis=0)
        self._size = 0.002 * float(np.linalg.norm(high - low))
        _check_address(host, port)
        self.server: Any = viser.ViserServer(host=host, port=port, label=cloud.name, verbose=False)
        self.url = f"http://{host}:{self.server.get_port()}"
        scene = self.server.scene
        scene.set_up_direction("+z")
        middle, reach = (low + high) / 2, float(np.linalg.norm(high - low))
        camera = self.server.initial_camera
        camera.position, camera.look_at = tuple(middle + reach * np.array([-0.6, -0.7, 0.6])), tuple(middle)
        self._clouds: dict[int, Any] = {}
        self._shown = dict.fromkeys(range(len(cloud.segments)), True)
        self._add_frusta(cloud)
        self._add_controls(cloud)
        for index in range(len(cloud.segments)):
            self._draw(index)

    def _add_frusta(self, cloud: SceneCloud) -> None:
        self._frusta: Any = None
        if cloud.frusta is None:
            return
        order = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)]
        lines = np.stack([cloud.frusta[:, list(pair)] for pair in order], axis=1).reshape(-1, 2, 3).astype(np.float32)
        self._frusta = self.server.scene.add_line_segments("/cameras", lines, colors=(255, 150, 40), line_width=2.0)

    def _add_controls(self, cloud: SceneCloud) -> None:
        gui = self.server.gui
        mode = gui.add_dropdown("colour", MODES, initial_value=self._mode)
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

        with gui.add_folder("objects"):
            for index, segment in enumerate(cloud.segments):
                self._add_object(index, segment.name, segment.color)

    def _add_object(self, index: int, name: str, color: tuple[int, int, int]) -> None:
        gui = self.server.gui
        box = gui.add_checkbox(name, initial_value=True)
        gui.add_html(f'<div style="height:4px;margin:0 1em;background:rgb({color[0]},{color[1]},{color[2]})"></div>')

        @box.on_update
        def _(_: Any) -> None:
            self._shown[index] = box.value
            if index in self._clouds:
                self._clouds[index].visible = box.value

    def color_by(self, mode: str) -> None:
        """Colour all points by one of MODES."""
        self._mode = mode
        self._redraw()

    def hide_below(self, rank: float) -> None:
        """Hide points whose confidence rank is below."""
        self._least = rank
        self._redraw()

    def _redraw(self) -> None:
        for index in self._shown:
            self._draw(index)

    def _draw(self, index: int) -> None:
        """One object's points again, in the colours and above the confidence that are chosen."""
        mine = (self._segment == index) & (self._confidence >= self._least)
        old = self._clouds.pop(index, None)
        if old is not None and not mine.any():
            old.remove()
        if mine.any():
            self._clouds[index] = self.server.scene.add_point_cloud(
                f"/objects/{index}",
                self._points[mine],
                self._colors[self._mode][mine],
                point_size=self._size,
                visible=self._shown[index],
            )

    @property
    def drawn(self) -> int:
        """Points of the objects that are shown."""
        return sum(len(cloud.points) for index, cloud in self._clouds.items() if self._shown[index])

    def stop(self) -> None:
        self.server.stop()


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


def _colors(cloud: SceneCloud, shown: NDArray[np.int64]) -> dict[str, NDArray[np.uint8]]:
    of_class = np.array([segment.class_color for segment in cloud.segments], np.uint8)
    of_segment = np.array([segment.color for segment in cloud.segments], np.uint8)
    segment = cloud.segment[shown]
    ranks = scale_colors(cloud.confidence[shown])
    values = (cloud.colors[shown], of_class[segment], of_segment[segment], ranks)
    return dict(zip(MODES, values, strict=True))
