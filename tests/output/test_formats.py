"""Other people's tools open what is written."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import hotcoco
import numpy as np
import pycolmap
import pytest
import trimesh
from PIL import Image

from pano3d.output.cameras import read_cameras, write_cameras, write_colmap, write_trajectory
from pano3d.output.labels import write_coco_panoptic, write_ply
from pano3d.output.mesh import grid_triangles, write_glb
from pano3d.output.segments import segment_rows, write_segments
from pano3d.panoptic.lifting import lift_points
from pano3d.types import VOID, DataError
from tests.known_scene import NAMES, known_scene

SCENE = known_scene()
VIEWS = ["left", "middle", "right"]
EVERYTHING = np.ones(SCENE.depth.shape, bool)


def test_ply_opens_in_open3d_and_trimesh(tmp_path: Path) -> None:
    import open3d

    path = tmp_path / "scene.ply"
    write_ply(lift_points(SCENE), path)
    cloud = open3d.t.io.read_point_cloud(str(path))
    np.testing.assert_allclose(cloud.point.positions.numpy(), SCENE.points_world.reshape(-1, 3))
    np.testing.assert_array_equal(cloud.point.segment_id.numpy().ravel(), SCENE.segment_id.ravel())
    np.testing.assert_array_equal(cloud.point.class_id.numpy().ravel(), SCENE.class_id.ravel())
    np.testing.assert_allclose(cloud.point.confidence.numpy().ravel(), SCENE.confidence.ravel())
    points = trimesh.load(path)
    np.testing.assert_array_equal(np.asarray(points.colors)[:, :3], SCENE.colors.reshape(-1, 3))


def test_glb_has_a_named_node_per_object(tmp_path: Path) -> None:
    path = tmp_path / "scene.glb"
    write_glb(SCENE, EVERYTHING, path)
    world = trimesh.load(path)
    assert set(world.graph.nodes_geometry) == {f"{name} {number + 1}" for number, name in enumerate(NAMES)}
    chair = world.geometry["chair 3"].copy()
    chair.apply_transform(world.graph["chair 3"][0])
    mine = SCENE.points_world[SCENE.segment_id == 3] * (1, -1, -1)  # y up in glTF
    np.testing.assert_allclose(chair.bounds, [mine.min(0), mine.max(0)], atol=1e-5)
    red, green, blue, alpha = chair.visual.vertex_colors[0]
    assert alpha == 255
    assert len({int(red), int(green), int(blue)}) > 1  # in the object's colour, not grey


def test_surfaces_face_the_camera_and_do_not_bridge_depth() -> None:
    triangles = grid_triangles(SCENE, EVERYTHING)
    points = (SCENE.points_world * (1, -1, -1)).reshape(-1, 3)
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    view = triangles[:, 0] // SCENE.depth[0].size
    eye = SCENE.world_from_camera[view, :3, 3] * (1, -1, -1)
    assert (np.sum(np.cross(b - a, c - a) * (eye - a), axis=1) > 0).all()
    ids, depth = SCENE.segment_id.ravel()[triangles], SCENE.depth.ravel()[triangles]
    assert (ids == ids[:, :1]).all()
    assert (depth.max(1) / depth.min(1)).max() < 1.15
    usable = EVERYTHING.copy()
    usable[1:] = False
    assert (grid_triangles(SCENE, usable) < SCENE.depth[0].size).all()


@pytest.mark.parametrize("empty", [False, True])
def test_glb_satisfies_the_khronos_validator(tmp_path: Path, empty: bool) -> None:
    """Needs node and `npm install gltf-validator` in a folder above, or NODE_PATH set."""
    script = (
        "const v = require('gltf-validator'), fs = require('fs');"
        "v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))"
        ".then(r => console.log(JSON.stringify(r.issues)))"
    )
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('gltf-validator')"], capture_output=True).returncode:
        pytest.skip("node or its package gltf-validator is not installed")
    path = tmp_path / "scene.glb"
    write_glb(SCENE, ~EVERYTHING if empty else EVERYTHING, path)
    done = subprocess.run([node, "-e", script, str(path)], capture_output=True, text=True, check=True)
    issues = json.loads(done.stdout)
    assert issues["numErrors"] == 0, issues["messages"]
    assert issues["numWarnings"] == 0, issues["messages"]


def test_colmap_reads_the_cameras(tmp_path: Path) -> None:
    write_colmap(SCENE, VIEWS, lift_points(SCENE), tmp_path)
    model = pycolmap.Reconstruction(str(tmp_path))
    assert sorted(image.name for image in model.images.values()) == ["left.jpg", "middle.jpg", "right.jpg"]
    assert model.num_points3D() == SCENE.depth.size
    for number, image in model.images.items():
        pose = np.linalg.inv(SCENE.world_from_camera[number - 1])
        found = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        np.testing.assert_allclose(found.matrix(), pose[:3], atol=1e-7)
        # A point of the scene lands on its pixel, whose centre COLMAP counts from one half.
        point = SCENE.points_world[number - 1, 7, 9].astype(np.float64)
        pixel = model.cameras[image.camera_id].img_from_cam(pose[:3, :3] @ point + pose[:3, 3])
        np.testing.assert_allclose(pixel, [9.5, 7.5], atol=1e-4)


def test_trajectory_is_tum(tmp_path: Path) -> None:
    write_trajectory(SCENE, tmp_path / "trajectory.txt")
    rows = np.loadtxt(tmp_path / "trajectory.txt")
    np.testing.assert_allclose(rows[:, 1:4], SCENE.world_from_camera[:, :3, 3])
    np.testing.assert_allclose(rows[:, 4:], [[0, 0, 0, 1]] * 3)


def test_cameras_survive_json_and_bad_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cameras.json"
    write_cameras(SCENE, VIEWS, 2 * SCENE.intrinsics, path)
    names, poses, intrinsics = read_cameras(path)
    assert names == VIEWS
    np.testing.assert_array_equal(poses, SCENE.world_from_camera)
    np.testing.assert_array_equal(intrinsics, SCENE.intrinsics)
    content = json.loads(path.read_text())
    content["views"][1]["world_from_camera"][0][0] = 2.0
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="not a rotation"):
        read_cameras(path)
    path.write_text("{}")
    with pytest.raises(DataError, match="expected a list `views`"):
        read_cameras(path)


def test_panoptic_reads_as_coco_says(tmp_path: Path) -> None:
    """By the format's own rules, with Pillow: id = R + 256 G + 65536 B, every id of the PNG is in segments_info."""
    content = json.loads(write_coco_panoptic(SCENE, tmp_path, VIEWS).read_text())
    things = {category["id"]: category["isthing"] for category in content["categories"]}
    assert things == {0: 0, 1: 0, 2: 1}
    for view, (image, annotation) in enumerate(zip(content["images"], content["annotations"], strict=True)):
        assert image["id"] == annotation["image_id"]
        rgb = np.asarray(Image.open(tmp_path / "panoptic" / annotation["file_name"]), np.int64)
        ids = rgb @ [1, 256, 65536]
        assert ids.shape == (image["height"], image["width"])
        info = {segment["id"]: segment for segment in annotation["segments_info"]}
        assert set(np.unique(ids).tolist()) - {0} == set(info)
        for number, segment in info.items():
            assert segment["area"] == (ids == number).sum()
            assert (SCENE.class_id[view][ids == number] == segment["category_id"]).all()


