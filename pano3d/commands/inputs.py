"""What `pano3d reconstruct` is given: photos, a video or a scene archive, as images of the network's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pano3d.data.archive import read_scene
from pano3d.photos import VIDEO_ENDINGS, Photos, find_photos, fit_image, read_photos, read_video, spread
from pano3d.types import DataError

UNREAD_ENDINGS = (".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw")
"""Photos of kinds that no reader here takes: they must not be passed over in silence."""
REMEDY = "HEIC and raw photos are not read; export them as JPEG (`magick mogrify -format jpg *.HEIC`)"


@dataclass(frozen=True)
class Given:
    """The images, where they come from, and the poses (V 4 4) a scene archive knows."""

    photos: Photos
    kind: str
    scan_from_camera: NDArray[np.float64] | None = None


def count_views(inputs: Sequence[Path]) -> int | None:
    """How many views the input offers; None for a video, which offers as many as are wanted.

    Raises:
        DataError: nothing that can be read is there.
    """
    if _is(inputs, VIDEO_ENDINGS):
        return None
    return len(read_scene(inputs[0])) if _is(inputs, (".zip",)) else len(_find_photos(inputs))


def _find_photos(inputs: Sequence[Path]) -> list[Path]:
    try:
        return find_photos(inputs)
    except DataError as error:
        raise (DataError(f"{error}; {REMEDY}") if _unread(inputs) else error) from None


def _unread(inputs: Sequence[Path]) -> list[Path]:
    """Photos in the folders that are of a kind nobody here reads."""
    inside = [each for path in inputs if path.is_dir() for each in path.iterdir()]
    return sorted(each for each in inside if each.suffix.lower() in UNREAD_ENDINGS and not each.name.startswith("."))


def read_input(inputs: Sequence[Path], width: int, height: int, views: int, on_done: Callable[[], object]) -> Given:
    """At most `views` images at the network's size.

    Raises:
        DataError: nothing usable is there; the message gives reasons.
    """
    if _is(inputs, VIDEO_ENDINGS):
        return Given(read_video(inputs[0], width, height, views), "video")
    if _is(inputs, (".zip",)):
        return _read_archive(inputs[0], width, height, views, on_done)
    photos = read_photos(_find_photos(inputs), width, height, views, on_done)
    unread = _unread(inputs)
    if unread:
        photos = replace(photos, notes=(*photos.notes, f"{len(unread)} files such as {unread[0].name}: {REMEDY}"))
    return Given(photos, "photos")


def _is(inputs: Sequence[Path], endings: tuple[str, ...]) -> bool:
    found = [path.suffix.lower() in endings for path in inputs]
    if any(found) and len(inputs) > 1:
        raise DataError(f"reading {inputs[0]} and {len(inputs) - 1} more: give one video or archive, or only photos")
    if any(found) and not inputs[0].is_file():
        raise DataError(f"reading {inputs[0]}: no such file")
    return all(found)


def _read_archive(path: Path, width: int, height: int, views: int, on_done: Callable[[], object]) -> Given:
    archive = read_scene(path)
    images, crops, names, poses = [], [], [], []
    for index in spread(len(archive), views):
        color = archive.color(index)
        image, crop = fit_image(color, (color.shape[1], color.shape[0]), width, height)
        images.append(image)
        crops.append(crop)
        names.append(archive.frames[index].name)
        poses.append(archive.frames[index].scan_from_camera)
        on_done()
    notes = () if len(images) == len(archive) else (f"{len(images)} of the archive's {len(archive)} frames are used",)
    return Given(Photos(np.stack(images), tuple(names), tuple(crops), {}, notes), "scene archive", np.stack(poses))
