"""A raw ScanNet scene to its archive: every value against the building's own arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from pano3d.data.archive import read_scene, write_scene
from pano3d.data.frame_selection import FrameSelection
from pano3d.data.scan_scenes import ViewOptions
from pano3d.data.scannet.scene import ScanNetDataset, build_scene
from pano3d.types import DataError
from tests.data.raw.building import THINGS, cast, pinhole_rays
from tests.data.raw.scannet import (
    ALIGNMENT,
    COLOR_SIZE,
    RawScan,
    instance_of,
    write_label_zips,
    write_scan,
    write_sens,
)

VIEWS = ViewOptions(FrameSelection("every", 1, 100), 160, "sensor", 0.05, 0, merge_stuff=False)
DATASET = ScanNetDataset("scannet", "scannet20", "tag", ("train",), None, "mesh", False, VIEWS, False)
ELSEWHERE = DATASET.__class__("scannet200", "scannet200", "tag", ("train",), None, "mesh", False, VIEWS, False)
FLOOR, CEILING, CHAIR, OFFICE_CHAIR, PILLOW = 1, 2, 6, 7, 10


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> RawScan:
    return write_scan(tmp_path_factory.mktemp("raw"))


def build(scan: RawScan, dataset: ScanNetDataset = DATASET, **views):
    return build_scene(replace(dataset, views=replace(VIEWS, **views)), scan.folder, scan.label_map)


def inner(ids: np.ndarray) -> np.ndarray:
    """Pixels whose 5 x 5 neighbourhood has one id."""
    keep = np.zeros(ids.shape, bool)
    for one in np.unique(ids):
        keep |= binary_erosion(ids == one, np.ones((5, 5)), border_value=1)
    return keep


def test_labels_are_those_of_the_building(scan: RawScan) -> None:
    content = build(scan)
    assert [frame.name for frame in content.frames] == ["000000", "000001", "000003", "000004", "000005"]
    for frame in content.frames:
        truth = instance_of(scan.things[int(frame.name)])
        known = inner(truth)
        assert known.mean() > 0.6
        assert (frame.segment_id == truth)[known].mean() > 0.99


def test_a_segment_keeps_its_id_in_every_view(scan: RawScan) -> None:
    seen = [set(np.unique(frame.segment_id)) for frame in build(scan).frames]
    assert all(FLOOR in ids for ids in seen)
    assert {segment.id for segment in build(scan).segments} == set(range(1, 11))


def test_unlabelled_geometry_hides_what_is_behind_it(scan: RawScan) -> None:
    frame = build(scan).frames[3]
    nobody = inner(scan.things[4]) & (scan.things[4] == 10)
    assert nobody.sum() > 30
    assert not frame.segment_id[nobody].any()


def test_depth_is_the_sensors_own_in_the_colour_camera(scan: RawScan) -> None:
    for frame in build(scan).frames:
        number = int(frame.name)
        depth, _ = cast_colour(scan, number)
        given = (frame.depth_mm > 0) & inner(scan.things[number])
        assert 0.5 < given.mean() < 1
        off = np.abs(frame.depth_mm / 1000 - depth)[given]
        assert np.median(off / depth[given]) < 0.01
        assert set(np.unique(frame.depth_mm)) <= set(np.unique(scan.depths[number]))  # nothing was averaged


def cast_colour(scan: RawScan, number: int):
    from tests.data.raw.building import building
    from tests.data.raw.scannet import K_COLOR

    return cast(building(), scan.poses[number], pinhole_rays(K_COLOR, *COLOR_SIZE))


def test_depth_of_the_mesh_is_exact(scan: RawScan) -> None:
    for frame in build(scan, depth="mesh").frames:
        depth, _ = cast_colour(scan, int(frame.name))
        known = inner(scan.things[int(frame.name)])
        assert np.abs(frame.depth_mm - 1000 * depth)[known].max() < 3


def test_unprojected_depth_lands_on_the_mesh(scan: RawScan) -> None:
    """Intrinsics, pose and depth of the archive together: points lie in the building's planes."""
    from tests.data.raw.building import building

    for frame in build(scan, depth="mesh", max_side=80).frames:
        z = frame.depth_mm[::4, ::4] / 1000
        rays = pinhole_rays(frame.intrinsics, frame.color.shape[1], frame.color.shape[0])[::4, ::4]
        pose = frame.scan_from_camera
        points = (rays * z[..., None] @ pose[:3, :3].T + pose[:3, 3])[z > 0]
        distance = np.full(len(points), np.inf)
        for patch in building():
            outside = np.maximum(np.maximum(patch.low - points, points - patch.high), 0)
            distance = np.minimum(distance, np.linalg.norm(outside, axis=1))
        assert distance.max() < 0.01


