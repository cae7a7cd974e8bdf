"""What is no picture is known as none: nothing that OpenCV raises comes through."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from pano3d.data.pictures import decode_picture


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_picture_is_decoded() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    encoded = cv2.imencode(".png", image)[1].tobytes()
    assert np.array_equal(decode_picture(encoded, cv2.IMREAD_COLOR), image)


@pytest.mark.parametrize("data", [b"", b"no picture", png_of(65500, 65500)])
def test_what_is_no_picture_is_none(data: bytes) -> None:
    assert decode_picture(data, cv2.IMREAD_UNCHANGED) is None
