"""Labelled points for the viewer in the browser (assets/viewer.js): what it is given, packed into JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from pano3d.palette import VOID_COLOR, segment_colors
from pano3d.types import VOID, DataError
from pano3d.viz.colors import scale_colors


@dataclass(frozen=True)
class CloudSegment:
    """An object of a cloud: how the legend calls it, and its colours (RGB, 0 to 255)."""

    name: str
    class_name: str
    color: tuple[int, int, int]
    class_color: tuple[int, int, int]


@dataclass(frozen=True)
class SceneCloud:
    """A point cloud to turn around.

    points: (P, 3), z up. colors: (P, 3) uint8. confidence: (P,) rank in [0, 1].
    segment: (P,) index into `segments`. frusta: (V, 5, 3) centre and image corners of cameras.
    """

    name: str
    points: NDArray[np.floating]
    colors: NDArray[np.uint8]
    confidence: NDArray[np.floating]
    segment: NDArray[np.integer]
    segments: tuple[CloudSegment, ...]
    frusta: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        count = len(self.points)
        shapes = [x.shape for x in (self.points, self.colors, self.confidence, self.segment)]
        if shapes != [(count, 3), (count, 3), (count,), (count,)]:
            raise DataError(f"showing cloud {self.name}: points and colours differ in number: {shapes}")
        if not count or not np.isfinite(self.points).all():
            raise DataError(f"showing cloud {self.name}: expected at least one point, all finite")
        if self.segment.min() < 0 or self.segment.max() >= min(len(self.segments), 65536):
            raise DataError(f"showing cloud {self.name}: a point's segment is not among {len(self.segments)} listed")


def list_segments(
    segment_id: NDArray[np.integer],
    class_id: NDArray[np.integer],
    class_names: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    color_id: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.int64], tuple[CloudSegment, ...]]:
    """The segments that points belong to, and each point's index into them.

    Args:
        segment_id, class_id: (P,) 0 and VOID without label; the class of a segment is that of its first point.
        color_id: (P,) ids that choose the colours instead of `segment_id`.
    """
    ids, first, index = np.unique(segment_id, return_index=True, return_inverse=True)
    listed = []
    for number, position in zip(ids.tolist(), first.tolist()):
        of_class, color = int(class_id[position]), (segment_id if color_id is None else color_id)[position]
        name = "unlabelled" if of_class == VOID else class_names[of_class]
        rgb = tuple(segment_colors(np.array(color)).tolist())
        class_color = VOID_COLOR if of_class == VOID else palette[of_class]
        listed.append(CloudSegment(name if number == 0 else f"{name} {number}", name, rgb, class_color))
    return index.reshape(-1), tuple(listed)


def upright_from_world(world_from_camera: Float[np.ndarray, "v 4 4"]) -> NDArray[np.float64]:
    """(3, 3) rotation to z up, if photos are taken upright on average; the first camera then looks along y."""
    up = -world_from_camera[:, :3, 1].mean(0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 1e-6 else np.array([0.0, -1.0, 0.0])
    ahead = world_from_camera[0, :3, 2] - up * (world_from_camera[0, :3, 2] @ up)
    if np.linalg.norm(ahead) < 1e-6:  # it looks straight up or down
        ahead = world_from_camera[0, :3, 0] - up * (world_from_camera[0, :3, 0] @ up)
    ahead /= np.linalg.norm(ahead)
    return np.stack([np.cross(ahead, up), ahead, up])


def viewer(clouds: Sequence[SceneCloud], maximum_points: int, panel: bool = False) -> str:
    """The element that viewer.js brings to life. panel: with a list of objects to show and hide."""
    scenes = json.dumps([pack(cloud, maximum_points) for cloud in clouds], separators=(",", ":"), allow_nan=False)
    label = escape(", ".join(cloud.name for cloud in clouds))
    return (
        f'<div class="viewer"><canvas tabindex="0" aria-label="point cloud of {label}; drag or use the arrow keys to '
        'turn, wheel, pinch or + and - to zoom"></canvas><div></div>'
        + ("<aside></aside>" if panel else "")
        + f'<script type="application/json">{scenes.replace("<", chr(92) + "u003c")}</script></div>'
    )


def pack(cloud: SceneCloud, maximum_points: int) -> dict[str, object]:
    """Positions in 16 bits over the bounding box, colours and ranks in bytes; thinned evenly to `maximum_points`."""
    shown = np.linspace(0, len(cloud.points) - 1, min(len(cloud.points), maximum_points)).astype(np.int64)
    points = cloud.points[shown]
    low, high = points.min(0), points.max(0)
    extent = np.maximum(high - low, 1e-9)
    position = np.rint((points - low) / extent * 65535).astype("<u2")
    # Stray points must not decide what fills the picture.
    inner_low, inner_high = np.percentile(points, [3, 97], axis=0)
    side = np.maximum(inner_high - inner_low, 1e-9)
    ramp = scale_colors(np.arange(256) / 255)
    return {
        "name": cloud.name,
        "low": _plain(low),
        "extent": _plain(extent),
        "center": _plain((inner_low + inner_high) / 2),
        "radius": float(f"{np.linalg.norm(side) / 2:.5g}"),
        # Distance between neighbours if the points were spread over the box's surface: the size of a dot.
        "spacing": float(f"{np.sqrt(2 * (side * np.roll(side, 1)).sum() / len(position)):.4g}"),
        "position": _text(position),
        "image": _text(cloud.colors[shown]),
        "segment": _text(cloud.segment[shown].astype("<u2")),
        "confidence": _text(np.rint(np.clip(cloud.confidence[shown], 0, 1) * 255).astype(np.uint8)),
        "ramp": _text(ramp),
        "segments": [
            {"name": s.name, "class": s.class_name, "color": list(s.color), "class_color": list(s.class_color)}
            for s in cloud.segments
        ],
        "frusta": [] if cloud.frusta is None else [[_plain(corner) for corner in each] for each in cloud.frusta],
    }


def _text(array: NDArray[np.generic]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _plain(numbers: NDArray[np.floating]) -> list[float]:
    return [float(f"{number:.6g}") for number in numbers]
