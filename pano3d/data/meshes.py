"""Triangle meshes in PLY files, with every vertex property they carry: scans keep labels in properties of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.types import DataError

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_MAX_HEADER = 65536


@dataclass(frozen=True)
class ScanMesh:
    """vertices (P 3) float32 metres; faces (F 3) int32; colors (P 3) uint8; label (P,) of a `label` property."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colors: NDArray[np.uint8]
    label: NDArray[np.int64] | None = None


@dataclass
class _Element:
    name: str
    count: int
    scalars: list[tuple[str, str]]
    lists: list[tuple[str, str, str]]


def read_ply(path: Path) -> ScanMesh:
    """A triangle mesh; properties other than position, colour, label and vertex_indices are read over.

    Raises:
        DataError: missing, cut, not PLY, not triangles, faces that name no vertex, or positions that are not finite.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"reading {path}: {error.strerror or error}") from error
    form, elements, offset = _header(path, data)
    tables: dict[str, NDArray[Any]] = {}
    rows = data[offset:].split(b"\n") if form == "ascii" else []
    at = 0
    for element in elements:
        dtype = _row_type(path, element, _ORDERS[form])
        if form == "ascii":
            tables[element.name] = _ascii_rows(path, rows[at : at + element.count], element, dtype)
            at += element.count
            continue
        wanted = element.count * dtype.itemsize
        if offset + wanted > len(data):
            raise DataError(
                f"reading {path}: cut: {element.count} rows of element {element.name} need {wanted} bytes, "
                f"{len(data) - offset} are left; copy the file again"
            )
        tables[element.name] = np.frombuffer(data, dtype, element.count, offset)
        offset += wanted
    if "vertex" not in tables:
        raise DataError(f"reading {path}: expected an element vertex, found {[e.name for e in elements]}")
    return _mesh(path, tables)


def _header(path: Path, data: bytes) -> tuple[str, list[_Element], int]:
    end = data.find(b"end_header", 0, _MAX_HEADER)
    line_end = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or line_end < 0:
        raise DataError(f"reading {path}: expected a PLY file, which starts with `ply` and a header; copy it again")
    form, elements = "", list[_Element]()
    for line in data[:end].decode("ascii", "replace").splitlines()[1:]:
        words = line.split()
        try:
            match words:
                case ["format", name, _] if name in _ORDERS:
                    form = name
                case ["element", name, count] if int(count) >= 0:
                    elements.append(_Element(name, int(count), [], []))
                case ["property", "list", counter, item, name]:
                    elements[-1].lists.append((name, _TYPES[counter], _TYPES[item]))
                case ["property", kind, name]:
                    elements[-1].scalars.append((name, _TYPES[kind]))
                case ["comment" | "obj_info", *_] | []:
                    pass
                case _:
                    raise ValueError(line)
        except (ValueError, KeyError, IndexError) as error:
            raise DataError(f"reading {path}: PLY header line {line!r} is not understood") from error
    if not form:
        raise DataError(f"reading {path}: the PLY header names no format")
    return form, elements, line_end + 1


def _row_type(path: Path, element: _Element, order: str) -> np.dtype[Any]:
    """One row as a numpy record. A list must be the triangle of a face, the one list whose length is known."""
    fields: list[Any] = [(name, order + kind) for name, kind in element.scalars]
    if element.lists:
        names = [name for name, _, _ in element.lists]
        if element.name != "face" or len(names) != 1 or names[0] not in ("vertex_indices", "vertex_index"):
            raise DataError(f"reading {path}: element {element.name} has lists {names}; only a face's corners are read")
        if element.scalars:
            raise DataError(f"reading {path}: faces with further properties {element.scalars} are not read")
        _, counter, item = element.lists[0]
        fields = [("corners", order + counter), ("triangle", order + item, (3,))]
    try:
        return np.dtype(fields)
    except ValueError as error:
        raise DataError(f"reading {path}: element {element.name}: {error}") from error


def _ascii_rows(path: Path, rows: list[bytes], element: _Element, dtype: np.dtype[Any]) -> NDArray[Any]:
    width = 4 if element.lists else len(element.scalars)
    try:
        table = np.array([row.split() for row in rows], dtype=np.float64)
    except ValueError as error:
        raise DataError(f"reading {path}: element {element.name}: {error}") from error
    if table.shape != (element.count, width):
        raise DataError(f"reading {path}: element {element.name}: expected {element.count} rows of {width} numbers")
    filled = np.zeros(element.count, dtype)
    if element.lists:
        filled["corners"], filled["triangle"] = table[:, 0], table[:, 1:]
    else:
        for column, (name, _) in enumerate(element.scalars):
            filled[name] = table[:, column]
    return filled


def _mesh(path: Path, tables: dict[str, NDArray[Any]]) -> ScanMesh:
    rows = tables["vertex"]
    names = rows.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise DataError(f"reading {path}: expected vertex properties x, y and z, found {', '.join(names)}")
    vertices = np.stack([rows[axis] for axis in "xyz"], axis=1).astype(np.float32)
    if not np.isfinite(vertices).all():
        first = int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])
        raise DataError(f"reading {path}: vertex {first} is not finite")
    has_color = {"red", "green", "blue"} <= set(names)
    colors = np.zeros((len(rows), 3), np.uint8)
    if has_color:
        colors = np.stack([rows[channel] for channel in ("red", "green", "blue")], axis=1).astype(np.uint8)
    faces = np.zeros((0, 3), np.int32)
    if "face" in tables:
        corners = tables["face"]["corners"]
        if (corners != 3).any():
            raise DataError(f"reading {path}: face {int(np.flatnonzero(corners != 3)[0])} is not a triangle")
        wide = tables["face"]["triangle"].astype(np.int64)
        outside = (wide < 0) | (wide >= len(rows))
        if outside.any():
            raise DataError(f"reading {path}: a face names vertex {int(wide[outside][0])} of {len(rows)}")
        faces = wide.astype(np.int32)
    return ScanMesh(vertices, faces, colors, rows["label"].astype(np.int64) if "label" in names else None)
