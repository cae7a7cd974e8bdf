"""From raw scenes to archives: in parallel, resumable, and complete or absent."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pano3d.data.archive import SceneContent, read_scene, write_scene
from pano3d.types import DataError

MANIFEST = "manifest.parquet"


@dataclass(frozen=True)
class SceneTask:
    """One scene to make: `build()` returns its content, the same at every call. It must be picklable.

    source: what identifies its raw files; a finished archive made from others is made again.
    """

    split: str
    name: str
    build: Callable[[], SceneContent]
    source: str = ""


def prepare_scenes(
    tasks: list[SceneTask],
    work: Path,
    output: Path,
    executor: Executor,
    on_done: Callable[[int], object],
    on_failure: Callable[[SceneTask, str], object] | None = None,
) -> pd.DataFrame:
    """Build every scene that `work` does not hold yet, then publish all of them in `output` with a manifest.

    Finished archives wait in `work` (keyed by the caller to everything that shapes them), so that a killed run
    repeats no scene; `output` is filled by hard links at the end. One bad scene does not stop the others: they are
    finished and kept before the error is raised.

    Args:
        on_done: called with the number of frames of each finished scene.
        on_failure: called for each scene that failed, with the reason; the others are then published. Without it a
            failure is an error.

    Returns:
        The manifest, sorted by split and scene.

    Raises:
        DataError: a scene failed and `on_failure` is not given, or every scene of a split failed (failures are named);
            or a name occurs twice.
    """
    names = [(task.split, task.name) for task in tasks]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"preparing: scene {twice[0][1]} occurs twice in split {twice[0][0]}")
    futures = {executor.submit(_build, task, work): task for task in tasks}
    rows, failures = [], []
    try:
        for future in as_completed(futures):
            task = futures[future]
            try:
                row = future.result()
            except (DataError, OSError) as error:
                failures.append(f"{task.split}/{task.name}: {error}")
                if on_failure is not None:
                    on_failure(task, str(error))
                continue
            rows.append(row)
            on_done(int(str(row["frames"])))
    finally:
        # Asked to stop: leaving the executor waits for the scenes begun, not for all that are queued.
        for future in futures:
            future.cancel()
    empty = {task.split for task in tasks} - {row["split"] for row in rows}
    if failures and (on_failure is None or empty):
        raise DataError(
            f"preparing: {len(failures)} of {len(tasks)} scenes failed, {len(rows)} are kept for the next try:\n  "
            + "\n  ".join(sorted(failures))
        )
    manifest = pd.DataFrame(rows).sort_values(["split", "scene"], ignore_index=True)
    publish(manifest, work, output)
    return manifest


def _build(task: SceneTask, work: Path) -> dict[str, object]:
    path = work / task.split / f"{task.name}.zip"
    stamp = path.with_suffix(".source")
    if not path.exists() or (stamp.read_text(encoding="ascii") if stamp.exists() else "") != task.source:
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(task.source, encoding="ascii")
        write_scene(path, task.build())
    return describe(path, task.split)


def describe(path: Path, split: str) -> dict[str, object]:
    """One row of the manifest: what the archive holds and its digest."""
    archive = read_scene(path)
    return {
        "scene": archive.name,
        "split": split,
        "path": f"{split}/{path.name}",
        "dataset": archive.dataset,
        "label_space": archive.label_space,
        "license": archive.license,
        "frames": len(archive),
        "width": archive.frames[0].width,
        "height": archive.frames[0].height,
        "segments": sum(1 for segment in archive.segments if segment.pixels),
        "bytes": path.stat().st_size,
        "sha256": file_digest(path),
    }


def publish(manifest: pd.DataFrame, work: Path, output: Path) -> None:
    """Link the archives of `manifest` from `work` into a fresh `output`, the manifest last."""
    if output.exists():
        shutil.rmtree(output)
    for relative in manifest["path"]:
        target = output / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(work / relative, target)
        except OSError:  # another file system: a copy does as well
            shutil.copy2(work / relative, target)
    partial = output / f".{MANIFEST}.partial"
    manifest.to_parquet(partial, index=False)
    os.replace(partial, output / MANIFEST)


def read_manifest(folder: Path) -> pd.DataFrame:
    """The manifest of a prepared dataset.

    Raises:
        DataError: there is none, or it is not readable.
    """
    path = folder / MANIFEST
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"reading {path}: no such manifest; run the prepare stage first") from None
    except (OSError, ValueError) as error:
        raise DataError(f"reading {path}: not a manifest ({error}); run the prepare stage again") from error


def split_paths(folder: Path, split: str) -> list[Path]:
    """Archives of one split of a prepared dataset, by name.

    Raises:
        DataError: the split is empty or one of its archives is missing.
    """
    manifest = read_manifest(folder)
    paths = [folder / relative for relative in manifest.loc[manifest["split"] == split, "path"]]
    if not paths:
        known = sorted(manifest["split"].unique())
        raise DataError(f"reading {folder}: no scene in split {split!r}; the manifest has {known}")
    for path in paths:
        if not path.exists():
            raise DataError(f"reading {folder}: {path.name} is in the manifest but not in the folder")
    return paths


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
