"""Who is who on a scan's mesh: over-segmentation, objects made of its segments, and their ids in the benchmarks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pano3d.data.json_files import read_json, whole_number, whole_numbers
from pano3d.data.scannet.label_map import LabelIds, LabelMap
from pano3d.types import DataError

_logger = logging.getLogger(__name__)
_NOTHING = LabelIds(0, 0)
_MAX_INSTANCE = 65535  # segment images have 16 bits


@dataclass(frozen=True)
class ScanObject:
    """instance_id: objectId + 1, since ScanNet counts objects from 0 and 0 is to mean none. ids: (0, 0) if unmapped."""

    instance_id: int
    label: str
    ids: LabelIds


@dataclass(frozen=True)
class VertexAnnotation:
    """Per vertex (P,) int64: segments as the file numbers them; instance_id, raw_id and nyu40_id, 0 where none.

    unmapped: labels of objects that the label map does not know; they are void.
    """

    objects: list[ScanObject]
    segments: NDArray[np.int64]
    instance_id: NDArray[np.int64]
    raw_id: NDArray[np.int64]
    nyu40_id: NDArray[np.int64]
    unmapped: tuple[str, ...]


def read_segments(path: Path, num_vertices: int) -> NDArray[np.int64]:
    """Segment id of each vertex, in the file's own numbering, which has gaps.

    Raises:
        DataError: unreadable, or of another mesh.
    """
    segments = whole_numbers(read_json(path).get("segIndices"), f"reading {path}: segIndices")
    if len(segments) != num_vertices:
        raise DataError(
            f"reading {path}: {len(segments)} segment indices for a mesh of {num_vertices} vertices; the two files are "
            "not of one scan, or of its high-resolution mesh"
        )
    return segments


def annotate_vertices(
    aggregation: Path, segments: NDArray[np.int64], label_map: LabelMap, scene: str
) -> VertexAnnotation:
    """Vertex -> segment -> object -> label -> ids.

    A segment that two objects claim goes to the later one in the list. A label that the map does not know leaves its
    object void, with a warning.

    Raises:
        DataError: unreadable, an object names a segment that the mesh does not have, or an object id occurs twice.
    """
    groups = read_json(aggregation).get("segGroups")
    if not isinstance(groups, list):
        raise DataError(f"reading {aggregation}: segGroups: expected a list, found {type(groups).__name__}")
    known, segment_index = np.unique(segments, return_inverse=True)
    owner = np.full(len(known), -1)  # position in `objects` of each segment
    objects: list[ScanObject] = []
    for position, group in enumerate(groups):
        what = f"reading {aggregation}: segGroups[{position}]"
        if not isinstance(group, dict) or not isinstance(group.get("label"), str):
            raise DataError(f"{what}: expected an object with a label")
        instance = whole_number(group.get("objectId", group.get("id")), f"{what}: objectId") + 1
        if instance > _MAX_INSTANCE:
            raise DataError(f"{what}: objectId {instance - 1}; at most {_MAX_INSTANCE - 1} fits a segment image")
        named = whole_numbers(group.get("segments"), f"{what}: segments")
        at = np.minimum(np.searchsorted(known, named), max(len(known) - 1, 0))
        strange = named[known[at] != named] if len(known) else named
        if len(strange):
            raise DataError(f"{what} ({group['label']!r}): segment {int(strange[0])} is not in the segments file")
        owner[at] = len(objects)
        objects.append(ScanObject(instance, group["label"], label_map.by_label.get(group["label"], _NOTHING)))
    twice = len(objects) - len({one.instance_id for one in objects})
    if twice:
        raise DataError(f"reading {aggregation}: {twice} object ids occur more than once")
    unmapped = tuple(sorted({one.label for one in objects} - set(label_map.by_label)))
    if unmapped:
        _logger.warning("%s: labels %s are not in %s; their objects are void", scene, unmapped, label_map.path)
    # The last entry answers for -1, "no object".
    table = np.array([(o.instance_id, o.ids.raw_id, o.ids.nyu40_id) for o in objects] + [(0, 0, 0)], np.int64)
    instance_id, raw_id, nyu40_id = table[owner[segment_index]].T
    return VertexAnnotation(objects, segments, instance_id, raw_id, nyu40_id, unmapped)
