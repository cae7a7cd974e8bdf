"""Frames brought to a network's image size, with their cameras, and a cache of decoded ones."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.archive import Frame, SceneArchive, read_scene


def fit_frame(frame: Frame, width: int, height: int) -> Frame:
    """Crop about the image centre to the aspect ratio wanted, then resize; pixels stay square, the camera follows.

    Colour is filtered; depth, ids and masks are sampled at the nearest pixel and never averaged.
    """
    rows, columns = frame.segment_id.shape
    if (columns, rows) == (width, height):
        return frame
    scale = max(width / columns, height / rows)
    crop_width, crop_height = min(columns, round(width / scale)), min(rows, round(height / scale))
    left, top = (columns - crop_width) // 2, (rows - crop_height) // 2
    scale_x, scale_y = width / crop_width, height / crop_height
    intrinsics = frame.intrinsics.copy()
    # Pixel centres are integers: the image's edge lies at -0.5, and it is edges that scale.
    intrinsics[0] *= scale_x
    intrinsics[1] *= scale_y
    intrinsics[0, 2] = (frame.intrinsics[0, 2] - left + 0.5) * scale_x - 0.5
    intrinsics[1, 2] = (frame.intrinsics[1, 2] - top + 0.5) * scale_y - 0.5

    def crop(image: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(image[top : top + crop_height, left : left + crop_width])

    columns_at = np.minimum(((np.arange(width) + 0.5) / scale_x).astype(int), crop_width - 1)
    rows_at = np.minimum(((np.arange(height) + 0.5) / scale_y).astype(int), crop_height - 1)

    def nearest(image: NDArray[Any] | None) -> Any:
        return None if image is None else crop(image)[rows_at[:, None], columns_at[None, :]]

    interpolation = cv2.INTER_AREA if scale_x < 1 else cv2.INTER_LINEAR
    return replace(
        frame,
        color=cv2.resize(crop(frame.color), (width, height), interpolation=interpolation),
        depth_mm=nearest(frame.depth_mm),
        segment_id=nearest(frame.segment_id),
        intrinsics=intrinsics,
        depth_exact_mm=nearest(frame.depth_exact_mm),
        ambiguous=nearest(frame.ambiguous),
        shadow=nearest(frame.shadow),
    )


BYTES_PER_PIXEL = 7
"""Of a cached frame: three of colour, two each of depth and segment id."""


class FrameCache:
    """Decoded frames at network size, least recently used first out once `budget_bytes` is reached."""

    def __init__(self, paths: list[Path], width: int, height: int, budget_bytes: int):
        self._scenes: list[SceneArchive] = [read_scene(path) for path in paths]
        self._size = (width, height)
        self._budget = budget_bytes
        self._used = 0
        self._frames: OrderedDict[tuple[int, int], Frame] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scenes)

    def scene(self, index: int) -> SceneArchive:
        return self._scenes[index]

    def frame(self, scene: int, view: int) -> Frame:
        """Colour, sensor depth and ids of one frame; the layers that only evaluation reads are left out."""
        key = (scene, view)
        if key in self._frames:
            self._frames.move_to_end(key)
            return self._frames[key]
        archive = self._scenes[scene]
        meta = archive.frames[view]
        frame = fit_frame(
            Frame(
                name=meta.name,
                color=archive.color(view),
                depth_mm=archive.depth_mm(view),
                segment_id=archive.segment_id(view),
                intrinsics=meta.intrinsics,
                scan_from_camera=meta.scan_from_camera,
            ),
            *self._size,
        )
        self._frames[key] = frame
        self._used += _bytes(frame)
        while self._used > self._budget and len(self._frames) > 1:
            _, oldest = self._frames.popitem(last=False)
            self._used -= _bytes(oldest)
        return frame


def _bytes(frame: Frame) -> int:
    return frame.color.nbytes + frame.depth_mm.nbytes + frame.segment_id.nbytes
