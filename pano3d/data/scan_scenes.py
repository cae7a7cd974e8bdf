"""From what a scan's readers found to a scene archive: the part that ScanNet and ScanNet++ share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.data.archive import Frame, SceneSegment
from pano3d.data.frame_selection import FrameSelection
from pano3d.data.label_spaces import LabelSpace
from pano3d.data.scan_cameras import measure_overlap
from pano3d.types import ConfigError, DataError


@dataclass(frozen=True)
class ViewOptions:
    """How the frames of a scan become views.

    frames: which. max_side: longer side of the archive's images, pixels. depth: of the sensor, or rendered from the
    mesh. depth_tolerance: where sensor and mesh differ by more than this share of the sensor's depth, the mesh was not
    what the camera saw, and the pixel is void. minimum_pixels: smaller segments of a view become void in it.
    merge_stuff: one segment per stuff class and scene; else each annotated piece is one.
    """

    frames: FrameSelection
    max_side: int
    depth: Literal["sensor", "mesh"]
    depth_tolerance: float
    minimum_pixels: int
    merge_stuff: bool

    def __post_init__(self) -> None:
        if self.max_side < 16 or self.minimum_pixels < 0 or not self.depth_tolerance > 0:
            raise ConfigError("views: expected max_side >= 16, minimum_pixels >= 0 and depth_tolerance > 0")


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of the annotation. class_id: in the label space, None where it has no such class."""

    id: int
    class_id: int | None
    source_class: str


def scene_segments(
    objects: Iterable[AnnotatedObject], space: LabelSpace, merge_stuff: bool
) -> tuple[list[SceneSegment], dict[int, int]]:
    """The archive's segments, and the segment of each object id: its own, or that of its stuff class."""
    segments: list[SceneSegment] = []
    segment_of: dict[int, int] = {}
    stuff: dict[int, int] = {}
    for one in objects:
        name = None if one.class_id is None else space.names[one.class_id]
        is_thing = one.class_id is None or space.is_thing[one.class_id]
        if merge_stuff and one.class_id is not None and not is_thing:
            segment_of[one.id] = stuff.setdefault(one.class_id, one.id)
            if stuff[one.class_id] != one.id:
                continue
        else:
            segment_of[one.id] = one.id
        segments.append(SceneSegment(one.id, name, one.source_class, is_thing))
    return segments, segment_of


def id_table(segment_of: dict[int, int]) -> NDArray[np.uint16]:
    """(65536,) object id -> segment id, 0 for ids that are no object."""
    table = np.zeros(65536, np.uint16)
    for object_id, segment in segment_of.items():
        table[object_id] = segment
    return table


@dataclass
class FrameCount:
    """Frames in = frames out + dropped, whatever happens to a frame."""

    total: int
    dropped: Counter[str] = field(default_factory=Counter)

    def plain(self, kept: int, where: str) -> dict[str, Any]:
        """For the archive's provenance.

        Raises:
            DataError: nothing is left, or frames are unaccounted for, which is a fault of the reader.
        """
        if kept + sum(self.dropped.values()) != self.total:
            raise DataError(f"preparing {where}: {self.total} frames in, {kept} out, dropped {dict(self.dropped)}")
        if not kept:
            raise DataError(f"preparing {where}: none of {self.total} frames can be used: {dict(self.dropped)}")
        return {"in": self.total, "out": kept, "dropped": dict(sorted(self.dropped.items()))}


def consistent_labels(
    segment_id: NDArray[np.uint16],
    mesh_depth: NDArray[np.float32],
    sensor_depth: NDArray[np.floating],
    tolerance: float,
) -> NDArray[np.uint16]:
    """Labels where the sensor saw the surface that carries them, or saw nothing; void elsewhere. (H W), metres."""
    disputed = (sensor_depth > 0) & (np.abs(mesh_depth - sensor_depth) > tolerance * sensor_depth)
    return np.where(disputed, 0, segment_id).astype(np.uint16)


def to_millimetres(depth: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Metres, 0 missing; what 16 bits cannot hold is missing too."""
    millimetres = np.rint(depth * 1000.0)
    return np.where((millimetres > 0) & (millimetres < 65536), millimetres, 0).astype(np.uint16)


def overlap_of(frames: list[Frame]) -> NDArray[np.float16]:
    """(V V) measured overlap of the views of one scene, all of one size."""
    return measure_overlap(
        np.stack([frame.depth_mm for frame in frames]),
        np.stack([frame.intrinsics for frame in frames]),
        np.stack([frame.scan_from_camera for frame in frames]),
    )


def tool_version() -> str:
    """The version that a scene's provenance names."""
    try:
        return version("pano3d")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "unknown"
