"""Where is the chair? Reads a result of `pano3d reconstruct` and cuts one class out of it.

    python examples/find_object.py RESULT chair

Prints, for each object of the class: where it is, how large, and the photo that shows most of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import pano3d


def main(result: str, class_name: str) -> int:
    """How many objects of the class there are."""
    folder = Path(result)
    scene = pano3d.PanopticScene.load(folder / "scene.safetensors")
    description = json.loads((folder / "reconstruction.json").read_text(encoding="utf-8"))
    names, unit = description["input"]["views"], description["frame"]["unit"]

    found = [segment for segment in scene.segments if segment.class_name == class_name]
    for segment in found:
        mine = scene.segment_id == segment.id  # (V, H, W)
        centre = np.median(scene.points_world[mine], axis=0)
        best = int(mine.sum(axis=(1, 2)).argmax())

        # The same place as the camera of that photo sees it: x right, y down, z forward.
        camera_from_world = np.linalg.inv(scene.world_from_camera[best])
        x, y, z = camera_from_world[:3, :3] @ centre + camera_from_world[:3, 3]
        print(
            f"{class_name} {segment.id}: best seen in {names[best]}, {z:.2f} ahead, {x:+.2f} to the right, "
            f"{y:+.2f} down (unit: {unit})"
        )
    if not found:
        known = sorted({segment.class_name for segment in scene.segments})
        print(f"no {class_name}; found were: {', '.join(known) or 'nothing'}")
    return len(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
