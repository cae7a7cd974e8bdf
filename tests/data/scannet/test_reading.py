"""ScanNet's files read back value by value, through the door that outside fixtures use."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from pano3d.data.scannet.label_map import read_label_map
from pano3d.data.scannet.sens import SensFile
from tests.data.raw.building import PILLOW, THINGS
from tests.data.raw.scannet import (
    ALIGNMENT,
    COLOR_SIZE,
    DEPTH_SIZE,
    K_COLOR,
    K_DEPTH,
    RawScan,
    export_text,
    instance_of,
    nyu40_id,
    raw_id,
    write_ply,
    write_scan,
    write_sens,
)
from tests.doors import datasets


@pytest.fixture
def scan(tmp_path: Path) -> RawScan:
    return write_scan(tmp_path)


def read(scan: RawScan) -> dict:
    return datasets.scannet(scan.folder, scan.label_map)


def test_the_stream_comes_out_as_it_was_written(scan: RawScan) -> None:
    out = read(scan)
    assert out["color"].shape == (6, COLOR_SIZE[1], COLOR_SIZE[0], 3)
    assert out["depth"].shape == (6, DEPTH_SIZE[1], DEPTH_SIZE[0])
    assert out["depth"].dtype == np.uint16
    for number in range(6):
        np.testing.assert_array_equal(out["depth"][number], scan.depths[number])
        off = np.abs(out["color"][number].astype(int) - scan.colors[number])
        assert np.median(off) <= 2
        assert off.mean() < 4
    np.testing.assert_allclose(out["poses"], np.stack(scan.poses), atol=1e-6)
    assert out["usable_frames"].tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_allclose(out["intrinsic_color"][:3, :3], K_COLOR, atol=1e-5)
    np.testing.assert_allclose(out["intrinsic_depth"][:3, :3], K_DEPTH, atol=1e-5)
    assert out["t_color"].tolist() == [1000 + 33 * n for n in range(6)]
    assert out["t_depth"].tolist() == [1010 + 33 * n for n in range(6)]
    np.testing.assert_array_equal(out["imu"], scan.imu)
    assert out["imu_t"].tolist() == [5000, 5001]


def test_the_writer_agrees_with_a_parse_of_its_own(scan: RawScan) -> None:
    """Offsets as tabulated in the format's description, not as the reader has them."""
    data = (scan.folder / "scene0000_00.sens").read_bytes()
    n = struct.unpack_from("<Q", data, 4)[0]
    assert data[12 : 12 + n] == b"StructureSensor"
    assert struct.unpack_from("<f", data, 12 + n)[0] == np.float32(K_COLOR[0, 0])
    assert struct.unpack_from("<f", data, 140 + n)[0] == np.float32(K_DEPTH[0, 0])
    assert struct.unpack_from("<2i", data, 268 + n) == (2, 1)
    assert struct.unpack_from("<4I", data, 276 + n) == (*COLOR_SIZE, *DEPTH_SIZE)
    assert struct.unpack_from("<f", data, 292 + n)[0] == 1000
    assert struct.unpack_from("<Q", data, 296 + n)[0] == 6
    sizes = struct.unpack_from("<2Q", data, 304 + n + 80)
    assert data[304 + n + 96 : 304 + n + 98] == b"\xff\xd8"  # a JPEG starts here
    second = struct.unpack_from("<Q", data, 304 + n + 96 + sum(sizes) + 64)[0]
    assert second == 1033


def test_mesh_and_annotation_per_vertex(scan: RawScan) -> None:
    out, mesh = read(scan), scan.mesh
    np.testing.assert_array_equal(out["vertices"], mesh.vertices)
    np.testing.assert_array_equal(out["faces"], mesh.faces)
    np.testing.assert_array_equal(out["colors"], mesh.colors)
    np.testing.assert_array_equal(out["segments"], scan.segment_of_patch[mesh.patch])
    np.testing.assert_array_equal(out["instance_id"], instance_of(mesh.thing))
    for name, id_of in (("raw_id", raw_id), ("nyu40_id", nyu40_id)):
        np.testing.assert_array_equal(out[name], np.array([id_of(thing.label) for thing in THINGS])[mesh.thing])
    # Object 0 is not "unannotated": the floor has instance 1, the object nobody named has 0.
    assert out["instance_id"][mesh.thing == 0].min() == 1
    assert out["instance_id"][mesh.thing == 10].max() == 0
    np.testing.assert_allclose(out["axis_alignment"], ALIGNMENT, atol=1e-6)
    np.testing.assert_allclose(
        out["vertices_aligned"], mesh.vertices @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3], atol=1e-5
    )


def test_the_two_dimensional_annotation(scan: RawScan) -> None:
    out = read(scan)
    raw = np.array([raw_id(thing.label) for thing in THINGS])
    np.testing.assert_array_equal(out["instance"][0], instance_of(scan.things[0]))
    np.testing.assert_array_equal(out["label"][1], raw[scan.things[1]])
    assert not out["label"][2].any()


