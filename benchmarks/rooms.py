"""CPU seconds per frame of the generated rooms, and the picture of the README.

    python -m benchmarks.rooms [--quality fast default fine] [--rooms 6] [--frames 10] [--picture docs/rooms.png]

Counts processor time of one thread over whole rooms: building, lighting, choosing the path, photographing, and
sampling the surface; imports and the noise volume are made before. `fine` is measured at 224x168, the others at 128x96.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from pano3d.data.label_spaces import label_space
from pano3d.data.rooms import QUALITIES, RoomsConfig, SplitSizes, generate_scene
from pano3d.viz.contact_sheet import contact_sheet, dataset_columns, encode_png


def rooms_config(quality: str, frames: int, width: int) -> RoomsConfig:
    """Rooms of one size for all splits."""
    return RoomsConfig(SplitSizes(6, 6, 6), SplitSizes(frames, frames, frames), width, width * 3 // 4, quality, 0.04)


def seconds_per_frame(quality: str, rooms: int, frames: int) -> list[float]:
    """Processor seconds per frame of each room."""
    config = rooms_config(quality, frames, 224 if quality == "fine" else 128)
    generate_scene(rooms_config("fast", 1, 32), 0, "train", 3)
    costs = []
    for index in range(rooms):
        start = time.process_time()
        generate_scene(config, 0, "train", index)
        costs.append((time.process_time() - start) / frames)
    return costs


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
