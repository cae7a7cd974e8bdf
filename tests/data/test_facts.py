from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pano3d.data.archive import Frame, SceneContent
from pano3d.data.facts import Facts, ReprojectionConfig, collect_facts
from pano3d.data.preparation import SceneTask, describe, prepare_scenes, read_manifest
from pano3d.data.reprojection import DepthView, compare_depth
from pano3d.types import ConfigError, DataError
from tests.data.box_room import BOX_ID, FLOOR, make_box_room

CONFIG = ReprojectionConfig(tolerance=0.01, partners=2)


def prepare(folder: Path, change: Callable[[SceneContent], SceneContent] = lambda scene: scene) -> Path:
    """One prepared scene, changed before it is written."""
    with ThreadPoolExecutor(1) as executor:
        task = SceneTask("train", "room0000", lambda: change(make_box_room()))
        prepare_scenes([task], folder / "work", folder / "rooms", executor, lambda frames: None)
    return folder / "rooms"


def collect(folder: Path, manifest: pd.DataFrame | None = None) -> Facts:
    with ThreadPoolExecutor(1) as executor:
        rows = read_manifest(folder) if manifest is None else manifest
        return collect_facts(folder, rows, CONFIG, executor, lambda frames: None)


def changed_frame(scene: SceneContent, index: int, **values: Any) -> SceneContent:
    frames = list(scene.frames)
    frames[index] = replace(frames[index], **values)
    return replace(scene, frames=frames)


def moved(frame: Frame, meters: float) -> np.ndarray:
    pose = frame.scan_from_camera.copy()
    pose[0, 3] += meters
    return pose


def test_a_true_scene_has_clean_facts(tmp_path: Path) -> None:
    facts = collect(prepare(tmp_path))
    scene = facts.scenes.iloc[0]
    assert scene["listed"]
    assert scene["present"]
    assert pd.isna(scene["fault"])
    for name in ("digest_matches", "name_matches", "manifest_matches", "counts_match"):
        assert scene[name], name
    assert scene["disagreement"] < 0.01
    assert scene["overlap_error"] < 0.1
    assert (scene["surface_points"], scene["surface_unknown_ids"]) == (200, 0)
    frames = facts.frames
    assert list(frames["frame"]) == ["000000", "000001", "000002", "000003"]
    assert (frames["holes"] == 0).all()
    assert (frames["depth_missing"] == 0.125).all()  # 6 of 48 rows
    assert (frames["focal_x"] == 0.8).all()
    assert np.allclose(frames["determinant"], 1)
    assert (frames["compared"] > 500).all()
    assert frames["color_digest"].is_unique
    segments = facts.segments.set_index("segment")
    assert segments["pixels"].sum() == 4 * 48 * 64
    assert segments.loc[9, "pixels"] == 0
    assert pd.isna(segments.loc[9, "class_name"])


def test_frames_are_reported_to_the_progress_bar(tmp_path: Path) -> None:
    folder, done = prepare(tmp_path), []
    with ThreadPoolExecutor(1) as executor:
        collect_facts(folder, read_manifest(folder), CONFIG, executor, done.append)
    assert done == [4]


def test_tables_do_not_depend_on_the_order_of_work(tmp_path: Path) -> None:
    names = [("val", "a"), ("train", "c"), ("train", "b")]
    with ThreadPoolExecutor(3) as executor:
        tasks = [SceneTask(split, name, partial(make_box_room, name, 2)) for split, name in names]
        prepare_scenes(tasks, tmp_path / "work", tmp_path / "rooms", executor, lambda frames: None)
        manifest = read_manifest(tmp_path / "rooms")
        first = collect_facts(tmp_path / "rooms", manifest, CONFIG, executor, lambda frames: None)
    again = collect(tmp_path / "rooms", manifest.iloc[::-1])
    for name in ("scenes", "frames", "segments"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name))
    assert list(first.scenes["scene"]) == ["b", "c", "a"]


