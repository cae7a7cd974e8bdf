"""The text export of a `.sens` file that many preprocessors keep instead of it: color/, depth/, pose/ and intrinsic/.

Frames are named by their number without padding, so they are sorted as numbers: 10.jpg comes after 9.jpg.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.pictures import decode_picture
from pano3d.data.scannet.sens import DamagedFrame, SensHeader, decode_color
from pano3d.types import DataError

_COLOR_SUFFIXES = (".jpg", ".png")


def read_matrix(path: Path) -> NDArray[np.float64]:
    """A 4x4 matrix of text; `inf`, `-inf` and `nan` are numbers here.

    Raises:
        DataError: missing or not sixteen numbers.
    """
    try:
        values = [float(word) for word in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError) as error:
        raise DataError(f"reading {path}: expected a 4x4 matrix of text ({error})") from error
    if len(values) != 16:
        raise DataError(f"reading {path}: expected 16 numbers, found {len(values)}")
    return np.array(values).reshape(4, 4)


class ExportedFrames:
    """The same frames as `SensFile`, read from an export; depth is in millimetres, times are not exported.

    Raises:
        DataError: a folder is missing, or frames of color/, depth/ and pose/ do not match.
    """

    def __init__(self, folder: Path):
        self.path = Path(folder)
        self._color = self._numbered("color", _COLOR_SUFFIXES)
        self._depth = self._numbered("depth", (".png",))
        poses = self._numbered("pose", (".txt",))
        numbers = sorted(self._color)
        for name, found in (("depth", self._depth), ("pose", poses)):
            odd = sorted(set(found) ^ set(numbers))
            if odd:
                raise DataError(f"reading {self.path}: color/ and {name}/ do not hold the same frames: {odd[:5]}")
        if numbers != list(range(len(numbers))):
            raise DataError(f"reading {self.path}: expected frames 0 to {len(numbers) - 1}, found up to {numbers[-1]}")
        self.poses: NDArray[np.float32] = np.stack([read_matrix(poses[n]) for n in numbers]).astype(np.float32)
        color, depth = self._image(self._color[0]), self._image(self._depth[0])
        matrix = {
            f"{kind}_{camera}": read_matrix(self.path / "intrinsic" / f"{kind}_{camera}.txt")
            for camera in ("color", "depth")
            for kind in ("intrinsic", "extrinsic")
        }
        self.header = SensHeader(
            sensor="exported",
            **matrix,
            color_codec=self._color[0].suffix[1:],
            depth_codec="png",
            color_size=(color.shape[1], color.shape[0]),
            depth_size=(depth.shape[1], depth.shape[0]),
            depth_shift=1000.0,
            num_frames=len(numbers),
        )

    def __len__(self) -> int:
        return self.header.num_frames

    def _numbered(self, folder: str, suffixes: tuple[str, ...]) -> dict[int, Path]:
        paths = [path for path in (self.path / folder).glob("*") if path.suffix in suffixes]
        strange = [path.name for path in paths if not path.stem.isdecimal()]
        if strange or not paths:
            what = f"{strange[0]} is not named by a frame number" if strange else f"no {'/'.join(suffixes)} file"
            raise DataError(f"reading {self.path / folder}: {what}; expected the text export of a .sens file")
        return {int(path.stem): path for path in paths}

    def _image(self, path: Path) -> NDArray[Any]:
        image = decode_picture(path.read_bytes(), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise DamagedFrame(f"reading {path}: not an image")
        return image

    def color(self, frame: int, reduction: int = 1) -> NDArray[np.uint8]:
        """(H W 3) RGB; `reduction` as in `SensFile.color`."""
        path = self._color[frame]
        image = decode_color(path.read_bytes(), reduction)
        width, height = self.header.color_size
        if image is None or image.shape[:2] != (height // reduction, width // reduction):
            raise DamagedFrame(f"reading {path}: expected an image of {width}x{height}")
        return image

    def depth(self, frame: int) -> NDArray[np.uint16]:
        """(h w) millimetres, 0 = missing."""
        image = self._image(self._depth[frame])
        if image.dtype != np.uint16 or image.shape != self.header.depth_size[::-1]:
            raise DamagedFrame(f"reading {self._depth[frame]}: expected 16-bit depth of {self.header.depth_size}")
        return image
