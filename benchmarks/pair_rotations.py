"""How far off the relative rotation of two photos is, by how much of what they show they share.

    python -m benchmarks.pair_rotations must3r_tiny data/prepared/rooms/test

Every pair of photos of every scene is reconstructed by itself; the share is the smaller of both directions.
"""

from __future__ import annotations

import argparse
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import pano3d
from pano3d.commands.loading import MODEL_HELP
from pano3d.data.frames import FrameCache
from pano3d.metrics.cameras import pair_errors
from pano3d.reconstruction import Reconstructor

BOUNDS = (0.0, 0.3, 0.5, 0.7, 1.01)


def rotation_errors(model: Reconstructor, frames: FrameCache, scene: int) -> list[tuple[float, float]]:
    """(share, error in degrees) of every pair of a scene's photos."""
    archive = frames.scene(scene)
    overlap = archive.overlap.astype(np.float64)
    found = []
    for pair in combinations(range(len(archive.frames)), 2):
        photos = [frames.frame(scene, view) for view in pair]
        scan_from_camera = np.stack([photo.scan_from_camera for photo in photos])
        predicted = model.reconstruct(np.stack([photo.color for photo in photos])).world_from_camera
        error = pair_errors(predicted, scan_from_camera).rotation_deg
        found.append((min(overlap[pair], overlap[pair[::-1]]), float(error.max())))
    return found


def table(errors: NDArray[np.float64]) -> list[str]:
    """A line for each range of shares. errors: (pairs, 2)."""
    lines = [f"{'share':<12}{'pairs':>7}{'median':>9}{'below 15':>10}"]
    for low, high in pairwise(BOUNDS):
        chosen = errors[(errors[:, 0] >= low) & (errors[:, 0] < high), 1]
        if len(chosen):
            below = f"{(chosen < 15).mean():.0%}"
            lines.append(f"{f'from {low:.0%}':<12}{len(chosen):>7}{np.median(chosen):>7.1f}°{below:>10}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("scenes", type=Path, help="folder of scene archives")
    chosen = parser.parse_args()
    paths = sorted(chosen.scenes.glob("*.zip"))
    if not paths:
        parser.error(f"no scene archive in {chosen.scenes}; `dvc repro prepare` makes data/prepared/rooms/test")
    model = pano3d.load(chosen.model)
    frames = FrameCache(paths, model.image_width, model.image_height, 2**30)
    errors = [
        pair for scene in tqdm(range(len(frames)), unit="scene") for pair in rotation_errors(model, frames, scene)
    ]
    print("\n".join(table(np.array(errors))))


if __name__ == "__main__":
    main()