def test_a_wrong_pose_is_named_and_its_neighbours_are_not(tmp_path: Path) -> None:
    folder = prepare(tmp_path, lambda scene: changed_frame(scene, 2, scan_from_camera=moved(scene.frames[2], 0.3)))
    facts = collect(folder)
    off = facts.frames.set_index("frame")["disagreement"]
    assert off["000002"] > 0.3
    assert (off.drop("000002") < 0.01).all()
    assert facts.scenes.iloc[0]["disagreement"] > 0.3
    assert "000002" in facts.scenes.iloc[0]["disagreement_pair"]


def test_a_jump_halfway_shows_in_the_scene(tmp_path: Path) -> None:
    """Both halves agree among themselves, so no single frame is at fault, but the scene is."""

    def jump(scene: SceneContent) -> SceneContent:
        for index in (2, 3):
            scene = changed_frame(scene, index, scan_from_camera=moved(scene.frames[index], 0.3))
        return scene

    facts = collect(prepare(tmp_path, jump))
    assert (facts.frames["disagreement"] < 0.01).all()
    assert facts.scenes.iloc[0]["disagreement"] > 0.3


def test_depth_in_another_unit_disagrees(tmp_path: Path) -> None:
    def scaled(scene: SceneContent) -> SceneContent:
        exact = scene.frames[1].depth_exact_mm
        assert exact is not None
        return changed_frame(scene, 1, depth_exact_mm=(exact * 0.9).astype(np.uint16))

    off = collect(prepare(tmp_path, scaled)).frames.set_index("frame")["disagreement"]
    assert off["000001"] > 0.9


def test_exact_depth_is_compared_where_present(tmp_path: Path) -> None:
    def noisy(scene: SceneContent) -> SceneContent:
        return changed_frame(scene, 1, depth_mm=(scene.frames[1].depth_mm * 0.8).astype(np.uint16))

    def noisy_and_alone(scene: SceneContent) -> SceneContent:
        scene = noisy(scene)
        return replace(scene, frames=[replace(frame, depth_exact_mm=None) for frame in scene.frames])

    assert (collect(prepare(tmp_path / "a", noisy)).frames["disagreement"] < 0.01).all()
    off = collect(prepare(tmp_path / "b", noisy_and_alone)).frames.set_index("frame")["disagreement"]
    assert off["000001"] > 0.9


def test_a_stale_overlap_matrix_shows(tmp_path: Path) -> None:
    def stale(scene: SceneContent) -> SceneContent:
        overlap = scene.overlap.copy()
        overlap[2, 1] = 0.1
        return replace(scene, overlap=overlap)

    scene = collect(prepare(tmp_path, stale)).scenes.iloc[0]
    assert scene["overlap_error"] > 0.5
    assert scene["overlap_worst_pair"] == "000002 in 000001"


def test_camera_facts_by_hand(tmp_path: Path) -> None:
    def odd(scene: SceneContent) -> SceneContent:
        mirrored = scene.frames[0].scan_from_camera @ np.diag([-1.0, 1, 1, 1])
        stretched = scene.frames[1].scan_from_camera @ np.diag([1.0, 1, 1.1, 1])
        intrinsics = np.array([[64.0, 0, 48], [0, 32, 24], [0.5, 0, 1]])
        scene = changed_frame(scene, 0, scan_from_camera=mirrored)
        scene = changed_frame(scene, 1, scan_from_camera=stretched)
        return changed_frame(scene, 2, intrinsics=intrinsics)

    frames = collect(prepare(tmp_path, odd)).frames
    assert frames.loc[0, "determinant"] == -1
    assert frames.loc[0, "rotation_error"] == 0
    assert frames.loc[1, "rotation_error"] == pytest.approx(0.21, abs=1e-6)  # 1.1^2 - 1
    third = frames.loc[2]
    assert (third["focal_x"], third["focal_ratio"], third["center_x"], third["center_y"]) == (1, 0.5, 0.75, 0.5)
    assert third["intrinsics_error"] == 0.5


