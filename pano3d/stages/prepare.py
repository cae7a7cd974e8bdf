"""prepare: raw dataset or seed to scene archives with a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from pano3d import config, tracking
from pano3d.data.archive import read_scene
from pano3d.data.datasets import Dataset, RoomsDataset, ScanDataset, raw_dataset
from pano3d.data.preparation import SceneTask, prepare_scenes
from pano3d.data.raw_files import Fingerprint, build_known, read_fingerprint, require_known_tables, stamp
from pano3d.data.rooms.config import SPLITS
from pano3d.data.rooms.generate import generate_scene, scene_names
from pano3d.processes import end_with_pool
from pano3d.stages.workspace import work_folder
from pano3d.types import ConfigError

SUMMARY = "summary.json"


@dataclass(frozen=True)
class PrepareConfig:
    """workers: processes that make scenes; 0 = one per core. Not read where PANO3D_CLUSTER names a Dask scheduler."""

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"prepare.workers is {self.workers}; expected 0 (one per core) or more")


@dataclass
class Work:
    """What there is to do. tasks: scenes; frames: how many are expected, None where only reading tells; skip_broken:
    whether a scene that fails is left out; missing: scenes of the splits that are not on disk."""

    tasks: list[SceneTask]
    frames: int | None
    skip_broken: bool
    missing: list[str] = field(default_factory=list)


def run(params: Path, output: Path, fingerprint: Path | None = None) -> None:
    """Write `output`/<split>/<scene>.zip, the manifest and, of raw datasets, summary.json: frames in, out, and why.

    A killed run goes on where it stopped: finished scenes wait under work/, keyed by the dataset's parameters, the
    seed, the source that makes them, and the raw files' names, sizes and times.

    Args:
        fingerprint: of the raw files, from `pano3d fingerprint`; scenes made from other files are refused, and all if
            the tables that name their classes are others. One without scenes, or None, takes the raw files as they are.
    """
    settings = config.read(params)
    prepare = config.load(params, PrepareConfig, "prepare")
    dataset: Dataset = config.load(params, Dataset, "dataset")
    seed = int(settings["seed"])
    known = Fingerprint(False, {}, "") if fingerprint is None else read_fingerprint(fingerprint)
    todo = rooms_work(dataset, seed) if isinstance(dataset, RoomsDataset) else scan_work(dataset, known)
    key = config.digest({"dataset": settings["dataset"], "seed": seed, "source": _source_digest(dataset)})
    work = work_folder() / "prepare" / key[:16]
    failures: dict[str, str] = {}

    def leave_out(task: SceneTask, reason: str) -> None:
        failures[f"{task.split}/{task.name}"] = reason

    with (
        tracking.run("prepare", settings) as recorder,
        tqdm(total=todo.frames, desc="prepare", unit="frame", mininterval=2.0) as progress,
        _executor(prepare.workers) as executor,
    ):
        on_failure = leave_out if todo.skip_broken else None
        manifest = prepare_scenes(todo.tasks, work, output, executor, progress.update, on_failure)
        recorder.log_metrics(
            {
                "scenes": len(manifest),
                "scenes_left_out": len(failures),
                "frames": int(manifest["frames"].sum()),
                "gib": float(manifest["bytes"].sum()) / 2**30,
            }
        )
        recorder.log_input(manifest, dataset.name, str(output), config.digest(list(manifest["sha256"])), "prepared")
    if not isinstance(dataset, RoomsDataset):
        summary = summarise(output, manifest, failures, todo.missing)
        (output / SUMMARY).write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        tell(summary)


def rooms_work(dataset: RoomsDataset, seed: int) -> Work:
    """Every room of the generator."""
    rooms = dataset.generator
    tasks = [
        SceneTask(split, name, partial(generate_scene, rooms, seed, split, index))
        for split in SPLITS
        for index, name in enumerate(scene_names(rooms, split))
    ]
    return Work(tasks, sum(rooms.frames.of(task.split) for task in tasks), skip_broken=False)


def scan_work(dataset: ScanDataset, known: Fingerprint) -> Work:
    """Every scene on disk; where a fingerprint is given, only from the files it knows."""
    raw = raw_dataset(dataset)
    if known.scenes:
        require_known_tables(raw, known)
    tasks = [
        SceneTask(
            scene.split,
            scene.name,
            partial(build_known, scene, known) if known.scenes else scene.build,
            config.digest([stamp([*scene.sources, *raw.shared], raw.root), known.scenes.get(scene.name)]),
        )
        for scene in raw.scenes
    ]
    return Work(tasks, None, dataset.skip_broken, raw.missing)


def summarise(output: Path, manifest: pd.DataFrame, failures: dict[str, str], missing: list[str]) -> dict[str, Any]:
    """Frames in = frames out + reasons over all scenes; scenes that are not there, and those that failed with why."""
    frames_in, frames_out, dropped = 0, 0, Counter[str]()
    for relative in manifest["path"]:
        archive = read_scene(output / relative)
        counts = archive.provenance.get("frames", {"in": len(archive), "out": len(archive), "dropped": {}})
        frames_in, frames_out = frames_in + counts["in"], frames_out + counts["out"]
        dropped.update(counts["dropped"])
    return {
        "scenes": len(manifest),
        "scenes_left_out": dict(sorted(failures.items())),
        "scenes_not_on_disk": missing,
        "frames_in": frames_in,
        "frames_out": frames_out,
        "frames_dropped": dict(sorted(dropped.items())),
    }


def tell(summary: dict[str, Any]) -> None:
    """The summary in a few lines, on standard error."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["frames_dropped"].items() if count) or "none"
    print(
        f"prepared {summary['scenes']} scenes; frames: {summary['frames_in']} in, {summary['frames_out']} out, "
        f"dropped: {reasons}; {len(summary['scenes_not_on_disk'])} scenes of the splits are not on disk",
        file=sys.stderr,
    )
    for scene, reason in summary["scenes_left_out"].items():
        print(f"left out {scene}: {reason}", file=sys.stderr)


def _executor(workers: int) -> AbstractContextManager[Executor]:
    """Processes of this machine, or a Dask cluster whose workers see the same folders."""
    address = os.environ.get("PANO3D_CLUSTER")
    if address:
        return _cluster(address)
    count = workers or os.cpu_count() or 1
    if count == 1:
        return ThreadPoolExecutor(1)  # one worker needs no process of its own
    # Not forked: the parent runs threads of its own, which a fork would leave half alive.
    return ProcessPoolExecutor(count, mp_context=get_context("forkserver"), initializer=_start_worker)


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            f"PANO3D_CLUSTER is {address}, but `distributed` is not installed; pip install 'pano3d[cluster]'"
        ) from error
    with Client(address) as client, client.get_executor(pure=False) as executor:
        yield executor


def _start_worker() -> None:
    """Scenes run side by side: threads inside each would only fight. None outlives the stage."""
    import cv2

    end_with_pool()
    cv2.setNumThreads(1)


def _source_digest(dataset: Dataset) -> str:
    """Digest of the code that shapes an archive, so that an edit makes new scenes."""
    room = Path(__file__).parents[1] / "data"
    if isinstance(dataset, RoomsDataset):
        paths = [*(room / "rooms").rglob("*.py"), room / "archive.py"]
    else:
        # With the tables of classes, which say what a label means.
        sources = (*room.rglob("*.py"), *room.rglob("*.json"))
        paths = [path for path in sources if "rooms" not in path.relative_to(room).parts]
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()
