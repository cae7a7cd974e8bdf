"""What `scene.json` must look like: the published schema, and the check that refuses everything else."""

from __future__ import annotations

import math
import re
from typing import Any

from pano3d.types import DataError

FORMAT_VERSION = 1
_FRAME_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")
_SCENE_NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
MASKS = ("ambiguous", "shadow")
"""Optional boolean layers of a frame."""

SCENE_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "pano3d scene archive, scene.json",
    "type": "object",
    "required": ["format_version", "name", "dataset", "label_space", "license", "frames", "segments", "provenance"],
    "properties": {
        "format_version": {"const": FORMAT_VERSION},
        "name": {"type": "string", "pattern": _SCENE_NAME.pattern},
        "dataset": {"type": "string"},
        "label_space": {"type": "string"},
        "license": {"type": "string"},
        "provenance": {"type": "object"},
        "frames": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "color", "width", "height", "intrinsics", "scan_from_camera"],
                "properties": {
                    "name": {"type": "string", "pattern": _FRAME_NAME.pattern},
                    "color": {"enum": ["png", "jpg"]},
                    "width": {"type": "integer", "minimum": 1},
                    "height": {"type": "integer", "minimum": 1},
                    "intrinsics": {"type": "array", "minItems": 3, "maxItems": 3},
                    "scan_from_camera": {"type": "array", "minItems": 4, "maxItems": 4},
                    "layers": {"type": "array", "items": {"enum": ["depth_exact", *MASKS]}},
                },
            },
        },
        "segments": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "class_name", "source_class", "is_thing", "pixels", "views"],
                "properties": {
                    "id": {"type": "integer", "minimum": 1, "maximum": 65535},
                    "class_name": {"type": ["string", "null"]},
                    "source_class": {"type": "string"},
                    "is_thing": {"type": "boolean"},
                    "pixels": {"type": "integer", "minimum": 0},
                    "views": {"type": "integer", "minimum": 0},
                },
            },
        },
    },
}


def check_header(header: Any, where: str) -> None:
    """Refuse a `scene.json` whose fields cannot be trusted by the code behind it."""

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise DataError(f"reading {where}: scene.json: {what}")

    require(isinstance(header, dict), "expected an object")
    missing = [key for key in SCENE_SCHEMA["required"] if key not in header]
    require(not missing, f"missing {missing}")
    version = header["format_version"]
    require(version == FORMAT_VERSION, f"format_version {version!r}, this version reads {FORMAT_VERSION}")
    require(isinstance(header["name"], str) and bool(_SCENE_NAME.fullmatch(header["name"])), f"name {header['name']!r}")
    frames, segments = header["frames"], header["segments"]
    require(isinstance(frames, list) and bool(frames), "expected a non-empty list of frames")
    require(isinstance(segments, list), "expected a list of segments")
    seen: set[str] = set()
    for position, frame in enumerate(frames):
        require(isinstance(frame, dict), f"frame {position}: expected an object")
        name = frame.get("name")
        require(
            isinstance(name, str) and bool(_FRAME_NAME.fullmatch(name)) and ".." not in name, f"frame name {name!r}"
        )
        require(name not in seen, f"frame {name} occurs twice")
        seen.add(name)
        require(frame.get("color") in ("png", "jpg"), f"frame {name}: color format {frame.get('color')!r}")
        size = (frame.get("width"), frame.get("height"))
        require(all(isinstance(s, int) and 0 < s <= 16384 for s in size), f"frame {name}: size {size}")
        layers = frame.get("layers", [])
        require(isinstance(layers, list) and set(layers) <= {"depth_exact", *MASKS}, f"frame {name}: layers {layers}")
        _check_matrix(frame.get("intrinsics"), 3, f"{where}: frame {name}: intrinsics")
        _check_matrix(frame.get("scan_from_camera"), 4, f"{where}: frame {name}: scan_from_camera")
    ids = [segment.get("id") if isinstance(segment, dict) else None for segment in segments]
    require(all(isinstance(i, int) and 0 < i < 65536 for i in ids), "segment ids must be integers in 1..65535")
    require(len(set(ids)) == len(ids), "a segment id occurs twice")
    for segment in segments:
        absent = {"class_name", "source_class", "is_thing", "pixels", "views"} - set(segment)
        require(not absent, f"segment {segment['id']}: missing {sorted(absent)}")
        require(isinstance(segment["class_name"], str | None), f"segment {segment['id']}: class_name is not text")


def _check_matrix(value: Any, size: int, what: str) -> None:
    rows = value if isinstance(value, list) else []
    numbers = [x for row in rows if isinstance(row, list) for x in row]
    finite = all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in numbers)
    if len(rows) != size or len(numbers) != size * size or not finite:
        raise DataError(f"reading {what}: expected a finite {size}x{size} matrix")