def test_panoptic_scores_in_an_evaluator_of_others(tmp_path: Path) -> None:
    """hotcoco reads JSON and PNG as panopticapi does: 1 against itself, 0 for a class that is gone."""
    is_chair = SCENE.segment_id == 3
    without = dataclasses.replace(
        SCENE, segment_id=np.where(is_chair, 0, SCENE.segment_id), class_id=np.where(is_chair, VOID, SCENE.class_id)
    )
    whole = write_coco_panoptic(SCENE, tmp_path / "whole", VIEWS)
    assert hotcoco.panoptic.pq_compute(whole, whole)["All"]["pq"] == 1
    scores = hotcoco.panoptic.pq_compute(whole, write_coco_panoptic(without, tmp_path / "without", VIEWS))
    assert [scores["per_class"][number]["pq"] for number in range(3)] == [1, 1, 0]
    assert scores["per_class"][2]["fn"] == 3  # it is seen in every view
    assert scores["Things"]["pq"] == 0


def test_segments_are_listed_with_points_views_and_extent(tmp_path: Path) -> None:
    kept = EVERYTHING.copy()
    kept[2] = False
    write_segments(segment_rows(SCENE, kept), tmp_path / "segments.csv")
    with open(tmp_path / "segments.csv", newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(NAMES)
    chair = rows["chair"]
    assert int(chair["points"]) == (SCENE.segment_id[:2] == 3).sum()
    assert (chair["views"], chair["is_thing"], chair["score"]) == ("3", "1", "0.7000")
    assert 0.6 < float(chair["extent_x"]) <= 0.8
    assert float(chair["extent_z"]) == 0
    assert float(chair["center_z"]) == pytest.approx(2.0)
    nothing = segment_rows(dataclasses.replace(SCENE), ~EVERYTHING)
    assert nothing[0].points == 0
    assert np.isnan(nothing[0].extent).all()
