"""ScanNet++ scenes read back value by value through the door, made into archives, and refused where damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pano3d.data.frame_selection import FrameSelection
from pano3d.data.label_spaces import label_space
from pano3d.data.scan_scenes import ViewOptions
from pano3d.data.scannetpp.annotation import read_class_table
from pano3d.data.scannetpp.cameras import read_colmap, read_nerfstudio
from pano3d.data.scannetpp.scene import ScanNetPPDataset, build_scene
from pano3d.types import ConfigError, DataError
from tests.data.raw import scannetpp as files
from tests.data.raw.building import BED, PILLOW, building, cast, pinhole_rays
from tests.data.raw.scannetpp import RawScene
from tests.doors import datasets

VIEWS = ViewOptions(FrameSelection("every", 1, 100), 180, "mesh", 0.05, 0, merge_stuff=False)
DATASET = ScanNetPPDataset("scannetpp", "scannetpp100", "tag", ("train",), None, "dslr", VIEWS, False)
NAMES = label_space("scannetpp100").names


@pytest.fixture
def raw(tmp_path: Path) -> RawScene:
    files.write_root(tmp_path, {"nvs_sem_train": ["0a1b2c3d4e"]})
    return files.write_scene(tmp_path)


def read(raw: RawScene) -> dict:
    return datasets.scannetpp(raw.root, raw.scene)


def build(raw: RawScene, dataset: ScanNetPPDataset = DATASET):
    return build_scene(dataset, raw.folder, read_class_table(raw.root / "metadata"))


def test_dslr_cameras(raw: RawScene) -> None:
    out = read(raw)
    assert out["dslr_names"] == [f"DSC{n:05d}.JPG" for n in range(6)]
    np.testing.assert_allclose(out["dslr_c2w"], np.stack(raw.poses), atol=1e-6)
    np.testing.assert_allclose(out["dslr_params"], files.FISHEYE - [0, 0, 0.5, 0.5, 0, 0, 0, 0])
    assert out["dslr_size"] == (180, 120)
    assert out["dslr_mask"].shape == (6, 120, 180)
    assert (out["dslr_mask"] == 0).sum() == 20 * 30
    np.testing.assert_allclose(out["dslr_undist_K"][:2, 2], [89.5, 59.5])


def test_undistorted_pictures_are_those_of_a_pinhole(raw: RawScene) -> None:
    """Against the building seen through the undistorted camera: a half-pixel error would show at every edge."""
    out = read(raw)
    rays = pinhole_rays(out["dslr_undist_K"], 180, 120)
    for number in range(6):
        truth = files.paint(building(), raw.poses[number], rays)[0].astype(float)
        off = np.abs(out["dslr_undist_images"][number] - truth)
        assert np.median(off) <= 2
        assert off.mean() < 5


def test_nerfstudio_and_colmap_agree(raw: RawScene) -> None:
    colmap = read_colmap(raw.folder / "dslr/colmap")
    other = read_nerfstudio(raw.folder / "dslr/nerfstudio/transforms.json")
    assert [image.name for image in colmap] == [image.name for image in other]
    for a, b in zip(colmap, other, strict=True):
        np.testing.assert_allclose(a.scan_from_camera, b.scan_from_camera, atol=1e-6)
        np.testing.assert_allclose(a.camera.params, b.camera.params)


@pytest.mark.parametrize("packing", ["lz4", "deflate", "stream"])
def test_phone_frames_and_every_packing_of_their_depth(raw: RawScene, packing: str) -> None:
    files.write_depth(raw, packing)
    out = read(raw)
    assert out["iphone_names"] == ["frame_000004.jpg", "frame_000000.jpg"]  # ids 5 and 9
    assert out["iphone_colmap_names"] == ["video/frame_000004.jpg", "video/frame_000000.jpg"]
    np.testing.assert_allclose(out["iphone_c2w"], [raw.poses[4], raw.poses[0]], atol=1e-6)
    np.testing.assert_allclose(out["iphone_K"], files.centred(files.PHONE))
    np.testing.assert_array_equal(out["iphone_depth_mm"], np.stack([raw.depths[4], raw.depths[0]]))


def test_vertices_and_who_owns_them(raw: RawScene) -> None:
    out, thing = read(raw), raw.mesh.thing
    np.testing.assert_array_equal(out["vertices"], raw.mesh.vertices)
    assert out["ignored_vertices"].tolist() == [0, 7]
    assert out["group_labels"] == list(files.LABELS.values())
    np.testing.assert_array_equal(out["vertex_object"], files.object_of(thing))
    classes = out["vertex_class"]
    assert set(classes[thing == PILLOW]) == {NAMES.index("pillow")}
    assert set(classes[thing == BED]) == {NAMES.index("bed")}
    assert set(classes[thing == files.BLANKET]) == {NAMES.index("chair")}  # renamed by the map
    for nothing in (files.DROPPED, files.UNKNOWN, 10):
        assert set(classes[thing == nothing]) == {-100}


def test_the_archive_agrees_with_the_building(raw: RawScene) -> None:
    content = build(raw)
    assert content.provenance["frames"]["out"] == 6
    for number, frame in enumerate(content.frames):
        depth, patch = cast(building(), raw.poses[number], pinhole_rays(frame.intrinsics, 180, 120))
        thing = np.array([one.thing for one in building()] + [-1])[patch]
        number_of = {name: position + 1 for position, name in enumerate(files.LABELS)}
        truth = np.array([number_of.get(t, 0) for t in range(12)])[thing]
        shown = frame.depth_mm > 0
        near = np.abs(frame.depth_mm / 1000 - depth) < 0.01
        assert near[shown].mean() > 0.99
        assert (frame.segment_id == truth)[shown].mean() > 0.98
    hidden = content.frames[1].depth_mm == 0
    assert hidden.sum() > 400
    assert not content.frames[1].segment_id[hidden].any()
    assert not content.frames[1].color[hidden].max(axis=-1).mean() > 20  # black, the rim apart
    assert len(content.surface.xyz) == len(raw.mesh.vertices) - 2


def test_the_phones_own_depth(raw: RawScene) -> None:
    views = replace(VIEWS, depth="sensor", max_side=192)
    content = build(raw, replace(DATASET, camera="iphone", views=views))
    assert [frame.name for frame in content.frames] == ["frame_000004", "frame_000000"]
    for frame, number in zip(content.frames, (4, 0), strict=True):
        depth, _ = cast(building(), raw.poses[number], pinhole_rays(frame.intrinsics, 192, 144))
        given = frame.depth_mm > 0
        assert given.mean() > 0.9
        assert np.median(np.abs(frame.depth_mm / 1000 - depth)[given]) < 0.02
    with pytest.raises(ConfigError, match="no depth sensor"):
        replace(DATASET, views=views)


def test_a_crowd_is_void(raw: RawScene) -> None:
    edit(raw, lambda groups: groups[5].update(label="many chairs"))
    crowd = next(s for s in build(raw).segments if s.source_class == "many chairs")
    assert crowd.class_name is None


@pytest.mark.parametrize("damaged", [b"no picture", b""])
def test_pictures_that_are_missing_or_damaged_are_counted(raw: RawScene, damaged: bytes) -> None:
    (raw.folder / "dslr/resized_images/DSC00000.JPG").unlink()
    (raw.folder / "dslr/resized_images/DSC00003.JPG").write_bytes(damaged)
    frames = build(raw).provenance["frames"]
    assert (frames["in"], frames["out"]) == (6, 4)
    assert frames["dropped"] == {"no picture": 1, "not selected": 0, "damaged": 1}


def test_a_cut_picture_is_dropped_and_not_half_read(raw: RawScene) -> None:
    path = raw.folder / "dslr/resized_images/DSC00002.JPG"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    content = build(raw)
    assert content.provenance["frames"]["dropped"] == {"no picture": 0, "not selected": 0, "damaged": 1}
    assert "DSC00002" not in [frame.name for frame in content.frames]


@pytest.mark.parametrize("missing", ["colmap/cameras.txt", "colmap/images.txt", "colmap", "."])
def test_a_scene_without_its_cameras(raw: RawScene, missing: str) -> None:
    (raw.folder / "dslr/nerfstudio/transforms.json").unlink()
    path = raw.folder / "dslr" / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(DataError, match=r"0a1b2c3d4e/dslr/colmap/.*\.txt"):
        build(raw)


def edit(raw: RawScene, change) -> None:
    path = raw.folder / "scans/segments_anno.json"
    content = json.loads(path.read_text())
    change(content["segGroups"])
    path.write_text(json.dumps(content))


def refused(raw: RawScene, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(raw)


def test_annotation_that_cannot_be(raw: RawScene) -> None:
    count = len(raw.mesh.vertices)
    edit(raw, lambda groups: groups[0]["segments"].append(count))
    refused(raw, rf"segment {count} is not in the segments file")
    files.write_annotation(raw)
    edit(raw, lambda groups: groups[0].update(objectId=2))
    refused(raw, "occurs more than once")
    files.write_annotation(raw)
    (raw.folder / "scans/segments.json").write_text(json.dumps({"segIndices": list(range(count - 1))}))
    refused(raw, "one segment per vertex")
    files.write_annotation(raw)
    (raw.folder / "scans/mesh_aligned_0.05_mask.txt").write_text(f"{count}\n")
    refused(raw, "mask.txt: vertex")
    (raw.folder / "scans/mesh_aligned_0.05_mask.txt").write_text("")
    assert not len(read(raw)["ignored_vertices"])


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("cameras.txt", "OPENCV_FISHEYE", "RADIAL", "camera model RADIAL is not read"),
        ("cameras.txt", " 0.004", "", "takes 8 finite parameters"),
        ("images.txt", " 1 DSC00000.JPG", " 7 DSC00000.JPG", "camera 7 is not in cameras.txt"),
        ("images.txt", " 1 DSC00000.JPG", " 1 ../../DSC00000.JPG", "not a plain file name"),
        ("images.txt", " 1 DSC00000.JPG", "", "expected id, quaternion"),
        ("images.txt", "\n10 ", "\n11 ", "image 11 occurs twice"),
    ],
)
def test_camera_files_that_cannot_be(raw: RawScene, file: str, old: str, new: str, words: str) -> None:
    path = raw.folder / "dslr/colmap" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    refused(raw, words)


@pytest.mark.parametrize("keep", [2, 100, -10])
def test_a_cut_depth_file(raw: RawScene, keep: int) -> None:
    path = raw.folder / "iphone/depth.bin"
    path.write_bytes(path.read_bytes()[:keep])
    refused(raw, r"depth\.bin")


def test_a_mask_of_one_pixel_spreads_no_further_than_interpolation(raw: RawScene) -> None:
    from pano3d.data.scannetpp.undistortion import Undistortion

    undistortion = Undistortion(read_colmap(raw.folder / "dslr/colmap")[0].camera)
    mask = np.full((120, 180), 255, np.uint8)
    assert (undistortion.mask(mask) == 255).all()
    mask[60, 90] = 0
    hidden = np.argwhere(undistortion.mask(mask) == 0)
    assert 1 <= len(hidden) <= 16
    point = np.array([[[90.0, 60.0]]])
    where = cv2.fisheye.undistortPoints(
        point, files.centred(files.FISHEYE), files.FISHEYE[4:], P=undistortion.intrinsics
    )
    assert np.abs(hidden.mean(axis=0)[::-1] - where.ravel()).max() < 1
