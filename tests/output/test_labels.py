"""What is written is read back by code that knows only the format."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from pano3d.output.labels import write_coco_panoptic, write_ply, write_scannet_benchmark
from pano3d.panoptic.lifting import LabelledVertices, lift_points
from pano3d.types import VOID, DataError, PanopticScene
from tests.panoptic.scenes import painted_masks
from tests.panoptic.test_scene import CLASSES, MAPS, assemble


@pytest.fixture(scope="module")
def scene() -> PanopticScene:
    return assemble(painted_masks(MAPS, CLASSES))


def test_coco_panoptic(scene: PanopticScene, tmp_path: Path) -> None:
    content = json.loads(write_coco_panoptic(scene, tmp_path / "out", ["left", "right"]).read_text())
    assert content["categories"] == [
        {"id": 0, "name": "wall", "isthing": 0},
        {"id": 1, "name": "floor", "isthing": 0},
        {"id": 2, "name": "chair", "isthing": 1},
    ]
    for view, annotation in enumerate(content["annotations"]):
        image = cv2.imread(str(tmp_path / "out" / "panoptic" / annotation["file_name"]))[..., ::-1].astype(int)
        ids = image[..., 0] + 256 * image[..., 1] + 65536 * image[..., 2]
        np.testing.assert_array_equal(ids, scene.segment_id[view])
        present = {segment["id"]: segment for segment in annotation["segments_info"]}
        assert set(present) == set(np.unique(ids)) - {0}
        for number, segment in present.items():
            assert segment["area"] == (ids == number).sum()
            x, y, width, height = segment["bbox"]
            inside = ids[y : y + height, x : x + width] == number
            assert inside.sum() == segment["area"]
            assert inside.any(0).all() or inside.any(0)[[0, -1]].all()
    assert not list(tmp_path.rglob("*.partial"))


def test_scannet_benchmark(scene: PanopticScene, tmp_path: Path) -> None:
    ids = np.array([1, 3, 3, 0, 2], np.int32)
    classes = np.array([0, 2, 2, VOID, 1], np.int32)
    vertices = LabelledVertices(ids, classes, np.ones(5, np.float32), ids > 0)
    write_scannet_benchmark(scene, vertices, [1, 2, 5], tmp_path, "scene0011_00")
    assert (tmp_path / "semantic/scene0011_00.txt").read_text().split() == ["1", "5", "5", "0", "2"]
    lines = (tmp_path / "instance/scene0011_00.txt").read_text().splitlines()
    assert len(lines) == 1  # wall and floor are stuff, the other chair has no vertex
    file, label, score = lines[0].split()
    assert label == "5"
    assert float(score) == pytest.approx(scene.segments[2].score, abs=1e-6)
    assert (tmp_path / "instance" / file).read_text().split() == ["0", "1", "1", "0", "0"]
    with pytest.raises(DataError, match="3 classes"):
        write_scannet_benchmark(scene, vertices, [1, 2], tmp_path, "scene0011_00")


def test_ply(scene: PanopticScene, tmp_path: Path) -> None:
    points = lift_points(scene)
    write_ply(points, tmp_path / "room.ply")
    cloud = trimesh.load(tmp_path / "room.ply")
    np.testing.assert_allclose(cloud.vertices, points.points_world, rtol=1e-6)
    data = cloud.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(data["class_id"].ravel(), points.class_id)
    np.testing.assert_array_equal(data["segment_id"].ravel(), points.segment_id)
    np.testing.assert_allclose(data["confidence"].ravel(), points.confidence)


def test_names_must_fit(scene: PanopticScene, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 different view names"):
        write_coco_panoptic(scene, tmp_path, ["same", "same"])
