"""The folder of one reconstruction: everything that is written, in one order, and read back."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.label_spaces import LabelSpace
from pano3d.files import write_whole
from pano3d.geometry.alignment import apply_transform
from pano3d.output.cameras import write_cameras, write_colmap, write_trajectory
from pano3d.output.labels import write_coco_panoptic, write_ply
from pano3d.output.mesh import write_glb
from pano3d.output.segments import SegmentRow, segment_rows, write_segments
from pano3d.panoptic.lifting import lift_points
from pano3d.photos import Photos
from pano3d.types import DataError, PanopticScene
from pano3d.viz.cloud import SceneCloud, list_segments, upright_from_world
from pano3d.viz.page import render_page

SCENE, DESCRIPTION = "scene.safetensors", "reconstruction.json"
STREAMED = "scene"
"""Where `pano3d stream` puts the scene it ends with."""
FORMAT_VERSION = 1
_PROBE = ".writable"


def _partial(file: str) -> str:
    """What a file is called while it is being written."""
    return f".{file}.partial"


@dataclass(frozen=True)
class Contents:
    """What a command of ours leaves in its folder.

    mark: the file that makes it an earlier result; from the first change until it is written, the empty beginning of it
        stands there instead. The other names prove nothing: people call their own folders `images` too.
    files, folders: the others.
    """

    mark: str
    files: tuple[str, ...]
    folders: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        """All of them, those of an interrupted run too."""
        return (*(name for file in (self.mark, *self.files) for name in (file, _partial(file))), *self.folders)


RESULT = Contents(
    mark=DESCRIPTION,
    files=(
        *("scene.ply", "scene.glb", "scene.html", "cameras.json", "trajectory.txt", "panoptic.json", "segments.csv"),
        SCENE,
    ),
    folders=("images", "depth", "confidence", "panoptic", "colmap"),
)


@dataclass(frozen=True)
class Result:
    """A reconstruction as it lies on disk.

    names: of the views. label_space: its name. drop_least_sure: share of the pixels that is not shown. description: all
    that reconstruction.json says.
    """

    folder: Path
    scene: PanopticScene
    title: str
    names: list[str]
    label_space: str
    drop_least_sure: float
    description: dict[str, Any]


def prepare_writing(folder: Path) -> None:
    """Make the folder.

    Raises:
        DataError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / _PROBE
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise DataError(f"writing to {folder}: {error.strerror}; choose a folder that can be written to") from error


@contextmanager
def hold_folder(folder: Path, inputs: Sequence[Path] = (), contents: Contents = RESULT) -> Iterator[None]:
    """Make the folder and keep other processes of ours out of it. An earlier result in it stays as it is.

    Args:
        inputs: what the result is made of, which must lie elsewhere.
        contents: what an earlier result may have left.

    Raises:
        DataError: it cannot be written to, holds an input or something that is not ours, or another process is writing
            into it.
    """
    import fcntl

    inside = [path for path in inputs if folder.resolve() in (path.resolve(), *path.resolve().parents)]
    if inside:
        raise DataError(f"writing to {folder}: it holds the input {inside[0]}; choose a folder apart from what is read")
    prepare_writing(folder)
    found = {path.name for path in folder.iterdir()} - {_PROBE}
    is_earlier_result = not found.isdisjoint({contents.mark, _partial(contents.mark)})
    foreign = sorted(found.difference(contents.names()) if is_earlier_result else found)
    if foreign:
        raise DataError(f"writing to {folder}: it holds {foreign[0]!r}, which is not ours; choose another folder")
    opened = os.open(folder, os.O_RDONLY)  # the folder itself is locked: nothing is left behind, however we end
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise DataError(
            f"writing to {folder}: another reconstruction is writing there; wait or choose another"
        ) from None
    try:
        yield
    finally:
        os.close(opened)


def clear_folder(folder: Path, contents: Contents = RESULT) -> None:
    """Empty an earlier result, or what is left of one, out of a folder that is held; the beginning of a mark stays."""
    begun = folder / _partial(contents.mark)
    begun.touch()
    for name in contents.names():
        if name == begun.name:
            continue
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def minimum_confidence(scene: PanopticScene, drop: float) -> float:
    """The confidence above which all but a share `drop` of the pixels lie."""
    finite = scene.confidence[np.isfinite(scene.confidence)]
    return float(np.quantile(finite, drop)) if drop > 0 and finite.size else -np.inf