@pytest.mark.parametrize(("color_codec", "depth_codec"), [(0, 0), (1, 0), (1, 1), (2, 0)])
def test_every_codec_gives_the_same_frames(scan: RawScan, color_codec: int, depth_codec: int) -> None:
    path = scan.folder / "scene0000_00.sens"
    before = read(scan)
    write_sens(path, scan, color_codec, depth_codec)
    out = read(scan)
    np.testing.assert_array_equal(out["depth"], before["depth"])
    if color_codec == 2:
        np.testing.assert_array_equal(out["color"], before["color"])
    else:
        np.testing.assert_array_equal(out["color"], np.stack(scan.colors))


def test_the_text_export_gives_the_same_scene(tmp_path: Path) -> None:
    scan = write_scan(tmp_path, frames=12, lost=(2, 7))
    before = read(scan)
    export_text(scan)
    out = read(scan)
    for name in ("color", "depth", "usable_frames", "vertices", "instance_id", "label"):
        np.testing.assert_array_equal(out[name], before[name])
    np.testing.assert_allclose(out["poses"], before["poses"], atol=1e-6)
    np.testing.assert_allclose(out["intrinsic_color"], before["intrinsic_color"], atol=1e-5)


def test_opening_decodes_nothing_and_leaves_no_file_open(scan: RawScan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pano3d.data.scannet.sens.cv2.imdecode", lambda *_: pytest.fail("decoded while opening"))
    path = scan.folder / "scene0000_00.sens"
    frames = SensFile(path)
    assert len(frames) == 6
    held = [Path(f"/proc/self/fd/{fd.name}").resolve() for fd in Path("/proc/self/fd").iterdir()]
    assert path.resolve() not in held


def test_a_reduced_picture_is_the_whole_one_made_smaller(scan: RawScan) -> None:
    frames = SensFile(scan.folder / "scene0000_00.sens")
    whole, half = frames.color(0), frames.color(0, reduction=2)
    assert half.shape == (60, 80, 3)
    means = whole.reshape(60, 2, 80, 2, 3).mean(axis=(1, 3))
    assert np.abs(means - half).mean() < 2


def test_a_frame_with_half_a_pose_is_not_used(scan: RawScan) -> None:
    scan.poses[4][1, 3] = np.nan
    scan.poses[5][:3, :3] *= 2
    write_sens(scan.folder / "scene0000_00.sens", scan)
    assert read(scan)["usable_frames"].tolist() == [0, 1, 3]


def test_scenes_without_alignment_annotation_or_zips(tmp_path: Path) -> None:
    scan = write_scan(tmp_path, aligned=False, folder="scans_test")
    for path in scan.folder.glob("*.zip"):
        path.unlink()
    for path in scan.folder.glob("*.json"):
        path.unlink()
    out = read(scan)
    np.testing.assert_array_equal(out["axis_alignment"], np.eye(4))
    np.testing.assert_array_equal(out["vertices_aligned"], out["vertices"])
    assert [out[name] for name in ("segments", "instance_id", "raw_id", "nyu40_id", "label", "instance")] == [None] * 6


def edit_aggregation(scan: RawScan, change) -> None:
    path = scan.folder / "scene0000_00.aggregation.json"
    content = json.loads(path.read_text())
    change(content["segGroups"])
    path.write_text(json.dumps(content))


def test_the_later_of_two_objects_takes_a_shared_segment(scan: RawScan) -> None:
    bed = int(scan.segment_of_patch[np.unique(scan.mesh.patch[scan.mesh.thing == 8])[0]])
    edit_aggregation(scan, lambda groups: groups[PILLOW]["segments"].append(bed))
    out = read(scan)
    assert set(out["instance_id"][out["segments"] == bed]) == {PILLOW + 1}


def test_a_label_without_a_row_is_void_with_a_warning(scan: RawScan, caplog: pytest.LogCaptureFixture) -> None:
    edit_aggregation(scan, lambda groups: groups[7].update(label="thing from elsewhere"))
    out = read(scan)
    table = scan.mesh.thing == 7
    assert not out["raw_id"][table].any()
    assert not out["nyu40_id"][table].any()
    assert set(out["instance_id"][table]) == {8}
    assert "thing from elsewhere" in caplog.text


def test_no_objects_at_all(scan: RawScan) -> None:
    edit_aggregation(scan, lambda groups: groups.clear())
    assert not read(scan)["instance_id"].any()


def test_an_empty_nyu40id_is_other_property(scan: RawScan) -> None:
    ids = read_label_map(scan.label_map).by_label["thing without class"]
    assert (ids.raw_id, ids.nyu40_id) == (999, 40)


def test_a_mesh_with_a_property_nobody_asked_for(scan: RawScan) -> None:
    write_ply(scan.folder / "scene0000_00_vh_clean_2.ply", scan.mesh, extra=True)
    np.testing.assert_array_equal(read(scan)["vertices"], scan.mesh.vertices)
    np.testing.assert_array_equal(read(scan)["colors"], scan.mesh.colors)