def test_singular_cameras_are_facts_and_do_not_stop_the_scene(tmp_path: Path) -> None:
    def flat(scene: SceneContent) -> SceneContent:
        scene = changed_frame(scene, 1, scan_from_camera=np.zeros((4, 4)))
        return changed_frame(scene, 2, intrinsics=np.zeros((3, 3)))

    frames = collect(prepare(tmp_path, flat)).frames
    assert frames["fault"].isna().all()
    assert frames.loc[1, "determinant"] == 0
    assert frames.loc[2, "focal_ratio"] == 0


def test_depth_and_holes_by_hand(tmp_path: Path) -> None:
    def holes(scene: SceneContent) -> SceneContent:
        depth, ids = scene.frames[0].depth_mm.copy(), scene.frames[0].segment_id.copy()
        depth[:24], depth[30, 0], depth[30, 1] = 0, 12_345, 17
        ids[:, :16] = 0  # a quarter of 64 columns
        return changed_frame(scene, 0, depth_mm=depth, segment_id=ids)

    frame = collect(prepare(tmp_path, holes)).frames.iloc[0]
    assert (frame["depth_missing"], frame["holes"]) == (0.5, 0.25)
    assert (frame["depth_min"], frame["depth_max"]) == (0.017, 12.345)


def test_a_frame_without_any_depth(tmp_path: Path) -> None:
    nothing = np.zeros((48, 64), np.uint16)
    folder = prepare(tmp_path, lambda scene: changed_frame(scene, 1, depth_mm=nothing, depth_exact_mm=nothing))
    frame = collect(folder).frames.iloc[1]
    assert frame["depth_missing"] == 1
    assert pd.isna(frame["depth_min"])
    assert pd.isna(frame["disagreement"])


