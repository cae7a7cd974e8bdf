"""ScanNet's own 2D annotation: one ZIP of PNGs per kind, named by frame number, of the colour image's size."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.pictures import decode_picture
from pano3d.types import DataError

_MAX_BYTES = 64 * 2**20  # of one PNG: a member that claims more is no annotation


def find_label_zip(folder: Path, scene: str, kind: Literal["label", "instance"]) -> Path | None:
    """The filtered ZIP, else the unfiltered one, else None."""
    for ending in ("-filt", ""):
        path = folder / f"{scene}_2d-{kind}{ending}.zip"
        if path.is_file():
            return path
    return None


class LabelImages:
    """The images of one ZIP. kind "label": raw ids, 16 bit; "instance": object id + 1, 8 bit. Never extracted to disk.

    Raises:
        DataError: not a ZIP, or without the folder that its kind must have.
    """

    def __init__(self, path: Path, kind: Literal["label", "instance"], size: tuple[int, int]):
        self.path, self._size = path, size
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise DataError(f"reading {path}: not a whole ZIP ({error}); download it again") from error
        hostile = [name for name in names if name.startswith(("/", "\\")) or ".." in name.split("/") or "\\" in name]
        if hostile:
            raise DataError(f"reading {path}: member {hostile[0]!r} leads out of the archive; refused")
        self._members: dict[int, str] = {}
        for name in names:
            folder, _, file = name.rpartition("/")
            stem, _, suffix = file.rpartition(".")
            if folder in (kind, f"{kind}-filt") and suffix == "png" and stem.isdecimal():
                self._members[int(stem)] = name
        if not self._members:
            raise DataError(f"reading {path}: no member {kind}-filt/<frame>.png or {kind}/<frame>.png")

    def __len__(self) -> int:
        return len(self._members)

    def read(self, frame: int) -> NDArray[np.int64]:
        """(H W) ids of one frame, 0 where none.

        Raises:
            DataError: missing, damaged, or of another size than the colour images.
        """
        if frame not in self._members:
            raise DataError(f"reading {self.path}: no image of frame {frame}")
        member = self._members[frame]
        try:
            with zipfile.ZipFile(self.path) as archive:
                if archive.getinfo(member).file_size > _MAX_BYTES:
                    raise DataError(
                        f"reading {self.path}: member {member} claims more than {_MAX_BYTES} bytes; refused"
                    )
                data = archive.read(member)
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise DataError(f"reading {self.path}: member {member} is damaged ({error})") from error
        image = decode_picture(data, cv2.IMREAD_UNCHANGED)
        if image is None or image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            raise DataError(f"reading {self.path}: member {member} is not an image of ids")
        if image.shape != self._size[::-1]:
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise DataError(
                f"reading {self.path}: member {member} is {found}, colour is {self._size[0]}x{self._size[1]}"
            )
        return image.astype(np.int64)