def test_a_depth_camera_beside_the_colour_camera(tmp_path: Path) -> None:
    """The same surfaces from 5 cm to the left, carried over: depth agrees with the colour camera's own picture."""
    from tests.data.raw.building import building
    from tests.data.raw.scannet import DEPTH_SIZE, K_DEPTH, holes

    scan = write_scan(tmp_path)
    beside = np.eye(4)
    beside[0, 3] = -0.05
    for number, pose in enumerate(scan.poses):
        if np.isfinite(pose).all():
            depth, _ = cast(building(), pose @ beside, pinhole_rays(K_DEPTH, *DEPTH_SIZE))
            scan.depths[number] = holes(depth)
    write_sens(scan.folder / "scene0000_00.sens", scan, extrinsic_depth=beside)
    for frame in build(scan, max_side=80).frames:
        depth, _ = cast(building(), scan.poses[int(frame.name)], pinhole_rays(frame.intrinsics, 80, 60))
        given = frame.depth_mm > 0
        assert given.mean() > 0.4
        off = np.abs(frame.depth_mm / 1000 - depth)[given] / depth[given]
        assert np.median(off) < 0.01
        # Without the extrinsic the left half would see through edges; only a thin rim may.
        assert (off > 0.05).mean() < 0.06


def test_classes_of_both_readings(scan: RawScan) -> None:
    names = {s.id: (s.class_name, s.source_class, s.is_thing) for s in build(scan).segments}
    assert names[FLOOR] == ("floor", "floor", False)
    assert names[OFFICE_CHAIR] == ("chair", "office chair", True)
    assert names[PILLOW][0] is None
    assert names[CEILING][0] is None
    names = {s.id: s.class_name for s in build(scan, ELSEWHERE).segments}
    assert names[PILLOW] == "pillow"
    assert names[CEILING] == "ceiling"
    assert names[CHAIR] == "chair"


def test_stuff_becomes_one_segment_and_void_does_not(scan: RawScan) -> None:
    content = build(scan, merge_stuff=True)
    walls = [s.id for s in content.segments if s.class_name == "wall"]
    assert walls == [3]
    assert not any((frame.segment_id == 4).any() for frame in content.frames)
    truth = np.where(instance_of(scan.mesh.thing) == 4, 3, instance_of(scan.mesh.thing))
    np.testing.assert_array_equal(content.surface.segment_id, truth)
    np.testing.assert_array_equal(content.surface.xyz, scan.mesh.vertices)


def test_scannets_own_images_as_labels(scan: RawScan) -> None:
    content = build(scan, replace(DATASET, labels="images"))
    for frame in content.frames:
        np.testing.assert_array_equal(frame.segment_id, instance_of(scan.things[int(frame.name)]))


def test_images_that_show_an_object_nobody_listed(tmp_path: Path) -> None:
    scan = write_scan(tmp_path)
    scan.things[1] = np.where(scan.things[1] == 0, 200, scan.things[1])
    original = list(THINGS)
    THINGS.extend([THINGS[0]] * 190)
    try:
        write_label_zips(scan)
    finally:
        THINGS[:] = original
    with pytest.raises(DataError, match=r"frame 1 shows instance 201, which is no object"):
        build(scan, replace(DATASET, labels="images"))
    (scan.folder / "scene0000_00_2d-instance-filt.zip").unlink()
    with pytest.raises(DataError, match=r"set dataset\.labels=mesh"):
        build(scan, replace(DATASET, labels="images"))


