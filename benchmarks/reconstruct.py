"""End to end: photos to a labelled scene by the released models, in a running program and as a command."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cases import ON_CPU, Case, Growth, Work, require, require_same
from benchmarks.rooms import rooms_config
from pano3d import load
from pano3d.data.archive import write_scene
from pano3d.data.frames import fit_frame
from pano3d.data.rooms import generate_scene
from pano3d.reconstruction import Reconstructor
from pano3d.types import PanopticScene

ROOT = Path(__file__).parents[1]
VIEWS, WIDTH = 8, 224  # photos as the larger of the models see them


def cases(full: bool) -> list[Case | Growth]:
    views = (1, 2, 5, 10, 20, 50) if full else (1, 5, 20)
    # Two more seconds of every call go to imports, which `startup` measures.
    command = Case(f"pano3d reconstruct {VIEWS} views", prepare_command, devices=ON_CPU, counts=False, has_memory=False)
    return [
        *(
            Case(f"reconstruct {name} {VIEWS} views", partial(prepare, name), unit="view")
            for name in ("must3r_small", "pi3_small", "must3r_tiny", "pi3_tiny")
        ),
        *([command] if full else []),
        Growth("reconstruct must3r_small", "views", views, prepare_growth),
    ]


def prepare(name: str, device: str) -> Work:
    """The model is loaded, the photos are decoded."""
    reconstructor = load(ROOT / f"weights/{name}_joint", device)
    images = photos(reconstructor, VIEWS)

    def check(scene: PanopticScene, _: None) -> None:
        require(bool(np.isfinite(scene.points_world).all()), "points that are not finite")
        require(len(scene.segments) > 1, f"{len(scene.segments)} segments in a furnished room; expected several")
        again = reconstructor.reconstruct(images)
        if device == "cpu":
            require_same("segments of the same photos again", scene.segment_id, again.segment_id)

    return Work(lambda: reconstructor.reconstruct(images), check, units=VIEWS)


def prepare_growth(views: int, device: str) -> Callable[[], PanopticScene]:
    reconstructor = load(ROOT / "weights/must3r_small_joint", device)
    return partial(reconstructor.reconstruct, photos(reconstructor, views))


def photos(reconstructor: Reconstructor, views: int) -> np.ndarray:
    """(V H W 3) of one generated room."""
    room = generate_scene(rooms_config("fast", views, WIDTH), 0, "test", 0)
    size = reconstructor.image_width, reconstructor.image_height
    return np.stack([fit_frame(frame, *size).color for frame in room.frames])


def prepare_command(device: str) -> Work:
    """From the shell: imports, weights, photos from an archive, network, every file of the result."""
    folder = Path(tempfile.mkdtemp())
    archive = folder / "room.zip"
    write_scene(archive, generate_scene(rooms_config("fast", VIEWS, WIDTH), 0, "test", 0))
    words = [sys.executable, "-m", "pano3d", "reconstruct", str(archive), "-o", str(folder / "out")]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)

    def check(done: subprocess.CompletedProcess[str], _: None) -> None:
        require(done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-300:]}")
        require((folder / "out/scene.ply").is_file(), f"no scene.ply among {sorted(x.name for x in folder.rglob('*'))}")

    return Work(run, check)
