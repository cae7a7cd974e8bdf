"""Class tables of the benchmarks: dense class ids 0..K-1 in benchmark order, with names, kinds, raw ids and colours."""

from __future__ import annotations

import colorsys
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from pano3d.types import DataError

LABEL_SPACES = ("scannet20", "scannet200", "scannetpp100", "nyu40", "panoptic_lifting21")
_RAW_ID = {
    "scannet20": "nyu40_id",
    "scannet200": "raw_id",
    "scannetpp100": "id",
    "nyu40": "nyu40_id",
    "panoptic_lifting21": "id",
}


@dataclass(frozen=True)
class LabelSpace:
    """K classes; the index into each tuple is the class id in memory.

    raw_ids: what the dataset's own label files call the class.
    palette: RGB, 0 to 255.
    groups: named subsets of class ids, such as ScanNet200's head, common and tail.
    """

    name: str
    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    raw_ids: tuple[int, ...]
    palette: tuple[tuple[int, int, int], ...]
    groups: dict[str, tuple[int, ...]]


@cache
def label_space(name: str) -> LabelSpace:
    """The class table called `name`.

    Raises:
        DataError: there is none; the message lists those there are.
    """
    if name not in LABEL_SPACES:
        raise DataError(f"label space {name!r} is unknown; choose one of {', '.join(LABEL_SPACES)}")
    text = (resources.files("pano3d.data") / "classes" / f"{name}.json").read_text(encoding="utf-8")
    classes: list[dict[str, Any]] = json.loads(text)["classes"]
    groups: dict[str, list[int]] = {}
    for index, entry in enumerate(classes):
        if "frequency_split" in entry:
            groups.setdefault(entry["frequency_split"], []).append(index)
    return LabelSpace(
        name=name,
        names=tuple(entry["name"] for entry in classes),
        is_thing=tuple(
            bool(entry.get("is_thing", entry["name"] not in ("wall", "floor", "ceiling"))) for entry in classes
        ),
        raw_ids=tuple(int(entry[_RAW_ID[name]]) for entry in classes),
        palette=tuple(_color(entry, index, len(classes)) for index, entry in enumerate(classes)),
        groups={group: tuple(members) for group, members in groups.items()},
    )


def _color(entry: dict[str, Any], index: int, total: int) -> tuple[int, int, int]:
    if {"r", "g", "b"} <= entry.keys():
        return int(entry["r"]), int(entry["g"]), int(entry["b"])
    red, green, blue = colorsys.hsv_to_rgb(index / total, 0.55, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def scannet_split(name: Literal["train", "val", "test"]) -> tuple[str, ...]:
    """Scenes of an official split of ScanNet v2, which ScanNet200 shares, in the official order."""
    text = (resources.files("pano3d.data") / "classes" / "scannet_v2_splits.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)[name])