def test_alignment_moves_mesh_and_cameras_together(scan: RawScan) -> None:
    plain, aligned = build(scan), build(scan, replace(DATASET, axis_aligned=True))
    for before, after in zip(plain.frames, aligned.frames, strict=True):
        np.testing.assert_allclose(after.scan_from_camera, ALIGNMENT @ before.scan_from_camera, atol=1e-6)
        np.testing.assert_array_equal(after.segment_id, before.segment_id)
        np.testing.assert_array_equal(after.depth_mm, before.depth_mm)
    moved = plain.surface.xyz @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3]
    np.testing.assert_allclose(aligned.surface.xyz, moved, atol=1e-5)


def test_where_sensor_and_mesh_dispute_the_label_is_void(tmp_path: Path) -> None:
    """Something stood before the wall while the camera passed: the mesh does not have it."""
    scan = write_scan(tmp_path)
    scan.depths[0][20:40, 30:60] = 300
    write_sens(scan.folder / "scene0000_00.sens", scan)
    frame = build(scan).frames[0]
    before = np.abs(frame.depth_mm.astype(int) - 300) < 1
    assert before.sum() > 500
    assert not frame.segment_id[before].any()
    assert (frame.segment_id[~before] > 0).mean() > 0.9


def test_frames_are_all_accounted_for(tmp_path: Path) -> None:
    scan = write_scan(tmp_path, frames=8, lost=(2, 6))
    path = scan.folder / "scene0000_00.sens"
    write_sens(path, scan)
    data = bytearray(path.read_bytes())
    at = data.find(b"\xff\xd8", data.find(b"\xff\xd8") + 2)  # the second frame's JPEG
    data[at : at + 2] = b"??"
    path.write_bytes(data)
    content = build(scan, frames=FrameSelection("every", 1, 100))
    assert content.provenance["frames"] == {
        "in": 8,
        "out": 5,
        "dropped": {"damaged": 1, "no pose": 2, "not selected": 0},
    }
    assert "000001" not in [frame.name for frame in content.frames]
    content = build(scan, frames=FrameSelection("every", 3, 100))
    assert content.provenance["frames"]["dropped"]["not selected"] == 4


def test_a_scene_without_any_usable_frame(tmp_path: Path) -> None:
    scan = write_scan(tmp_path, frames=2, lost=(0, 1))
    with pytest.raises(DataError, match="none of 2 frames can be used"):
        build(scan)


def test_small_pieces_become_void(scan: RawScan) -> None:
    for frame in build(scan, minimum_pixels=400).frames:
        ids, counts = np.unique(frame.segment_id[frame.segment_id > 0], return_counts=True)
        assert (counts >= 400).all()
        whole = build(scan).frames[0].segment_id
    assert len(np.unique(whole)) > len(ids)


def test_a_test_scene_has_no_labels(tmp_path: Path) -> None:
    scan = write_scan(tmp_path)
    for path in scan.folder.glob("*.json"):
        path.unlink()
    content = build(scan)
    assert content.segments == []
    assert not any(frame.segment_id.any() for frame in content.frames)


def test_the_archive_reads_back_and_is_the_same_every_time(scan: RawScan, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_scene(tmp_path / f"{name}.zip", build(scan))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    archive = read_scene(tmp_path / "a.zip")
    assert archive.license == "tag"
    assert {source["name"] for source in archive.provenance["sources"]} >= {"scene0000_00.sens", "scene0000_00.txt"}
    overlap = archive.overlap.astype(float)
    assert overlap[0, 1] > 0.3  # both look into the first room
    assert overlap[0, 4] < 0.2  # the other room
    np.testing.assert_array_equal(overlap.diagonal(), 1)
