"""Training batches from scene archives: with decoded frames in memory against decoding every time, and over scenes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.cases import ON_CPU, Case, Growth, Work, require_same
from benchmarks.rooms import rooms_config
from pano3d import config
from pano3d.data.archive import read_scene, write_scene
from pano3d.data.batches import TrainingSteps
from pano3d.data.frames import fit_frame
from pano3d.data.rooms import generate_scene
from pano3d.stages.joint_finetune import JointFinetuneConfig
from pano3d.types import Batch

PARAMS = Path(__file__).parents[1] / "params"
FRAMES, STEPS = 10, 8


def cases(full: bool) -> list[Case | Growth]:
    sizes = (4, 16, 64, 256) if full else (4, 16, 64)
    return [
        Case("training batch of 8 views", prepare, unit="batch", devices=ON_CPU, counts=False),
        Case("frame of an archive", prepare_frame, unit="frame", devices=ON_CPU, counts=False),
        Growth("opening archives", "scenes", sizes, prepare_opening, devices=ON_CPU),
    ]


def prepare(device: str) -> Work:
    """The same 8 steps again and again, as augmentation draws them: all frames cached, and none (the twin)."""
    paths = archives(4)
    loader = config.load(config.compose(PARAMS, []), JointFinetuneConfig, "joint_finetune").training.loader
    cached = TrainingSteps(paths, loader, seed=0)
    uncached = TrainingSteps(paths, replace(loader, cache_gib=0.0), seed=0)
    for step in range(STEPS):
        _ = cached[step]

    def check(ours: list[Batch], plain: list[Batch]) -> None:
        for a, b in zip(ours, plain, strict=True):
            require_same("images", a.views.images, b.views.images)
            require_same("depth", a.geometry.depth, b.geometry.depth)
            require_same("segments", a.panoptic.segment_index, b.panoptic.segment_index)

    return Work(partial(_steps, cached), check, partial(_steps, uncached), units=STEPS)


def _steps(steps: TrainingSteps) -> list[Batch]:
    return [steps[step] for step in range(STEPS)]


def prepare_frame(device: str) -> Work:
    """Reading, decoding and fitting the frames of one archive, for Pi3's image size."""
    scene = read_scene(archives(1)[0])
    content = generate_scene(rooms_config("fast", FRAMES, 128), 0, "train", 0)

    def read() -> list[object]:
        return [fit_frame(scene.frame(index), 126, 98) for index in range(FRAMES)]

    def check(frames: list[object], _: None) -> None:
        for index, frame in enumerate(content.frames):
            require_same("colours read back", scene.color(index), frame.color)
            require_same("depth read back", scene.depth_mm(index), frame.depth_mm)

    return Work(read, check, units=FRAMES)


def prepare_opening(number: int, device: str) -> Callable[[], object]:
    """Opening `number` archives, and the first batch from them."""
    paths = archives(number)
    loader = config.load(config.compose(PARAMS, []), JointFinetuneConfig, "joint_finetune").training.loader
    steps = count()
    return lambda: TrainingSteps(paths, loader, seed=0)[next(steps)]


def archives(number: int) -> list[Path]:
    """So many archives, copies of two rooms, in the folder that goes with the measured process."""
    folder = Path(tempfile.mkdtemp())
    paths = [folder / f"room-{index}.zip" for index in range(number)]
    for index, path in enumerate(paths):
        if index < 2:
            write_scene(path, generate_scene(rooms_config("fast", FRAMES, 128), 0, "train", index))
        else:
            shutil.copyfile(paths[index % 2], path)
    return paths
