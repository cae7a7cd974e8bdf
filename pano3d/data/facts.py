"""What can be measured about each scene before anyone trusts it: plain tables, taken frame by frame with numpy.

Nothing here judges: a fault while reading is a fact like any other, so that one bad scene hides no other. The judging
is in `contracts`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pano3d.data.archive import FrameMeta, SceneArchive, read_scene
from pano3d.data.preparation import MANIFEST, file_digest
from pano3d.data.reprojection import Agreement, DepthView, compare_depth
from pano3d.types import ConfigError, DataError

_ARCHIVE_PATH = re.compile(r"[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_-]{1,64}\.zip")
_MANIFEST_COLUMNS = ("scene", "split", "path", "dataset", "label_space", "frames", "width", "height", "sha256")


@dataclass(frozen=True)
class ReprojectionConfig:
    """tolerance: relative depth difference that agrees. partners: frames each one is compared with, taken by overlap
    from the `window` frames before it. min_pixels: a pair that shares fewer
    of the few thousand that are looked at is not judged."""

    tolerance: float
    partners: int
    window: int = 12
    min_pixels: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1 or self.window < self.partners or self.partners < 0 or self.min_pixels < 1:
            raise ConfigError(
                f"expected 0 < tolerance < 1, 0 <= partners <= window and min_pixels >= 1, found {asdict(self)}"
            )


@dataclass
class SceneFacts:
    """One archive. What could not be measured is None, and `fault` says why."""

    split: str
    scene: str
    path: str
    listed: bool = True
    present: bool = True
    fault: str | None = None
    digest_matches: bool | None = None
    sha256: str | None = None
    name_matches: bool | None = None
    manifest_matches: bool | None = None
    dataset: str | None = None
    label_space: str | None = None
    frames: int | None = None
    bytes: int | None = None
    counts_match: bool | None = None
    overlap_min: float | None = None
    overlap_max: float | None = None
    overlap_diagonal: float | None = None
    overlap_error: float | None = None
    overlap_worst_pair: str | None = None
    disagreement: float | None = None
    disagreement_pair: str | None = None
    surface_points: int | None = None
    surface_labelled: float | None = None
    surface_unknown_ids: int | None = None


@dataclass
class FrameFacts:
    """One frame. Shares are of its pixels; focal length and centre are in units of the image's width and height.

    disagreement: share of pixels off in the frame's *best* pair, so that a wrong frame is named and not its neighbours.
    """

    split: str
    scene: str
    frame: str
    fault: str | None = None
    width: int | None = None
    height: int | None = None
    holes: float | None = None
    depth_missing: float | None = None
    depth_min: float | None = None
    depth_max: float | None = None
    focal_x: float | None = None
    focal_ratio: float | None = None
    center_x: float | None = None
    center_y: float | None = None
    intrinsics_error: float | None = None
    rotation_error: float | None = None
    determinant: float | None = None
    color_digest: str | None = None
    compared: int = 0
    disagreement: float | None = None
    partner: str | None = None


@dataclass
class SegmentFacts:
    """One segment of a scene, with its pixels and views as counted, not as claimed."""

    split: str
    scene: str
    segment: int
    class_name: str | None
    source_class: str
    is_thing: bool
    pixels: int
    views: int


@dataclass(frozen=True)
class Facts:
    """Tables with the fields of SceneFacts, FrameFacts and SegmentFacts as columns, sorted by split and scene."""

    scenes: pd.DataFrame
    frames: pd.DataFrame
    segments: pd.DataFrame


@dataclass
class _Measured:
    scene: SceneFacts
    frames: list[FrameFacts] = field(default_factory=list)
    segments: list[SegmentFacts] = field(default_factory=list)


def collect_facts(
    folder: Path,
    manifest: pd.DataFrame,
    config: ReprojectionConfig,
    executor: Executor,
    on_done: Callable[[int], None],
) -> Facts:
    """Measure every scene that the manifest of `folder` lists, and note archives that it does not list.

    Args:
        on_done: called with the number of frames of each finished scene.

    Raises:
        DataError: the manifest has no rows or lacks columns. Faults of scenes are facts, not errors.
    """
    absent = [column for column in _MANIFEST_COLUMNS if column not in manifest.columns]
    if absent or manifest.empty:
        what = f"lacks the columns {absent}" if absent else "lists no scene"
        raise DataError(f"checking {folder / MANIFEST}: it {what}; run the prepare stage again")
    rows = [{str(key): value for key, value in row.items()} for row in manifest.to_dict("records")]
    futures = [executor.submit(measure_scene, folder, row, config) for row in rows]
    measured = []
    for future in as_completed(futures):
        measured.append(future.result())
        on_done(len(measured[-1].frames))
    measured += _unlisted(folder, {str(row["path"]) for row in rows})
    measured.sort(key=lambda one: (one.scene.split, one.scene.scene, one.scene.path))
    return Facts(
        scenes=_table(SceneFacts, [one.scene for one in measured]),
        frames=_table(FrameFacts, [frame for one in measured for frame in one.frames]),
        segments=_table(SegmentFacts, [segment for one in measured for segment in one.segments]),
    )


def _table(kind: type[Any], rows: list[Any]) -> pd.DataFrame:
    return pd.DataFrame([asdict(row) for row in rows], columns=[one.name for one in fields(kind)])


def _unlisted(folder: Path, listed: set[str]) -> list[_Measured]:
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.zip"))
    strangers = [Path(relative) for relative in found if relative not in listed]
    return [_Measured(SceneFacts(str(one.parent), one.stem, one.as_posix(), listed=False)) for one in strangers]


def measure_scene(folder: Path, row: dict[str, Any], config: ReprojectionConfig) -> _Measured:
    """Facts of the archive behind one row of the manifest. Picklable in and out, for any executor."""
    relative = str(row["path"])
    measured = _Measured(SceneFacts(str(row["split"]), str(row["scene"]), relative))
    scene = measured.scene
    if not _ARCHIVE_PATH.fullmatch(relative):
        scene.fault = f"the manifest's path {relative!r} is not <split>/<scene>.zip; it was not opened"
        return measured
    path = folder / relative
    scene.present = path.is_file()
    if not scene.present:
        return measured
    try:
        scene.sha256, scene.bytes = file_digest(path), path.stat().st_size
        scene.digest_matches = scene.sha256 == row["sha256"]
        archive = read_scene(path)
    except (DataError, OSError) as error:
        scene.fault = _told(error, folder)
        return measured
    _describe(scene, archive, row)
    frames, segments = _measure_frames(archive, scene, config, folder)
    measured.frames, measured.segments = frames, segments
    try:
        _measure_surface(scene, archive)
    except DataError as error:
        scene.fault = _told(error, folder)
    return measured


def _told(error: Exception, folder: Path) -> str:
    """The message with paths as the manifest has them: the same facts for the same data, wherever it lies."""
    return str(error).replace(f"{folder}/", "")


def _describe(scene: SceneFacts, archive: SceneArchive, row: dict[str, Any]) -> None:
    first = archive.frames[0]
    scene.name_matches = archive.name == scene.scene == archive.path.stem and scene.path.startswith(f"{scene.split}/")
    claimed = tuple(row[name] for name in ("dataset", "label_space", "frames", "width", "height"))
    scene.manifest_matches = claimed == (
        archive.dataset,
        archive.label_space,
        len(archive),
        first.width,
        first.height,
    )
    scene.dataset, scene.label_space, scene.frames = archive.dataset, archive.label_space, len(archive)


def _measure_surface(scene: SceneFacts, archive: SceneArchive) -> None:
    ids = archive.surface.segment_id
    known = np.array([0, *(segment.id for segment in archive.segments)])
    scene.surface_points = len(ids)
    scene.surface_labelled = _rounded((ids > 0).mean()) if len(ids) else 0.0
    scene.surface_unknown_ids = int((~np.isin(ids, known)).sum())


def _measure_frames(
    archive: SceneArchive, scene: SceneFacts, config: ReprojectionConfig, folder: Path
) -> tuple[list[FrameFacts], list[SegmentFacts]]:
    """Read each frame once; only the last `config.window` depth images are kept."""
    pixels, views = np.zeros(65536, np.int64), np.zeros(65536, np.int64)
    frames: list[FrameFacts] = []
    recent: dict[int, DepthView] = {}
    pairs = _Pairs(archive, scene, config, frames)
    for index, meta in enumerate(archive.frames):
        facts = FrameFacts(scene.split, scene.scene, meta.name, width=meta.width, height=meta.height)
        frames.append(facts)
        _measure_camera(facts, meta)
        try:
            view = _measure_images(facts, archive, index)
        except DataError as error:
            facts.fault = _told(error, folder)
            continue
        counts = np.bincount(view.segment_id.ravel(), minlength=65536)
        pixels += counts
        views += counts > 0
        pairs.compare(index, view, recent)
        recent[index] = view
        recent.pop(index - config.window, None)
    if all(frame.fault is None for frame in frames):
        scene.counts_match = all((s.pixels, s.views) == (pixels[s.id], views[s.id]) for s in archive.segments)
    pairs.conclude(folder)
    return frames, [
        SegmentFacts(
            scene.split,
            scene.scene,
            s.id,
            s.class_name,
            s.source_class,
            s.is_thing,
            int(pixels[s.id]),
            int(views[s.id]),
        )
        for s in archive.segments
    ]


def _measure_camera(facts: FrameFacts, meta: FrameMeta) -> None:
    matrix, pose = meta.intrinsics, meta.scan_from_camera
    facts.focal_x = _rounded(matrix[0, 0] / meta.width)
    facts.focal_ratio = _rounded(matrix[1, 1] / matrix[0, 0]) if matrix[0, 0] else 0.0
    facts.center_x, facts.center_y = _rounded(matrix[0, 2] / meta.width), _rounded(matrix[1, 2] / meta.height)
    facts.intrinsics_error = _rounded(np.abs([matrix[1, 0], *matrix[2, :2], matrix[2, 2] - 1]).max())
    rotation = pose[:3, :3]
    errors = np.abs(rotation.T @ rotation - np.eye(3)).max(), np.abs(pose[3] - [0, 0, 0, 1]).max()
    facts.rotation_error, facts.determinant = _rounded(max(errors)), _rounded(np.linalg.det(rotation))


def _measure_images(facts: FrameFacts, archive: SceneArchive, index: int) -> DepthView:
    """Decode every layer of a frame, so that a damaged one is found, and measure depth, ids and colour."""
    frame = archive.frame(index)
    facts.color_digest = hashlib.sha256(frame.color.tobytes()).hexdigest()[:24]
    facts.holes = _rounded((frame.segment_id == 0).mean())
    given = frame.depth_mm[frame.depth_mm > 0]
    facts.depth_missing = _rounded(1 - len(given) / frame.depth_mm.size)
    if len(given):
        facts.depth_min, facts.depth_max = float(given.min()) / 1000, float(given.max()) / 1000
    depth = frame.depth_mm if frame.depth_exact_mm is None else frame.depth_exact_mm
    meters = depth.astype(np.float32) / np.float32(1000)
    return DepthView(meters, frame.segment_id, frame.ambiguous, frame.intrinsics, frame.scan_from_camera)


class _Pairs:
    """Compares each new frame with those before it that overlap it most, and remembers the best and the worst."""

    def __init__(
        self, archive: SceneArchive, scene: SceneFacts, config: ReprojectionConfig, frames: list[FrameFacts]
    ) -> None:
        self._scene, self._config, self._frames = scene, config, frames
        self._fault: DataError | None = None
        try:
            overlap = archive.overlap.astype(np.float64)
        except DataError as error:
            self._fault, overlap = error, np.zeros((len(archive), len(archive)))
        self._overlap: NDArray[np.float64] = overlap

    def compare(self, index: int, view: DepthView, recent: dict[int, DepthView]) -> None:
        if not _is_invertible(view):
            return
        shared = np.minimum(self._overlap[index], self._overlap[:, index])
        partners = sorted(recent, key=lambda other: (-shared[other], -other))[: self._config.partners]
        for other in partners:
            if _is_invertible(recent[other]):
                agreement = compare_depth(view, recent[other], self._config.tolerance)
                self._note(index, other, agreement, agreement.seen)
                self._note(other, index, agreement, agreement.seen_back)

    def _note(self, first: int, second: int, agreement: Agreement, seen: float) -> None:
        scene, frame, partner = self._scene, self._frames[first], self._frames[second].frame
        error = _rounded(abs(seen - self._overlap[first, second]))
        if scene.overlap_error is None or error > scene.overlap_error:
            scene.overlap_error, scene.overlap_worst_pair = error, f"{frame.frame} in {partner}"
        if agreement.compared < self._config.min_pixels:
            return
        share = _rounded(agreement.disagreeing)
        frame.compared += agreement.compared
        if frame.disagreement is None or share < frame.disagreement:
            frame.disagreement, frame.partner = share, partner
        if scene.disagreement is None or share > scene.disagreement:
            scene.disagreement, scene.disagreement_pair = share, f"{frame.frame} in {partner}"

    def conclude(self, folder: Path) -> None:
        if self._fault is not None:
            self._scene.fault = _told(self._fault, folder)
            return
        self._scene.overlap_min, self._scene.overlap_max = (
            _rounded(v) for v in (self._overlap.min(), self._overlap.max())
        )
        self._scene.overlap_diagonal = _rounded(self._overlap.diagonal().min())


def _is_invertible(view: DepthView) -> bool:
    return all(abs(np.linalg.det(matrix)) > 1e-9 for matrix in (view.intrinsics, view.scan_from_camera))


def _rounded(value: float | np.floating[Any]) -> float:
    """Six digits: enough to judge, and the same on every processor."""
    return round(float(value), 6)