def write_result(
    folder: Path,
    scene: PanopticScene,
    photos: Photos,
    labels: LabelSpace,
    drop_least_sure: float,
    description: dict[str, Any],
    remarks: list[str],
    on_done: Callable[[str], object],
) -> list[SegmentRow]:
    """Replace an earlier result by every file of a new one. `reconstruction.json` comes last: a folder with one is
    whole. The arrays come first, so that an interruption keeps what the network said.

    Args:
        drop_least_sure: share of the pixels left out of the point cloud, the meshes and the page.
        on_done: called with the name of each thing written.

    Returns:
        the rows of segments.csv.
    """
    clear_folder(folder)
    names = list(photos.names)
    minimum = minimum_confidence(scene, drop_least_sure)
    is_kept = np.isfinite(scene.points_world).all(-1) & (scene.confidence >= minimum)
    points = lift_points(scene, minimum)
    rows = segment_rows(scene, is_kept)
    photo_intrinsics = np.stack([crop.photo_intrinsics(k) for crop, k in zip(photos.crops, scene.intrinsics)])
    title = description["input"]["title"]
    steps: list[tuple[str, Callable[[], object]]] = [
        (SCENE, lambda: scene.save(folder / SCENE)),
        ("cameras.json", lambda: write_cameras(scene, names, photo_intrinsics, folder / "cameras.json")),
        ("segments.csv", lambda: write_segments(rows, folder / "segments.csv")),
        ("scene.ply", lambda: write_ply(points, folder / "scene.ply")),
        ("scene.glb", lambda: write_glb(scene, is_kept, folder / "scene.glb")),
        ("colmap/", lambda: write_colmap(scene, names, points, folder / "colmap")),
        ("trajectory.txt", lambda: write_trajectory(scene, folder / "trajectory.txt")),
        ("panoptic.json, panoptic/", lambda: write_coco_panoptic(scene, folder, names)),
        ("images/, depth/, confidence/", lambda: _write_views(folder, scene, names)),
        ("scene.html", lambda: write_page(folder / "scene.html", title, scene, labels, is_kept, remarks)),
    ]
    for name, write in steps:
        write()
        on_done(name)
    text = json.dumps({"format_version": FORMAT_VERSION, **description}, indent=1, allow_nan=False)
    write_whole(folder / DESCRIPTION, f"{text}\n".encode())
    on_done(DESCRIPTION)
    return rows


def _write_views(folder: Path, scene: PanopticScene, names: list[str]) -> None:
    for view, name in enumerate(names):
        _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(scene.colors[view][..., ::-1]))
        write_whole(folder / "images" / f"{name}.jpg", jpeg.tobytes())
        write_whole(folder / "depth" / f"{name}.npy", _npy(scene.depth[view]))
        write_whole(folder / "confidence" / f"{name}.npy", _npy(scene.confidence[view]))


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def write_page(
    path: Path,
    title: str,
    scene: PanopticScene,
    labels: LabelSpace,
    is_kept: NDArray[np.bool_],
    remarks: list[str],
) -> None:
    """`scene.html`; without any point that is sure enough, a page that says so."""
    if not is_kept.any():
        write_whole(path, b"<!doctype html><title>empty</title><p>No point of this scene is finite and sure enough.\n")
        return
    write_whole(path, render_page(cloud_of(title, scene, labels, is_kept), remarks).encode())


def cloud_of(title: str, scene: PanopticScene, labels: LabelSpace, is_kept: NDArray[np.bool_]) -> SceneCloud:
    """The kept pixels as a cloud with z up, their confidence as rank among them, and the cameras."""
    from scipy.stats import rankdata

    upright = upright_from_world(scene.world_from_camera)
    index, listed = list_segments(scene.segment_id[is_kept], scene.class_id[is_kept], scene.class_names, labels.palette)
    rank = rankdata(scene.confidence[is_kept])
    points = scene.points_world[is_kept] @ upright.T
    return SceneCloud(
        name=title,
        points=points,
        colors=scene.colors[is_kept],
        confidence=(rank - 1) / max(len(rank) - 1, 1),
        segment=index,
        segments=listed,
        frusta=frusta(scene, 0.06 * float(np.linalg.norm(np.subtract(*np.percentile(points, [97, 3], axis=0)))))
        @ upright.T,
    )


def frusta(scene: PanopticScene, depth: float) -> NDArray[np.float64]:
    """(V, 5, 3) in `world`: each camera's centre and the corners of its image at a depth; without unsolved cameras."""
    height, width = scene.depth.shape[1:]
    right, bottom = width - 0.5, height - 0.5
    corners = np.array([[-0.5, -0.5, 1], [right, -0.5, 1], [right, bottom, 1], [-0.5, bottom, 1]])
    shapes = []
    for pose, k in zip(scene.world_from_camera, scene.intrinsics):
        with np.errstate(divide="ignore", invalid="ignore"):
            rays = (corners - [k[0, 2], k[1, 2], 0]) / [k[0, 0], k[1, 1], 1] * depth
        if np.isfinite(rays).all() and np.isfinite(pose).all():
            shapes.append(apply_transform(pose, np.concatenate([np.zeros((1, 3)), rays])))
    return np.stack(shapes) if shapes else np.zeros((0, 5, 3))


def read_result(folder: Path) -> Result:
    """A folder that `pano3d reconstruct` finished, or the scene in one that `pano3d stream` did.

    Raises:
        DataError: it is not one, or its files are damaged.
    """
    if not (folder / DESCRIPTION).exists() and (folder / STREAMED / DESCRIPTION).is_file():
        folder = folder / STREAMED
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format_version"]
        if version != FORMAT_VERSION:
            raise DataError(f"reading {path}: format_version {version!r}, expected {FORMAT_VERSION}; reconstruct again")
        title, names = str(description["input"]["title"]), [str(name) for name in description["input"]["views"]]
        label_space = str(description["model"]["label_space"])
        drop_least_sure = float(description["options"]["drop_least_sure"])
    except FileNotFoundError:
        raise DataError(f"reading {folder}: no {DESCRIPTION}; expected a folder of `pano3d reconstruct`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"reading {path}: damaged ({error!r}); reconstruct again") from error
    scene = PanopticScene.load(folder / SCENE)
    if len(names) != len(scene.depth):
        raise DataError(f"reading {folder}: {len(names)} views are named, the scene has {len(scene.depth)}")
    return Result(folder, scene, title, names, label_space, drop_least_sure, description)
