"""CPU seconds per frame of the generated rooms, and the picture of the README.

    python -m benchmarks.rooms [--quality fast default fine] [--rooms 6] [--frames 10] [--picture docs/rooms.png]

Counts processor time of one thread over whole rooms: building, lighting, choosing the path, photographing, and
sampling the surface; imports and the noise volume are made before. `fine` is measured at 224x168, the others at 128x96.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cases import ON_CPU, Case, Growth, Work, require, require_same
from pano3d.data.archive import SceneContent
from pano3d.data.label_spaces import label_space
from pano3d.data.rooms import QUALITIES, RoomsConfig, SplitSizes, generate_scene
from pano3d.data.rooms.config import QualityName
from pano3d.data.rooms.layout import ROOM_KINDS
from pano3d.viz.contact_sheet import contact_sheet, dataset_columns, encode_png


def rooms_config(quality: QualityName, frames: int, width: int) -> RoomsConfig:
    """Rooms of one size for all splits."""
    return RoomsConfig(SplitSizes(6, 6, 6), SplitSizes(frames, frames, frames), width, width * 3 // 4, quality, 0.04)


def seconds_per_frame(quality: QualityName, rooms: int, frames: int) -> list[float]:
    """Processor seconds per frame of each room."""
    config = rooms_config(quality, frames, 224 if quality == "fine" else 128)
    generate_scene(rooms_config("fast", 1, 32), 0, "train", 3)
    costs = []
    for index in range(rooms):
        start = time.process_time()
        generate_scene(config, 0, "train", index)
        costs.append((time.process_time() - start) / frames)
    return costs


def prepare(quality: QualityName, rooms: int, frames: int, device: str) -> Work:
    """Whole rooms of different kinds; what happens once per process has happened."""
    settings = rooms_config(quality, frames, 224 if quality == "fine" else 128)
    generate_scene(rooms_config("fast", 1, 32), 0, "train", 3)

    def generate() -> list[SceneContent]:
        return [generate_scene(settings, 0, "train", index) for index in range(rooms)]

    def check(scenes: list[SceneContent], _: None) -> None:
        again = generate_scene(settings, 0, "train", 0)
        known = [0, *(segment.id for segment in scenes[0].segments)]
        for first, second in zip(scenes[0].frames, again.frames):
            require_same("depth of a room made twice", first.depth_mm, second.depth_mm)
            require_same("ids of a room made twice", first.segment_id, second.segment_id)
            require(bool(np.isin(first.segment_id, known).all()), "a pixel belongs to a segment that is not listed")

    return Work(generate, check, units=rooms * frames)


def prepare_growth(over: str, number: int, device: str) -> Callable[[], object]:
    """`number` rooms of 2 frames, or one room of `number` frames."""
    rooms, frames = (number, 2) if over == "scenes" else (1, number)
    return prepare("fast", rooms, frames, device).ours


def cases(full: bool) -> list[Case | Growth]:
    promised: dict[QualityName, float | None] = {"fast": 0.03}
    counts: dict[str, tuple[int, ...]] = {}
    if full:
        promised |= {"default": 0.15, "fine": None}
        counts = {"scenes": (1, 2, 4, 8), "frames": (1, 5, 10, 20, 50)}
    return [
        *(
            Case(
                f"rooms {quality}",
                partial(prepare, quality, len(ROOM_KINDS), 10),
                unit="frame",
                devices=ON_CPU,
                clock="cpu",
                limit=limit,
                counts=False,
            )
            for quality, limit in promised.items()
        ),
        *(
            Growth("rooms fast", over, sizes, partial(prepare_growth, over), devices=ON_CPU)
            for over, sizes in counts.items()
        ),
    ]


def draw_picture(path: Path) -> None:
    """One frame of each kind of room, as photo, depth, segments, classes and ambiguous pixels."""
    space = label_space("scannet20")
    names = space.names
    frames, classes = [], []
    for index in range(6):
        scene = generate_scene(rooms_config("fine", 8, 176), 0, "train", index)
        frame = max(scene.frames, key=lambda f: len(np.unique(f.segment_id)))
        table = np.full(65536, -1)
        for segment in scene.segments:
            if segment.class_name is not None:
                table[segment.id] = names.index(segment.class_name)
        frames.append(frame)
        classes.append(table[frame.segment_id])
    columns = dataset_columns(
        np.stack([f.color for f in frames]),
        np.stack([f.depth_mm for f in frames]) / 1000,
        np.stack([f.segment_id for f in frames]),
        np.stack(classes),
        np.stack([f.ambiguous if f.ambiguous is not None else np.zeros(f.segment_id.shape, bool) for f in frames]),
        space.palette,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(contact_sheet(columns, tile_width=176)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", nargs="*", default=list(QUALITIES), choices=list(QUALITIES))
    parser.add_argument("--rooms", type=int, default=6)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    for quality in arguments.quality:
        costs = seconds_per_frame(quality, arguments.rooms, arguments.frames)
        print(f"{quality:8s} {np.mean(costs):.3f} CPU s per frame, worst room {max(costs):.3f}")
    if arguments.picture is not None:
        draw_picture(arguments.picture)


if __name__ == "__main__":
    main()
