"""The scene archive: what goes in comes out, the same scene gives the same bytes, and damage is refused by name."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from pano3d.data.archive import SceneSegment, read_scene, write_scene
from pano3d.types import DataError

from .scenes import make_scene


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "scene0000.zip"
    write_scene(path, make_scene())
    return path


def rewrite(path, change):
    """Write the archive again with `change(name, data) -> data, None (drop) or (new name, data)`."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            changed = change(name, data)
            if changed is not None:
                archive.writestr(*(changed if isinstance(changed, tuple) else (name, changed)))


def edit_header(path, edit):
    def change(name, data):
        if name != "scene.json":
            return data
        header = json.loads(data)
        edit(header)
        return json.dumps(header).encode()

    rewrite(path, change)


def test_round_trip(path):
    scene, archive = make_scene(), read_scene(path)
    assert (archive.name, archive.license, len(archive)) == ("scene0000", "Apache-2.0", 3)
    for index, frame in enumerate(scene.frames):
        read = archive.frame(index)
        for field in ("color", "depth_mm", "segment_id", "depth_exact_mm", "ambiguous", "shadow"):
            np.testing.assert_array_equal(getattr(read, field), getattr(frame, field), err_msg=field)
        np.testing.assert_array_equal(read.scan_from_camera, frame.scan_from_camera)
    np.testing.assert_array_equal(archive.surface.xyz, scene.surface.xyz)
    np.testing.assert_array_equal(archive.overlap, scene.overlap)


def test_segments_are_counted(path):
    wall, chair = read_scene(path).segments
    assert (chair.pixels, chair.views) == (3 * 64, 3)  # an 8x8 box in each of three frames
    assert wall.pixels == 3 * (20 * 32 - 64)


def test_equal_scenes_give_equal_bytes(path, tmp_path):
    write_scene(tmp_path / "again.zip", make_scene())
    assert (tmp_path / "again.zip").read_bytes() == path.read_bytes()


def test_nothing_is_left_when_writing_fails(tmp_path):
    scene = make_scene()
    with pytest.raises(DataError, match=r"ids \[2\]"):
        write_scene(tmp_path / "a.zip", replace(scene, segments=[SceneSegment(1, "wall", "wall", False)]))
    assert list(tmp_path.iterdir()) == []


def test_truncated(path):
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="not a whole"):
        read_scene(path)


def test_flipped_byte_names_the_member(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"depth/000001.png") + 60] ^= 0xFF
    path.write_bytes(data)
    archive = read_scene(path)
    with pytest.raises(DataError, match=r"depth/000001\.png is damaged"):
        archive.frame(1)


def test_missing_member(path):
    rewrite(path, lambda name, data: None if name == "segments/000002.png" else data)
    with pytest.raises(DataError, match=r"segments/000002\.png is missing"):
        read_scene(path)


def test_path_trick(path):
    rewrite(path, lambda name, data: ("../evil.npy", data) if name == "overlap.npy" else data)
    with pytest.raises(DataError, match="leads out of the archive"):
        read_scene(path)


def test_nan_pose(path):
    def edit(header):
        header["frames"][1]["scan_from_camera"][0][3] = float("nan")

    edit_header(path, edit)
    with pytest.raises(DataError, match="frame 000001: scan_from_camera"):
        read_scene(path)


def test_unknown_segment_id(path):
    edit_header(path, lambda header: header["segments"].pop())
    with pytest.raises(DataError, match="frame 000000 has segment id 2"):
        read_scene(path).segment_id(0)


def test_hostile_frame_name(path):
    def edit(header):
        header["frames"][0]["name"] = "../../x"

    edit_header(path, edit)
    with pytest.raises(DataError, match="frame name"):
        read_scene(path)


def test_wrong_image_size(path):
    def edit(header):
        header["frames"][0]["width"] = 31

    edit_header(path, edit)
    with pytest.raises(DataError, match=r"color/000000\.png is 32x24"):
        read_scene(path).color(0)
