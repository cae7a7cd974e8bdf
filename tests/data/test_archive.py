"""The scene archive: what goes in comes out, the same scene gives the same bytes, and damage is refused by name."""

import io
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


@pytest.mark.parametrize("name", ["scene0000\n", "a/b", "", "x" * 65])
def test_hostile_scene_name(path, name):
    edit_header(path, lambda header: header.update(name=name))
    with pytest.raises(DataError, match=r"scene\.json: name"):
        read_scene(path)


def test_ids_out_of_range(path):
    for number in (0, 65536, -1, 1.5):
        edit_header(path, lambda header, number=number: header["segments"][0].update(id=number))
        with pytest.raises(DataError, match=r"segment ids must be integers in 1\.\.65535"):
            read_scene(path)


def test_the_same_frame_or_member_twice(path):
    whole = path.read_bytes()
    edit_header(path, lambda header: header["frames"].append(header["frames"][0]))
    with pytest.raises(DataError, match="frame 000000 occurs twice"):
        read_scene(path)
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("overlap.npy", b"other")
    with pytest.raises(DataError, match="a member name occurs twice"):
        read_scene(path)


def test_a_compressed_member_is_refused_before_it_unfolds(path):
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("color/000009.png", bytes(1 << 24))
    with pytest.raises(DataError, match=r"color/000009\.png' is compressed"):
        read_scene(path)


def npy(array, **named):
    buffer = io.BytesIO()
    np.save(buffer, array, **named)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.full((3, 3), np.nan, np.float16)), "not finite"),
        (npy(np.ones((2, 3), np.float16)), r"\(2, 3\) for 3 frames"),
        (npy(np.ones((3, 3), complex)), "complex128"),
        (npy(np.full((3, 3), print), allow_pickle=True), "not an array"),
        (b"", "not an array"),
    ],
)
def test_overlap_that_cannot_be_trusted(path, content, message):
    rewrite(path, lambda name, data: content if name == "overlap.npy" else data)
    with pytest.raises(DataError, match=f"overlap.npy.*{message}"):
        _ = read_scene(path).overlap


def test_surface_with_nan(path):
    def change(name, data):
        if name != "surface.npz":
            return data
        outer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as inner, zipfile.ZipFile(outer, "w") as other:
            xyz = np.load(io.BytesIO(inner.read("xyz.npy")))
            xyz[1, 2] = np.nan
            other.writestr("xyz.npy", npy(xyz))
            other.writestr("segment_id.npy", inner.read("segment_id.npy"))
        return outer.getvalue()

    rewrite(path, change)
    with pytest.raises(DataError, match=r"surface\.npz has points that are not finite"):
        _ = read_scene(path).surface


def test_any_damage_is_a_data_error_or_none(path):
    """A flipped byte or a cut anywhere: reading all gives a DataError that names the archive, or what was written."""
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = faults = 0
    for position in [*generator.integers(0, len(whole), 100), *range(len(whole) - 200, len(whole), 8)]:
        damaged = bytearray(whole)
        damaged[position] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged if position % 3 else whole[:position])
        try:
            archive = read_scene(path)
            for index in range(len(archive)):
                archive.frame(index)
            _ = archive.overlap, archive.surface
        except DataError as error:
            faults += 1
            refused += str(path) in str(error)
    assert refused == faults > 80
