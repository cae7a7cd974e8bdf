"""`depth.bin` of ScanNet++'s iPhone: 256 x 192 pixels a frame in one of two packings, told apart by trying."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pano3d.types import DataError

SIZE = (256, 192)
_PIXELS = SIZE[0] * SIZE[1]
_FLOATS, _SHORTS = 4 * _PIXELS, 2 * _PIXELS
_CHUNK = 2**20


def read_depth(path: Path, frames: list[int]) -> dict[int, NDArray[np.uint16]]:
    """(192 256) millimetres, 0 missing, of the frames asked for.

    The file is either one raw-deflate stream of float32 metres, or per frame a byte count and a block: LZ4 of uint16
    millimetres, or raw deflate of float32 metres.

    Raises:
        DataError: neither packing fits, the file is cut, or it has no such frame.
    """
    wanted = set(frames)
    try:
        found = {n: depth for n, depth in _all_frames(path) if n in wanted}
    except OSError as error:
        raise DataError(f"reading {path}: {error.strerror or error}") from error
    missing = sorted(wanted - set(found))
    if missing:
        raise DataError(f"reading {path}: it has no frame {missing[0]}; the file was cut, or is of another recording")
    return found


def _all_frames(path: Path) -> Iterator[tuple[int, NDArray[np.uint16]]]:
    if _is_one_stream(path):
        yield from enumerate(_stream_frames(path))
        return
    with open(path, "rb") as file:
        number = 0
        while head := file.read(4):
            yield number, _block_frame(file, head, f"reading {path}: frame {number}")
            number += 1


def _inflated(path: Path) -> Iterator[bytes]:
    """The raw-deflate stream piece by piece, never more than a megabyte or so at once."""
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    with open(path, "rb") as file:
        while data := file.read(_CHUNK):
            while data:
                yield decoder.decompress(data, _CHUNK)
                data = decoder.unconsumed_tail
    yield decoder.flush()
    if not decoder.eof or decoder.unused_data:
        raise zlib.error("the stream does not end where the file does")


def _is_one_stream(path: Path) -> bool:
    try:
        total = sum(len(piece) for piece in _inflated(path))
    except zlib.error:
        return False
    return total > 0 and total % _FLOATS == 0


def _stream_frames(path: Path) -> Iterator[NDArray[np.uint16]]:
    pending = b""
    for piece in _inflated(path):
        pending += piece
        while len(pending) >= _FLOATS:
            yield _millimetres(pending[:_FLOATS])
            pending = pending[_FLOATS:]


def _block_frame(file: BinaryIO, head: bytes, where: str) -> NDArray[np.uint16]:
    if len(head) != 4:
        raise DataError(f"{where}: the file ends inside a byte count; it was cut, download it again")
    (count,) = struct.unpack("<I", head)
    if count > 2 * _FLOATS:
        raise DataError(f"{where}: a block of {count} bytes; neither packing of depth.bin fits")
    block = file.read(count)
    if len(block) != count:
        raise DataError(f"{where}: the file ends inside the block; it was cut, download it again")
    shorts = _lz4(block)
    if shorts is not None:
        return np.frombuffer(shorts, "<u2").reshape(SIZE[::-1]).astype(np.uint16)
    try:
        floats = zlib.decompressobj(-zlib.MAX_WBITS).decompress(block, _FLOATS + 1)
    except zlib.error as error:
        raise DataError(f"{where}: neither LZ4 nor raw deflate ({error})") from error
    if len(floats) != _FLOATS:
        raise DataError(f"{where}: {len(floats)} bytes; {SIZE[0]}x{SIZE[1]} float32 are {_FLOATS}")
    return _millimetres(floats)


def _lz4(block: bytes) -> bytes | None:
    """The block's uint16 pixels, or None where it is no LZ4 block of exactly that size."""
    import pyarrow

    try:
        data: bytes = pyarrow.decompress(block, _SHORTS, codec="lz4_raw", asbytes=True)
    except (OSError, pyarrow.ArrowException):
        return None
    return data if len(data) == _SHORTS else None


def _millimetres(data: bytes) -> NDArray[np.uint16]:
    meters = np.frombuffer(data, "<f4").reshape(SIZE[::-1])
    known = np.isfinite(meters) & (meters > 0) & (meters < 65.535)
    return np.where(known, np.rint(1000.0 * np.where(known, meters, 0)), 0).astype(np.uint16)
