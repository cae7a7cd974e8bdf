"""ScanNet's `.sens` container, version 4, little endian: opened by its index, decoded frame by frame when asked for.

Colour codecs: raw RGB8, PNG, JPEG. Depth codecs: raw and zlib uint16. The proprietary depth codec is refused by name.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.pictures import decode_picture
from pano3d.types import DataError

VERSION = 4
COLOR_CODECS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_CODECS = {0: "raw", 1: "zlib", 2: "occi"}
FRAME_HEAD = np.dtype(
    [("pose", "<f4", (4, 4)), ("t_color", "<u8"), ("t_depth", "<u8"), ("color_bytes", "<u8"), ("depth_bytes", "<u8")]
)
IMU_RECORD = np.dtype([("vectors", "<f8", (5, 3)), ("t", "<u8")])
_FIXED = struct.Struct("<64f2i4IfQ")
_MAX_NAME, _MAX_SIDE = 4096, 16384
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


@dataclass(frozen=True)
class SensHeader:
    """Sizes are (width, height); matrices (4 4) float64; metres = stored depth / depth_shift."""

    sensor: str
    intrinsic_color: NDArray[np.float64]
    extrinsic_color: NDArray[np.float64]
    intrinsic_depth: NDArray[np.float64]
    extrinsic_depth: NDArray[np.float64]
    color_codec: str
    depth_codec: str
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_shift: float
    num_frames: int


class DamagedFrame(DataError):
    """One frame of a recording cannot be decoded; the others can."""


def decode_color(data: bytes, reduction: int) -> NDArray[np.uint8] | None:
    """(H W 3) RGB of an encoded image at 1, 1/2, 1/4 or 1/8 of its size; None where it is none."""
    flags = _REDUCED.get(reduction, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    image = decode_picture(data, flags)
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


class SensFile:
    """One recording. Opening it walks over the frames' heads and decodes nothing; no file stays open between calls.

    poses: (N 4 4) float32 scan_from_camera as stored, -inf where tracking failed. t_color, t_depth: (N,) uint64,
    microseconds.

    Raises:
        DataError: not version 4, a codec that cannot be read, cut, or another number of frames than the header says.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                self.header, start = self._read_header(file)
                self._index_frames(file, start, size)
        except OSError as error:
            raise DataError(f"reading {self.path}: {error.strerror or error}") from error

    def __len__(self) -> int:
        return self.header.num_frames

    def _take(self, file: Any, count: int, what: str) -> bytes:
        data: bytes = file.read(count)
        if len(data) != count:
            raise DataError(f"reading {self.path}: the file ends inside {what}; it was cut, download it again")
        return data

    def _read_header(self, file: Any) -> tuple[SensHeader, int]:
        version, length = struct.unpack("<IQ", self._take(file, 12, "the header"))
        if version != VERSION:
            raise DataError(
                f"reading {self.path}: expected .sens version {VERSION}, found version {version}; convert it with "
                "ScanNet's own tools"
            )
        if length > _MAX_NAME:
            raise DataError(f"reading {self.path}: a sensor name of {length} bytes; this is no .sens file")
        sensor = self._take(file, length, "the sensor's name").decode("ascii", "replace")
        values = _FIXED.unpack(self._take(file, _FIXED.size, "the header"))
        matrices = np.array(values[:64], np.float64).reshape(4, 4, 4)
        color_codec, depth_codec, *sizes = values[64:70]
        shift, count = values[70], values[71]
        self._check_codecs(color_codec, depth_codec)
        if count == 0:
            raise DataError(f"reading {self.path}: the header promises no frames")
        if not all(0 < side <= _MAX_SIDE for side in sizes):
            raise DataError(f"reading {self.path}: image sizes {sizes}; expected 1 to {_MAX_SIDE}")
        if not (np.isfinite(shift) and shift > 0):
            raise DataError(
                f"reading {self.path}: a depth shift of {shift}; expected a positive number, 1000 in ScanNet"
            )
        for name, matrix in zip(("colour", "depth"), matrices[[0, 2]], strict=True):
            if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
                raise DataError(f"reading {self.path}: the {name} intrinsics are not a camera: {matrix.tolist()}")
        width, height, depth_width, depth_height = sizes
        header = SensHeader(
            sensor,
            intrinsic_color=matrices[0],
            extrinsic_color=matrices[1],
            intrinsic_depth=matrices[2],
            extrinsic_depth=matrices[3],
            color_codec=COLOR_CODECS[color_codec],
            depth_codec=DEPTH_CODECS[depth_codec],
            color_size=(width, height),
            depth_size=(depth_width, depth_height),
            depth_shift=float(shift),
            num_frames=int(count),
        )
        return header, 12 + length + _FIXED.size

    def _check_codecs(self, color: int, depth: int) -> None:
        if color not in COLOR_CODECS:
            raise DataError(f"reading {self.path}: colour codec {color} is unknown; expected one of {COLOR_CODECS}")
        if DEPTH_CODECS.get(depth) == "occi":
            raise DataError(
                f"reading {self.path}: depth codec 2 is the proprietary 'occi' codec, which only its owner's library "
                "reads; export the depth with that library (the text export is read too)"
            )
        if depth not in DEPTH_CODECS:
            raise DataError(f"reading {self.path}: depth codec {depth} is unknown; expected 0 (raw) or 1 (zlib)")

    def _index_frames(self, file: Any, start: int, size: int) -> None:
        count = self.header.num_frames
        if count > (size - start) // FRAME_HEAD.itemsize:
            raise DataError(
                f"reading {self.path}: the header promises {count} frames, the file's {size} bytes cannot hold them; "
                "it was cut, download it again"
            )
        heads, offsets, at = np.zeros(count, FRAME_HEAD), np.zeros(count, np.int64), start
        for frame in range(count):
            file.seek(at)
            heads[frame] = np.frombuffer(self._take(file, FRAME_HEAD.itemsize, f"frame {frame}"), FRAME_HEAD)[0]
            offsets[frame] = at + FRAME_HEAD.itemsize
            at += FRAME_HEAD.itemsize + int(heads["color_bytes"][frame]) + int(heads["depth_bytes"][frame])
            if at > size:
                raise DataError(
                    f"reading {self.path}: frame {frame} of {count} ends {at - size} bytes behind the file's end; "
                    "the file was cut or its frame count lies"
                )
        file.seek(at)
        (records,) = struct.unpack("<Q", self._take(file, 8, f"the IMU count behind {count} frames"))
        end = at + 8 + records * IMU_RECORD.itemsize
        if end != size:
            raise DataError(
                f"reading {self.path}: behind {count} frames and {records} IMU records the file should end at byte "
                f"{end}, it has {size}; it was cut or its frame count lies"
            )
        self._heads, self._offsets, self._imu = heads, offsets, (at + 8, records)
        self.poses: NDArray[np.float32] = heads["pose"]
        self.t_color: NDArray[np.uint64] = heads["t_color"]
        self.t_depth: NDArray[np.uint64] = heads["t_depth"]

    def _payload(self, frame: int, layer: str) -> bytes:
        color, depth = int(self._heads["color_bytes"][frame]), int(self._heads["depth_bytes"][frame])
        start, count = int(self._offsets[frame]), color
        if layer == "depth":
            start, count = start + color, depth
        with open(self.path, "rb") as file:
            file.seek(start)
            return self._take(file, count, f"the {layer} of frame {frame}")

    def color(self, frame: int, reduction: int = 1) -> NDArray[np.uint8]:
        """(H W 3) RGB of one frame.

        Args:
            reduction: 1, 2, 4 or 8: a JPEG is decoded at that fraction of its size, which takes that much less time.
                Only where it divides both sides; other codecs are decoded whole and must be asked for with 1.
        """
        data = self._payload(frame, "color")
        width, height = self.header.color_size
        if self.header.color_codec == "raw":
            if len(data) != width * height * 3:
                raise self._wrong(frame, "color", f"{len(data)} bytes for {width}x{height} RGB")
            return np.frombuffer(data, np.uint8).reshape(height, width, 3)
        image = decode_color(data, reduction)
        if image is None:
            raise self._wrong(frame, "color", f"no {self.header.color_codec} image")
        if image.shape[:2] != (height // reduction, width // reduction):
            raise self._wrong(frame, "color", f"{image.shape[1]}x{image.shape[0]}, the header says {width}x{height}")
        return image

    def depth(self, frame: int) -> NDArray[np.uint16]:
        """(h w) as stored, in units of 1 / depth_shift metres; 0 = missing."""
        data = self._payload(frame, "depth")
        width, height = self.header.depth_size
        wanted = width * height * 2
        if self.header.depth_codec == "zlib":
            try:
                decoder = zlib.decompressobj()
                data = decoder.decompress(data, wanted + 1)  # bounded: a small payload may claim gigabytes
            except zlib.error as error:
                raise self._wrong(frame, "depth", f"no zlib stream ({error})") from error
        if len(data) != wanted:
            raise self._wrong(frame, "depth", f"{len(data)} bytes, {width}x{height} uint16 need {wanted}")
        return np.frombuffer(data, "<u2").reshape(height, width).astype(np.uint16)

    def _wrong(self, frame: int, layer: str, found: str) -> DamagedFrame:
        return DamagedFrame(f"reading {self.path}: frame {frame}: {layer}: {found}; the payload is damaged")

    def imu(self) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
        """Rotation rate, acceleration, magnetic field, attitude and gravity (N 5 3), and their times (N,)."""
        start, count = self._imu
        with open(self.path, "rb") as file:
            file.seek(start)
            records = np.frombuffer(self._take(file, count * IMU_RECORD.itemsize, "the IMU records"), IMU_RECORD)
        return records["vectors"].copy(), records["t"].copy()
