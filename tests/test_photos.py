"""What people really have in their folders."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pano3d.photos import find_photos, fit_image, read_photo, read_photos, read_video, spread
from pano3d.types import DataError
from tests.small_model import write_photos


def halves(width: int, height: int) -> np.ndarray:
    """Left half red, right half blue."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2, 0] = 255
    picture[:, width // 2 :, 2] = 255
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_photo_upright(tmp_path: Path, orientation: int) -> None:
    """The stored pixels are what the camera would store for this orientation of one upright picture."""
    upright = Image.fromarray(np.dstack([np.arange(64 * 48).reshape(48, 64) // 12] * 3).astype(np.uint8))
    flips = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # Pillow's codes, inverse of what the tag asks
    stored = upright
    for code in flips.get(orientation, []):
        stored = stored.transpose(code)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    image, size = read_photo(tmp_path / "a.png", 64)
    assert size == (64, 48)
    np.testing.assert_array_equal(image, np.asarray(upright))


def test_a_large_jpeg_is_decoded_smaller_and_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: stored landscape, shown portrait
    Image.fromarray(halves(1600, 1200)).save(tmp_path / "a.jpg", exif=exif)
    image, size = read_photo(tmp_path / "a.jpg", 64)
    assert size == (1200, 1600)
    assert image.shape[0] > image.shape[1] >= 128
    assert image.shape[0] < 1600
    assert image[5, 64].argmax() == 0  # turned clockwise, the left half is on top
    assert image[-5, 64].argmax() == 2


def test_bad_files_are_left_out_with_their_reason(tmp_path: Path) -> None:
    write_photos(tmp_path, 2)
    (tmp_path / "text.jpg").write_text("not a picture")
    whole = (tmp_path / "photo_1.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    (tmp_path / "twin.jpg").write_bytes(whole)
    (tmp_path / "bomb.png").write_bytes(bomb(60_000, 60_000))
    photos = read_photos(find_photos([tmp_path]), 48, 32)
    assert photos.names == ("photo_1", "photo_2")
    assert photos.colors.shape == (2, 32, 48, 3)
    reasons = {Path(path).name: reason for path, reason in photos.left_out.items()}
    assert set(reasons) == {"text.jpg", "cut.jpg", "dot.png", "twin.jpg", "bomb.png"}
    assert "not an image" in reasons["text.jpg"]
    assert "damaged" in reasons["cut.jpg"]
    assert "1x1" in reasons["dot.png"]
    assert reasons["twin.jpg"] == "the same picture as photo_1.jpg"
    assert "million pixels" in reasons["bomb.png"]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no")
    with pytest.raises(DataError, match=r"none of 1 files can be used \(a.jpg: not an image"):
        read_photos(find_photos([tmp_path]), 48, 32)
    with pytest.raises(DataError, match="none in"):
        find_photos([write_photos(tmp_path / "empty", 0)])
    with pytest.raises(DataError, match="does not exist"):
        find_photos([tmp_path / "missing"])


def test_thousands_of_photos_are_thinned_before_they_are_read(tmp_path: Path) -> None:
    source = write_photos(tmp_path / "few", 5)
    paths = [source / f"photo_{1 + index % 5}.jpg" for index in range(5000)]
    read: list[None] = []
    photos = read_photos(paths, 48, 32, maximum=4, on_done=lambda: read.append(None))
    assert len(read) == 4
    assert "5000 photos, 4 of them used" in photos.notes[0]
    assert spread(5000, 4) == [0, 1666, 3333, 4999]


def test_the_nearest_photo_takes_the_place_of_one_that_is_of_no_use(tmp_path: Path) -> None:
    source = write_photos(tmp_path, 9)
    (source / "photo_1.jpg").write_text("no")
    (source / "photo_9.jpg").write_bytes((source / "photo_5.jpg").read_bytes())
    photos = read_photos(find_photos([source]), 48, 32, maximum=3)
    assert photos.names == ("photo_2", "photo_5", "photo_8")
    assert [Path(path).name for path in photos.left_out] == ["photo_1.jpg", "photo_9.jpg"]
    for number in range(2, 10):
        (source / f"photo_{number}.jpg").write_text("no")
    with pytest.raises(DataError, match="none of 4 files"):
        read_photos(find_photos([source]), 48, 32, maximum=2)


def test_files_come_in_the_order_a_person_counts(tmp_path: Path) -> None:
    write_photos(tmp_path, 11)
    assert [path.stem for path in find_photos([tmp_path])] == [f"photo_{number}" for number in range(1, 12)]


def test_portraits_decide_where_they_are_most(tmp_path: Path) -> None:
    write_photos(tmp_path / "tall", 2, width=48, height=64)
    write_photos(tmp_path / "wide", 1, width=64, height=48, ending="png")
    photos = read_photos(find_photos([tmp_path / "tall", tmp_path / "wide"]), 48, 32)
    assert photos.colors.shape == (3, 48, 32, 3)
    assert "1 of 3 photos are turned the other way" in photos.notes[0]
    assert photos.names == ("photo_1", "photo_2", "photo_1-2")


def test_16_bit_and_transparent_photos_are_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((48, 64), 40_000, np.uint16))
    Image.new("RGBA", (64, 48), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert read_photo(tmp_path / "grey.png", 64)[0][0, 0].tolist() == [156, 156, 156]  # 40000 / 256
    assert read_photo(tmp_path / "clear.png", 64)[0][0, 0].tolist() == [10, 20, 30]


def test_floating_point_pixels_are_not_taken_for_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((48, 64), 0.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="floating-point numbers of unknown range"):
        read_photo(tmp_path / "float.tif", 64)


def test_a_crop_carries_pixels_and_intrinsics() -> None:
    """100x60 cropped to 80x60 about the centre, then halved: photo column 10 - 0.5 is the left edge, -0.5."""
    _, crop = fit_image(np.zeros((60, 100, 3), np.uint8), (100, 60), 40, 30)
    assert (crop.left, crop.top, crop.scale_x, crop.scale_y) == (10, 0, 0.5, 0.5)
    assert crop.to_image(9.5, -0.5) == (-0.5, -0.5)
    intrinsics = np.array([[50.0, 0, 19.5], [0, 50, 14.5], [0, 0, 1]])
    of_photo = crop.photo_intrinsics(intrinsics)
    np.testing.assert_allclose(of_photo, [[100, 0, 49.5], [0, 100, 29.5], [0, 0, 1]])  # its own centre


def test_a_video_gives_sharp_frames_spread_over_its_motion(tmp_path: Path) -> None:
    """Every second frame is blurred; the camera rests at first, then pans: most frames come from the pan."""
    path = tmp_path / "pan.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 120))
    wide = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 60, 3), dtype=np.uint8), (800, 120))
    for number in range(40):
        offset = 16 * max(0, number - 20)
        frame = np.ascontiguousarray(wide[:, offset : offset + 160])
        writer.write(cv2.GaussianBlur(frame, (0, 0), 6) if number % 2 else frame)
    writer.release()
    photos = read_video(path, 48, 32, 4)
    numbers = [int(name.rsplit("_", 1)[1]) for name in photos.names]
    assert len(numbers) == 4
    assert all(number % 2 == 0 for number in numbers)
    assert sum(number >= 20 for number in numbers) >= 2
    (tmp_path / "text.mp4").write_text("no")
    with pytest.raises(DataError, match="no frame"):
        read_video(tmp_path / "text.mp4", 48, 32, 4)
