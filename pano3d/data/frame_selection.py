"""Which frames of a recording become views of a scene: thousands of frames show the same few walls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.sampling import spread_views
from pano3d.types import ConfigError

_CELL = 0.2  # metres: what "another place" means for coverage
_STRIDE = 8  # pixels between the depth samples that coverage looks at


@dataclass(frozen=True)
class FrameSelection:
    """kind: how frames are chosen among those that can be used.

    every: each `step`-th. sharpest: of each `step` consecutive ones the least blurred. spread: `count`, evenly spaced.
    coverage: of each `step`-th, one after another the frame that shows most places not shown yet, up to `count`, until
    none shows a new one.
    step is not read by spread, count not by every and sharpest.
    """

    kind: Literal["every", "sharpest", "spread", "coverage"]
    step: int
    count: int

    def __post_init__(self) -> None:
        if self.step < 1 or self.count < 1:
            raise ConfigError(f"frames: step is {self.step} and count {self.count}; both must be 1 or more")


def select_frames(
    selection: FrameSelection,
    usable: NDArray[np.int64],
    sharpness: Callable[[int], float],
    places: Callable[[int], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Numbers of the chosen frames, in the recording's order.

    Args:
        usable: numbers of the frames that have a pose, rising.
        sharpness: of a frame, larger = sharper; asked only by `sharpest`.
        places: cells that a frame shows, see `seen_cells`; asked only by `coverage`.
    """
    if not len(usable):
        return usable
    if selection.kind == "spread":
        return usable[spread_views(len(usable), selection.count)]
    if selection.kind == "sharpest":
        window = usable // selection.step
        chosen = [max(usable[window == one].tolist(), key=sharpness) for one in np.unique(window)]
        return np.array(chosen, np.int64)
    every = usable[:: selection.step]
    return every if selection.kind == "every" else _cover(every, places, selection.count)


def _cover(candidates: NDArray[np.int64], places: Callable[[int], NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Greedy cover; of equals the earlier frame."""
    remaining = {int(frame): set(places(int(frame)).tolist()) for frame in candidates}
    chosen: list[int] = []
    while remaining and len(chosen) < count:
        best = max(remaining, key=lambda frame: (len(remaining[frame]), -frame))
        shown = remaining.pop(best)
        if not shown:
            break
        chosen.append(best)
        for cells in remaining.values():
            cells -= shown
    return np.array(sorted(chosen), np.int64)


def laplacian_variance(color: NDArray[np.uint8]) -> float:
    """Sharpness of a picture (H W 3): variance of the Laplacian of its brightness."""
    return float(cv2.Laplacian(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def seen_cells(
    depth: NDArray[np.float64], intrinsics: NDArray[np.float64], scan_from_camera: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Ids of the cubes of 20 cm in which a depth image (H W), metres, 0 missing, has surfaces."""
    v, u = (grid.ravel() for grid in np.mgrid[0 : depth.shape[0] : _STRIDE, 0 : depth.shape[1] : _STRIDE])
    z = depth[v, u]
    u, v, z = u[z > 0], v[z > 0], z[z > 0]
    k = intrinsics
    points = np.stack([(u - k[0, 2]) / k[0, 0] * z, (v - k[1, 2]) / k[1, 1] * z, z], axis=1)
    cells = np.floor((points @ scan_from_camera[:3, :3].T + scan_from_camera[:3, 3]) / _CELL).astype(np.int64)
    # 21 bits an axis: 400 km to either side.
    return np.unique(((cells[:, 0] + 2**20) << 42) + ((cells[:, 1] + 2**20) << 21) + cells[:, 2] + 2**20)
