"""Objects of a ScanNet++ mesh: overlapping sets of vertices with free-text labels, and their benchmark classes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pano3d.data.json_files import read_json, whole_number, whole_numbers
from pano3d.types import DataError

UNLABELLED = -100
"""Class of a vertex outside the benchmark's classes, as its own files have it."""


@dataclass(frozen=True)
class ClassTable:
    """The benchmark's classes from the user's own metadata files.

    names: in the order of their ids. things: those that are counted as instances. semantic_of, instance_of: what
    map_benchmark.csv says of a raw label, None = dropped; labels it does not list keep their name.
    """

    names: tuple[str, ...]
    things: frozenset[str]
    semantic_of: dict[str, str | None]
    instance_of: dict[str, str | None]

    def class_id(self, label: str) -> int | None:
        """Class of an object with a raw label, None where the benchmark has none for it."""
        name = self.semantic_of.get(label, label)
        return self.names.index(name) if name in self.names else None

    def is_crowd(self, label: str) -> bool:
        """Whether the label stands for a group of things in one piece, "books": of a thing's class, but no instance."""
        return self.semantic_of.get(label, label) in self.things and self.instance_of.get(label, label) is None


def class_tables(metadata: Path) -> list[Path]:
    """The files that say what a label is: how raw labels map to classes, the classes, and which of them are things."""
    return [
        metadata / "semantic_benchmark" / name for name in ("map_benchmark.csv", "top100.txt", "top100_instance.txt")
    ]


def read_class_table(metadata: Path) -> ClassTable:
    """Read metadata/semantic_benchmark.

    Raises:
        DataError: a file or a column is missing.
    """
    path, names, things = class_tables(metadata)
    maps: dict[str, dict[str, str | None]] = {"semantic_map_to": {}, "instance_map_to": {}}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            absent = {"class", *maps} - set(reader.fieldnames or [])
            if absent:
                raise DataError(f"reading {path}: no column {', '.join(sorted(absent))}")
            for row in reader:
                for column, table in maps.items():
                    target = (row[column] or "").strip()
                    table[row["class"]] = None if target == "None" else target or row["class"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"reading {path}: {error}") from error
    return ClassTable(
        tuple(read_lines(names)),
        frozenset(read_lines(things)),
        maps["semantic_map_to"],
        maps["instance_map_to"],
    )


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a text file, stripped.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"reading {path}: {error}") from error


def read_ignored_vertices(path: Path, num_vertices: int) -> NDArray[np.int64]:
    """Vertices left out of evaluation; none where the file is empty or was not downloaded.

    Raises:
        DataError: a line is no vertex of the mesh.
    """
    lines = read_lines(path) if path.exists() else []
    indices = np.array([whole_number(line, f"reading {path}") for line in lines], np.int64)
    if len(indices) and indices.max() >= num_vertices:
        raise DataError(f"reading {path}: vertex {int(indices.max())} of a mesh with {num_vertices}")
    return indices


@dataclass(frozen=True)
class MeshObject:
    """One object of the annotation. id: its objectId; vertices: all that it claims."""

    id: int
    label: str
    vertices: NDArray[np.int64]


@dataclass(frozen=True)
class MeshAnnotation:
    """owner: (P,) position in `objects` of the object that each vertex belongs to, -1 none."""

    objects: list[MeshObject]
    owner: NDArray[np.int64]


def read_mesh_annotation(scans: Path, num_vertices: int) -> MeshAnnotation:
    """Objects of the mesh; a vertex that several claim goes to the one with the fewest vertices; of equals, the first.

    Raises:
        DataError: the segments are not one per vertex, an object names a vertex that is not there, or an id occurs
            twice.
    """
    path = scans / "segments.json"
    indices = whole_numbers(read_json(path).get("segIndices"), f"reading {path}: segIndices")
    if not np.array_equal(indices, np.arange(num_vertices)):
        raise DataError(
            f"reading {path}: expected one segment per vertex, 0 to {num_vertices - 1}, found {len(indices)} in "
            "another order or of another mesh"
        )
    path = scans / "segments_anno.json"
    groups = read_json(path).get("segGroups")
    if not isinstance(groups, list):
        raise DataError(f"reading {path}: segGroups: expected a list, found {type(groups).__name__}")
    objects = []
    for position, group in enumerate(groups):
        what = f"reading {path}: segGroups[{position}]"
        if not isinstance(group, dict) or not isinstance(group.get("label"), str):
            raise DataError(f"{what}: expected an object with a label")
        vertices = np.unique(whole_numbers(group.get("segments"), f"{what}: segments"))
        if len(vertices) and vertices[-1] >= num_vertices:
            raise DataError(f"{what} ({group['label']!r}): segment {int(vertices[-1])} is not in the segments file")
        id = whole_number(group.get("objectId", group.get("id")), f"{what}: objectId")
        objects.append(MeshObject(id, group["label"], vertices))
    if len({one.id for one in objects}) != len(objects):
        raise DataError(f"reading {path}: an object id occurs more than once")
    owner = np.full(num_vertices, -1, np.int64)
    # The last to claim a vertex keeps it: large objects first, and of equals the first of the file last.
    for position in sorted(range(len(objects)), key=lambda n: (-len(objects[n].vertices), -n)):
        owner[objects[position].vertices] = position
    return MeshAnnotation(objects, owner)


def vertex_classes(annotation: MeshAnnotation, table: ClassTable) -> NDArray[np.int64]:
    """(P,) class id of each vertex, UNLABELLED where it belongs to none of the classes."""
    classes = [table.class_id(one.label) for one in annotation.objects]
    # The last entry answers for -1, "no object".
    return np.array([UNLABELLED if c is None else c for c in classes] + [UNLABELLED], np.int64)[annotation.owner]


def vertex_objects(annotation: MeshAnnotation) -> NDArray[np.int64]:
    """(P,) objectId of each vertex, 0 where it belongs to none (the dataset counts objects from 1)."""
    return np.array([one.id for one in annotation.objects] + [0], np.int64)[annotation.owner]
