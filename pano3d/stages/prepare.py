"""prepare: raw dataset or seed to scene archives with a manifest."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from pano3d import config, tracking
from pano3d.data.preparation import SceneTask, prepare_scenes
from pano3d.data.rooms.config import SPLITS, RoomsConfig
from pano3d.data.rooms.generate import generate_scene, scene_names
from pano3d.stages.workspace import work_folder
from pano3d.types import ConfigError


@dataclass(frozen=True)
class RoomsDataset:
    """The generated rooms as a dataset. license: of the pictures and of every model trained on them alone."""

    name: Literal["rooms"]
    label_space: Literal["scannet20"]
    license: str
    generator: RoomsConfig


@dataclass(frozen=True)
class PrepareConfig:
    """workers: processes that make scenes; 0 = one per core."""

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"prepare.workers is {self.workers}; expected 0 (one per core) or more")


def run(params: Path, output: Path) -> None:
    """Write `output`/<split>/<scene>.zip and the manifest.

    A killed run goes on where it stopped: finished scenes wait under work/, keyed by the dataset's parameters, the
    seed and the generator's source.
    """
    settings = config.read(params)
    prepare = config.load(params, PrepareConfig, "prepare")
    dataset = config.load(params, RoomsDataset, "dataset")
    rooms = dataset.generator
    seed = int(settings["seed"])
    tasks = [
        SceneTask(split, name, partial(generate_scene, rooms, seed, split, index))
        for split in SPLITS
        for index, name in enumerate(scene_names(rooms, split))
    ]
    key = config.digest({"dataset": settings["dataset"], "seed": seed, "source": _source_digest()})
    work = work_folder() / "prepare" / key[:16]
    workers = prepare.workers or os.cpu_count() or 1
    frames = sum(rooms.frames.of(task.split) for task in tasks)
    with (
        tracking.run("prepare", settings) as recorder,
        tqdm(total=frames, desc="prepare", unit="frame", mininterval=2.0) as progress,
        # Not forked: the parent runs threads of its own, which a fork would leave half alive.
        ProcessPoolExecutor(workers, mp_context=get_context("forkserver"), initializer=_single_thread) as executor,
    ):
        manifest = prepare_scenes(tasks, work, output, executor, progress.update)
        recorder.log_metrics(
            {
                "scenes": len(manifest),
                "frames": int(manifest["frames"].sum()),
                "gib": float(manifest["bytes"].sum()) / 2**30,
            }
        )
        recorder.log_input(manifest, dataset.name, str(output), config.digest(list(manifest["sha256"])), "prepared")


def _single_thread() -> None:
    """Scenes run side by side: threads inside each would only fight."""
    import cv2

    cv2.setNumThreads(1)


def _source_digest() -> str:
    """Digest of the code that shapes an archive, so that an edit makes new scenes."""
    room = Path(__file__).parents[1] / "data"
    digest = hashlib.sha256()
    for path in sorted([*(room / "rooms").rglob("*.py"), room / "archive.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
