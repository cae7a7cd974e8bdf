"""Photos of a room to a labelled 3D scene, in Python.

    python examples/reconstruct_photos.py PHOTOS OUT [MODEL]

Prints what was found and writes OUT/scene.safetensors (everything, for `PanopticScene.load`) and OUT/scene.ply.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import pano3d
from pano3d.output.labels import write_ply
from pano3d.panoptic.lifting import lift_points


def main(photos: str, output: str, model: str | None = None) -> None:
    """Reconstruct a folder of photos; the small model that comes with pano3d unless another is named."""
    scene = pano3d.load(model).reconstruct(photos)
    views, height, width = scene.depth.shape
    print(f"{views} views of {width}x{height}")

    for segment in scene.segments:
        points = scene.points_world[scene.segment_id == segment.id]
        low, high = np.percentile(points, [2, 98], axis=0)
        extent = ", ".join(f"{side:.2f}" for side in high - low)
        print(f"{segment.id:3} {segment.class_name:16} score {segment.score:.2f}  extent {extent}")

    folder = Path(output)
    scene.save(folder / "scene.safetensors")
    # The surer half of the points; confidence has the backbone's own scale, so a quantile says more than a number.
    write_ply(lift_points(scene, float(np.median(scene.confidence))), folder / "scene.ply")

    again = pano3d.PanopticScene.load(folder / "scene.safetensors")
    assert len(again.segments) == len(scene.segments)


if __name__ == "__main__":
    main(*sys.argv[1:])
