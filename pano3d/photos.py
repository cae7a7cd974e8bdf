"""A user's photos and videos as arrays of one size; what cannot be used is left out with its reason.

Photos are turned upright by their EXIF tag, cropped about the centre to the network's aspect ratio and resized.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pano3d.types import DataError

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
VIDEO_ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")  # readers Pillow may use: no rarely tested ones
MINIMUM_SIDE = 32
"""Pixels below which a photo says nothing about a room."""
MAXIMUM_PIXELS = 180_000_000
"""Larger images are taken for decompression bombs."""


@dataclass(frozen=True)
class Crop:
    """Which part of an upright photo became the network's image.

    photo_width, photo_height: upright size, pixels. left, top: of the crop. scale_x, scale_y: image pixels per photo
    pixel. Pixel centres are integers, so edges lie at halves.
    """

    photo_width: int
    photo_height: int
    left: int
    top: int
    scale_x: float
    scale_y: float

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """A pixel of the photo in the network's image."""
        return (x - self.left + 0.5) * self.scale_x - 0.5, (y - self.top + 0.5) * self.scale_y - 0.5

    def photo_intrinsics(self, intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
        """(3, 3) intrinsics of the image carried to the pixels of the photo."""
        known = intrinsics.copy()
        known[0] /= self.scale_x
        known[1] /= self.scale_y
        known[0, 2] = (intrinsics[0, 2] + 0.5) / self.scale_x - 0.5 + self.left
        known[1, 2] = (intrinsics[1, 2] + 0.5) / self.scale_y - 0.5 + self.top
        return known


@dataclass(frozen=True)
class Photos:
    """Images of one size.

    colors: (V H W 3) uint8. names: V different ones, without ending. crops: V. left_out: file -> reason.
    notes: what a person should know about the set.
    """

    colors: NDArray[np.uint8]
    names: tuple[str, ...]
    crops: tuple[Crop, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_photos(inputs: Sequence[Path]) -> list[Path]:
    """Files as given, folders opened (not their subfolders), in the order a person would count: 2 before 10.

    Raises:
        DataError: a path does not exist, or there is no photo.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = [each for each in path.iterdir() if each.suffix.lower() in PHOTO_ENDINGS and each.is_file()]
            found += sorted((each for each in inside if not each.name.startswith(".")), key=_counted)
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"reading photos: {path} does not exist")
    if not found:
        where = ", ".join(str(path) for path in inputs)
        raise DataError(f"reading photos: none in {where}; expected files ending in {', '.join(PHOTO_ENDINGS)}")
    return found


def _counted(path: Path) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def spread(total: int, count: int) -> list[int]:
    """`count` evenly spread numbers below `total`, the first and last among them; all where there are fewer."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def read_photos(
    paths: Sequence[Path],
    width: int,
    height: int,
    maximum: int | None = None,
    on_done: Callable[[], object] = lambda: None,
) -> Photos:
    """Photos at the network's size; portrait where most of them are.

    Args:
        width, height: what the network was trained on; exchanged for portraits.
        maximum: at most so many views, evenly spread over `paths`.
        on_done: called after each file.

    Raises:
        DataError: not one of them can be used; the message gives the first reasons.
    """
    chosen = [paths[index] for index in spread(len(paths), maximum or len(paths))]
    notes = []
    if len(chosen) < len(paths):
        notes.append(f"{len(paths)} photos, {len(chosen)} of them used, evenly spread; more with a larger view budget")
    left_out: dict[str, str] = {}
    upright: list[tuple[Path, NDArray[np.uint8], tuple[int, int]]] = []
    seen: dict[bytes, Path] = {}
    for path in chosen:
        try:
            image, size = read_photo(path, max(width, height))
        except DataError as error:
            left_out[str(path)] = str(error)
        else:
            digest = hashlib.sha256(image.tobytes() + repr(image.shape).encode()).digest()
            if digest in seen:
                left_out[str(path)] = f"the same picture as {seen[digest].name}"
            else:
                seen[digest] = path
                upright.append((path, image, size))
        on_done()
    if not upright:
        reasons = "; ".join(f"{Path(path).name}: {reason}" for path, reason in list(left_out.items())[:3])
        raise DataError(f"reading photos: none of {len(chosen)} files can be used ({reasons})")
    portraits = sum(size[1] > size[0] for _, _, size in upright)
    if portraits * 2 > len(upright):
        width, height = height, width
    odd = min(portraits, len(upright) - portraits)
    if odd:
        notes.append(f"{odd} of {len(upright)} photos are turned the other way than most; only their middle is used")
    fitted = [fit_image(image, size, width, height) for _, image, size in upright]
    return Photos(
        colors=np.stack([image for image, _ in fitted]),
        names=different_names([path.stem for path, _, _ in upright]),
        crops=tuple(crop for _, crop in fitted),
        left_out=left_out,
        notes=(*notes, *_remarks(len(upright))),
    )


def _remarks(count: int) -> list[str]:
    return ["one view alone: depth is a guess of the network, nothing confirms it"] if count == 1 else []


def read_photo(path: Path, wanted_side: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """One photo, upright, RGB, and its full (width, height).

    A JPEG may come smaller than it is, but never shorter than twice `wanted_side`: decoding takes most of the time.

    Raises:
        DataError: not an image, damaged, too small or suspiciously large; the reason without the path.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes and tags that are judged here, or do not matter
            with Image.open(path, formats=FORMATS) as image:
                size = image.size
                if size[0] * size[1] > MAXIMUM_PIXELS:
                    raise DataError(f"{size[0]}x{size[1]} pixels, more than {MAXIMUM_PIXELS // 10**6} million")
                if min(size) < MINIMUM_SIDE:
                    raise DataError(f"only {size[0]}x{size[1]} pixels; expected at least {MINIMUM_SIDE} each way")
                image.draft("RGB", (2 * wanted_side, 2 * wanted_side))
                small = image.size
                upright = ImageOps.exif_transpose(image)
                if (upright.size != small) and small[0] != small[1]:
                    size = (size[1], size[0])
                return _rgb(upright), size
    except UnidentifiedImageError:
        raise DataError("not an image, or of a kind that is not read (HEIC: export it as JPEG)") from None
    except Image.DecompressionBombError:
        raise DataError(f"more than {MAXIMUM_PIXELS // 10**6} million pixels; shrink it") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow raises for damaged files
        raise DataError(f"damaged ({error})") from None


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        grey = np.clip(np.asarray(image, np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def fit_image(
    image: NDArray[np.uint8], photo_size: tuple[int, int], width: int, height: int
) -> tuple[NDArray[np.uint8], Crop]:
    """Crop about the centre to the aspect ratio wanted, then resize; `image` may be a shrunken version of the photo."""
    photo_width, photo_height = photo_size
    scale = max(width / photo_width, height / photo_height)
    crop_width, crop_height = min(photo_width, round(width / scale)), min(photo_height, round(height / scale))
    left, top = (photo_width - crop_width) // 2, (photo_height - crop_height) // 2
    shrink_y, shrink_x = image.shape[0] / photo_height, image.shape[1] / photo_width
    rows = slice(round(top * shrink_y), round((top + crop_height) * shrink_y))
    columns = slice(round(left * shrink_x), round((left + crop_width) * shrink_x))
    part = np.ascontiguousarray(image[rows, columns])
    way = cv2.INTER_AREA if part.shape[1] > width else cv2.INTER_LINEAR
    crop = Crop(photo_width, photo_height, left, top, width / crop_width, height / crop_height)
    return np.asarray(cv2.resize(part, (width, height), interpolation=way), np.uint8), crop


def different_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names fit for files and all different: a repeated one gets a number."""
    taken: list[str] = []
    for name in names:
        safe = re.sub(r"[^\w.-]", "_", name)
        candidate, number = safe, 2
        while candidate in taken:
            candidate, number = f"{safe}-{number}", number + 1
        taken.append(candidate)
    return tuple(taken)


def read_video(path: Path, width: int, height: int, count: int) -> Photos:
    """`count` frames of a video: as many stretches of equal camera motion, the sharpest frame of each.

    Motion is the mean absolute difference of small grey frames, sharpness the variance of the Laplacian.

    Raises:
        DataError: it cannot be decoded.
    """
    motion, sharpness, numbers = [], [], []
    before: NDArray[np.uint8] | None = None
    for number, frame in _frames(path):
        grey = cv2.cvtColor(cv2.resize(frame, (160, 120), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        motion.append(0.0 if before is None else float(np.abs(grey.astype(np.int16) - before).mean()))
        sharpness.append(float(cv2.Laplacian(grey, cv2.CV_32F).var()))
        numbers.append(number)
        before = grey
    if not numbers:
        raise DataError(f"reading video {path}: no frame can be decoded; convert it to MP4 (H.264) or give photos")
    path_length = np.cumsum(motion) + 1e-6 * np.arange(len(motion))  # a still camera moves on in time
    stretch = np.minimum((path_length / (path_length[-1] + 1e-9) * count).astype(int), count - 1)
    best: dict[int, int] = {}
    for index, each in enumerate(stretch.tolist()):
        if each not in best or sharpness[index] > sharpness[best[each]]:
            best[each] = index
    wanted = {numbers[index] for index in best.values()}
    images: list[NDArray[np.uint8]] = []
    crops, names = [], []
    for number, frame in _frames(path):
        if number in wanted:
            size = (frame.shape[1], frame.shape[0])
            if not images and size[1] > size[0]:
                width, height = height, width
            image, crop = fit_image(np.ascontiguousarray(frame[..., ::-1]), size, width, height)
            images.append(image)
            crops.append(crop)
            names.append(f"{path.stem}_{number:06d}")
    return Photos(np.stack(images), tuple(names), tuple(crops), {}, tuple(_remarks(len(images))))


def _frames(path: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Number and BGR pixels of every frame that can be decoded."""
    capture = cv2.VideoCapture(str(path))
    try:
        number = 0
        while capture.isOpened():
            is_there, frame = capture.read()
            if not is_there:
                return
            yield number, np.asarray(frame, np.uint8)
            number += 1
    finally:
        capture.release()
