"""Raw data that stay where the user keeps them: found by an environment variable, known by name, size and digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pano3d.data.archive import SceneContent
from pano3d.data.json_files import read_json
from pano3d.data.preparation import file_digest
from pano3d.types import ConfigError, DataError

_WHOLE = 64 * 2**20
_BLOCK, _BLOCKS = 2**20, 16


def raw_root(variable: str, dataset: str) -> Path:
    """The folder that an environment variable names.

    Raises:
        ConfigError: it is unset, or names no folder.
    """
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(
            f"preparing {dataset}: the environment variable {variable} is not set; let it name the folder with the "
            "dataset as downloaded (docs/datasets.md)"
        )
    root = Path(value)
    if not root.is_dir():
        raise ConfigError(f"preparing {dataset}: {variable} names {value}, which is no folder")
    return root


def raw_digest(path: Path, whole: bool = False) -> str:
    """SHA-256 of a file in hexadecimal; of a file over 64 MiB, unless `whole`, that of its size and of 16 blocks of
    1 MiB spread over it, marked "sampled:", so that terabytes are known in minutes.

    Raises:
        DataError: it cannot be read.
    """
    try:
        size = path.stat().st_size
        if whole or size <= _WHOLE:
            return file_digest(path)
        digest = hashlib.sha256(str(size).encode())
        with open(path, "rb") as file:
            for block in range(_BLOCKS):
                file.seek((size - _BLOCK) * block // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    except OSError as error:
        raise DataError(f"reading {path}: {error.strerror or error}") from error
    return f"sampled:{digest.hexdigest()}"


def stamp(paths: list[Path], root: Path) -> str:
    """Digest of names, sizes and modification times: changes whenever a file was written again. Costs no reading."""
    lines = [f"{path.relative_to(root)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class RawScene:
    """One scene on disk. build: its archive's content, picklable, whose provenance lists `sources`: every file below
    `folder` that shapes it, by name."""

    split: str
    name: str
    folder: Path
    build: Callable[[], SceneContent]
    sources: list[Path]


class RawDataset:
    """The scenes of a dataset that are on disk, those that its splits name and that are not, and the files below `root`
    that shape every scene, such as the tables that name its classes.

    Raises:
        DataError: a split has no scene at all.
    """

    def __init__(
        self, root: Path, scenes: list[RawScene], listed: Sequence[str], splits: Sequence[str], shared: list[Path]
    ):
        self.root, self.scenes, self.shared = root, scenes, shared
        here = {scene.name for scene in scenes}
        self.missing = sorted(set(listed) - here)
        for split in splits:
            if not any(scene.split == split for scene in scenes):
                raise DataError(
                    f"preparing: none of the scenes of split {split} is below {root}; download some, or leave the "
                    "split out of dataset.splits"
                )


def wanted_scenes(
    splits: Mapping[str, Sequence[str]], chosen: Sequence[str] | None, dataset: str
) -> list[tuple[str, str]]:
    """(split, scene) of every scene of the splits, or of those that were chosen.

    Raises:
        DataError: a chosen scene is in none of the splits.
    """
    listed = [(split, scene) for split, scenes in splits.items() for scene in scenes]
    if chosen is None:
        return listed
    strange = sorted(set(chosen) - {scene for _, scene in listed})
    if strange:
        raise DataError(f"preparing {dataset}: scenes {strange} are in none of the splits {', '.join(splits)}")
    return [(split, scene) for split, scene in listed if scene in chosen]


def describe_sources(paths: Iterable[Path], folder: Path, whole: bool = False) -> list[dict[str, Any]]:
    """Name below `folder`, size and digest of each file: what a scene was made from."""
    return [
        {"name": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": raw_digest(path, whole)}
        for path in paths
    ]


def sources_digest(sources: list[dict[str, Any]]) -> str:
    """One digest for all files of a scene."""
    lines = sorted(f"{source['name']} {source['bytes']} {source['sha256']}" for source in sources)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Fingerprint:
    """whole: whether large files were digested whole. scenes: digest of each scene's raw files, empty where none was
    fingerprinted yet. shared: that of the files which shape every scene."""

    whole: bool
    scenes: dict[str, str]
    shared: str


def read_fingerprint(path: Path) -> Fingerprint:
    """A file that `pano3d fingerprint` wrote.

    Raises:
        DataError: missing, or not a fingerprint.
    """
    content = read_json(path)
    scenes = content.get("scenes")
    if not isinstance(scenes, dict) or not all(
        isinstance(entry, dict) and "sha256" in entry for entry in scenes.values()
    ):
        raise DataError(f"reading {path}: not a fingerprint; make it with `pano3d fingerprint`")
    return Fingerprint(
        bool(content.get("whole", False)),
        {scene: str(entry["sha256"]) for scene, entry in scenes.items()},
        str(content.get("shared", "")),
    )


def require_known_tables(raw: RawDataset, known: Fingerprint) -> None:
    """The files that shape every scene are those of the fingerprint.

    Raises:
        DataError: they are not.
    """
    if sources_digest(describe_sources(raw.shared, raw.root, known.whole)) != known.shared:
        names = ", ".join(str(path.relative_to(raw.root)) for path in raw.shared)
        raise DataError(
            f"preparing: {names} below {raw.root} are not those of the committed fingerprint; restore them, or run "
            "`pano3d fingerprint` and commit what changed"
        )


def build_known(scene: RawScene, known: Fingerprint) -> SceneContent:
    """Build a scene whose raw files are those of the fingerprint; they are compared before anything is built.

    Raises:
        DataError: they are not.
    """
    sources = describe_sources(scene.sources, scene.folder, known.whole)
    if sources_digest(sources) != known.scenes.get(scene.name):
        what = "are not those of" if scene.name in known.scenes else "are not in"
        raise DataError(
            f"preparing {scene.name}: its raw files {what} the committed fingerprint; restore them, or run `pano3d "
            "fingerprint` and commit what changed"
        )
    return scene.build()