def test_missing_and_unlisted_archives_and_paths_that_lead_out(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    manifest = read_manifest(folder)
    (folder / "val").mkdir()
    (folder / "train/room0000.zip").rename(folder / "val/stranger.zip")
    outside = manifest.assign(path="../work/train/room0000.zip", scene="outside")
    scenes = collect(folder, pd.concat([manifest, outside])).scenes.set_index("scene")
    assert not scenes.loc["room0000", "present"]
    assert not scenes.loc["stranger", "listed"]
    assert "not opened" in scenes.loc["outside", "fault"]
    assert scenes["digest_matches"].isna().all()


def test_faults_do_not_tell_where_the_data_lie(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    (folder / "train/room0000.zip").write_bytes(b"no archive")
    fault = collect(folder).scenes.loc[0, "fault"]
    assert fault.startswith("reading train/room0000.zip: ")
    assert str(tmp_path) not in fault


def test_the_manifest_is_compared_with_the_header(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    honest = describe(folder / "train/room0000.zip", "train")
    for column, value in (("frames", 5), ("width", 65), ("label_space", "scannet200"), ("dataset", "other")):
        row = pd.DataFrame([{**honest, column: value}])
        assert not collect(folder, row).scenes.loc[0, "manifest_matches"], column


def test_a_manifest_without_rows_or_columns_is_refused(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    manifest = read_manifest(folder)
    with pytest.raises(DataError, match="lists no scene"):
        collect(folder, manifest.iloc[:0])
    with pytest.raises(DataError, match="sha256"):
        collect(folder, manifest.drop(columns="sha256"))


@pytest.mark.parametrize(
    "values",
    [{"tolerance": 0.0}, {"tolerance": 1.5}, {"partners": -1}, {"partners": 20}, {"min_pixels": 0}],
)
def test_reprojection_config_is_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="tolerance"):
        ReprojectionConfig(**{"tolerance": 0.01, "partners": 2, **values})


def plane(depth: float, segment: int, offset: float = 0.0) -> DepthView:
    """A camera looking straight at a wall, moved sideways by `offset` metres."""
    pose = np.eye(4)
    pose[0, 3] = offset
    intrinsics = np.array([[20.0, 0, 9.5], [0, 20.0, 9.5], [0, 0, 1]])
    return DepthView(
        np.full((20, 20), depth, np.float32), np.full((20, 20), segment, np.uint16), None, intrinsics, pose
    )


def test_two_views_of_a_wall_by_hand() -> None:
    # 0.2 m to the side at 2 m and f = 20 is 2 pixels: 18 of 20 columns are seen by both.
    agreement = compare_depth(plane(2.0, FLOOR, 0.0), plane(2.0, FLOOR, 0.2), 0.01)
    assert agreement.compared == 18 * 20
    assert agreement.disagreeing == 0
    assert agreement.seen == pytest.approx(0.9)


def test_depth_just_beyond_the_tolerance_disagrees() -> None:
    assert compare_depth(plane(2.0, FLOOR), plane(2.03, FLOOR), 0.01).disagreeing == 1
    assert compare_depth(plane(2.0, FLOOR), plane(2.03, FLOOR), 0.02).disagreeing == 0


def test_other_segments_void_and_ambiguous_pixels_are_not_compared() -> None:
    wall = plane(2.0, FLOOR)
    assert compare_depth(wall, plane(2.5, BOX_ID), 0.01).compared == 0
    assert compare_depth(plane(2.0, 0), plane(2.0, 0), 0.01).compared == 0
    glass = np.zeros((20, 20), bool)
    glass[:, :10] = True
    assert compare_depth(replace(wall, ambiguous=glass), wall, 0.01).compared == 10 * 20
    assert compare_depth(wall, replace(wall, ambiguous=glass), 0.01).compared == 10 * 20


def test_a_slanted_plane_agrees_at_any_angle() -> None:
    """Depth changes by several percent from pixel to pixel here."""

    def view(offset: float) -> DepthView:
        flat = plane(1.0, FLOOR, offset)
        ray_x = np.broadcast_to((np.arange(20) - 9.5) / 20, (20, 20))
        # The plane x + 0.7 z = 2 in `scan`, with x = offset + ray_x z.
        return replace(flat, depth=((2 - offset) / (ray_x + 0.7)).astype(np.float32))

    first, second = view(0.0), view(0.13)
    agreement = compare_depth(first, second, 0.001)
    assert agreement.compared > 100
    assert agreement.disagreeing == 0


def test_a_relief_seen_at_a_grazing_angle_does_not_count_as_a_moved_camera() -> None:
    """A step of 2 cm falls between two pixels of one view; a wall seen through by all four neighbours does count."""
    wall = plane(2.0, FLOOR)
    depth = wall.depth.copy()
    depth[:, 1::2] = 2.05  # grooves every second column
    grooved = replace(wall, depth=depth)
    assert (
        compare_depth(
            wall, replace(grooved, scan_from_camera=plane(2.0, FLOOR, 0.05).scan_from_camera), 0.01
        ).disagreeing
        == 0
    )
    assert compare_depth(wall, plane(2.05, FLOOR, 0.05), 0.01).disagreeing == 1


def test_both_directions_tell_what_they_see() -> None:
    """The second camera stands back: it sees all of the first's picture, the first half of its."""
    back = plane(4.0, FLOOR)
    pose = np.eye(4)
    pose[2, 3] = -2.0
    agreement = compare_depth(plane(2.0, FLOOR), replace(back, scan_from_camera=pose), 0.01)
    assert agreement.seen == 1
    assert agreement.seen_back == pytest.approx(0.25)
    assert agreement.disagreeing == 0


def test_large_images_are_sampled() -> None:
    small = plane(2.0, FLOOR)
    big = replace(small, depth=np.full((400, 400), 2, np.float32), segment_id=np.full((400, 400), FLOOR, np.uint16))
    assert 2000 < compare_depth(big, big, 0.01).compared <= 8000
