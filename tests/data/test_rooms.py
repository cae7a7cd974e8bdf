"""The generated rooms: the same in every process, complete, consistent between views, with shapes kept for testing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from pano3d.data.archive import SceneContent, read_scene, write_scene
from pano3d.data.rooms import QUALITIES, RoomsConfig, SplitSizes, generate_scene, scene_names
from pano3d.data.rooms.family import Family
from pano3d.data.rooms.generate import pixels_alike
from pano3d.data.rooms.layout import ROOM_KINDS, plan_room
from pano3d.data.rooms.materials import RESERVED_CLOTHS, Style
from pano3d.data.rooms.sensor import sense_depth
from pano3d.types import ConfigError

CONFIG = RoomsConfig(SplitSizes(6, 2, 2), SplitSizes(4, 3, 3), 64, 48, "fast", 0.06)


@pytest.fixture(scope="module", params=range(len(ROOM_KINDS)), ids=ROOM_KINDS)
def room(request: pytest.FixtureRequest) -> SceneContent:
    return generate_scene(CONFIG, 3, "train", request.param)


def digest(scene: SceneContent) -> str:
    """Of ids and both depths of all frames."""
    state = hashlib.sha256()
    for frame in scene.frames:
        assert frame.depth_exact_mm is not None
        for image in (frame.segment_id, frame.depth_mm, frame.depth_exact_mm):
            state.update(np.ascontiguousarray(image).tobytes())
    return state.hexdigest()


def test_every_pixel_belongs_to_a_listed_segment(room: SceneContent) -> None:
    known = [segment.id for segment in room.segments]
    for frame in room.frames:
        assert np.isin(frame.segment_id, known).all()
        assert frame.depth_exact_mm is not None
        assert (frame.depth_exact_mm > 0).all()


def test_wall_and_floor_are_one_stuff_segment_each(room: SceneContent) -> None:
    stuff = sorted(segment.class_name for segment in room.segments if segment.class_name and not segment.is_thing)
    assert stuff == ["floor", "wall"]
    ceiling = next(segment for segment in room.segments if segment.source_class == "ceiling")
    assert ceiling.class_name is None


def test_views_agree_where_they_see_the_same_segment(room: SceneContent) -> None:
    """Lift the pixels of one frame into its neighbour: where it shows the same segment, the depth lies within 2 % of
    the depths round that pixel."""
    agreeing, tested = 0, 0
    for a, b in pairwise(room.frames):
        assert a.depth_exact_mm is not None
        assert b.depth_exact_mm is not None
        v, u = np.mgrid[: a.segment_id.shape[0], : a.segment_id.shape[1]]
        z = a.depth_exact_mm / 1000.0
        rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(a.intrinsics).T
        points = (rays * z[..., None]).reshape(-1, 3) @ a.scan_from_camera[:3, :3].T + a.scan_from_camera[:3, 3]
        local = (points - b.scan_from_camera[:3, 3]) @ b.scan_from_camera[:3, :3]
        pixel = local @ b.intrinsics.T
        x, y = (np.rint(pixel[:, k] / np.maximum(pixel[:, 2], 1e-6)).astype(int) for k in range(2))
        inside = (local[:, 2] > 0.1) & (x >= 0) & (x < u.shape[1]) & (y >= 0) & (y < u.shape[0])
        x, y, depth = x[inside], y[inside], local[inside, 2]
        same = b.segment_id[y, x] == a.segment_id.ravel()[inside]
        tested += int(same.sum())
        low, high = minimum_filter(b.depth_exact_mm, 3) / 1000.0, maximum_filter(b.depth_exact_mm, 3) / 1000.0
        fits = (depth > 0.98 * low[y, x]) & (depth < 1.02 * high[y, x])
        agreeing += int(fits[same].sum())
    assert tested > 300
    assert agreeing > 0.9 * tested


def test_poses_are_rigid_and_inside(room: SceneContent) -> None:
    for frame in room.frames:
        rotation = frame.scan_from_camera[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) == pytest.approx(1)
        assert 0.9 < frame.scan_from_camera[2, 3] < 2.0
        assert frame.depth_exact_mm is not None
        assert frame.depth_exact_mm.min() > 150


def test_surface_points_lie_where_the_cameras_saw_their_segment(room: SceneContent) -> None:
    xyz, owner = room.surface.xyz, room.surface.segment_id
    assert len(xyz) > 1000
    seen = np.unique(np.concatenate([frame.segment_id.ravel() for frame in room.frames]))
    assert set(owner) <= set(seen)
    floor = xyz[owner == 2]
    assert np.abs(floor[:, 2]).max() < 1e-3


def test_overlap_counts_what_views_share(room: SceneContent) -> None:
    overlap = room.overlap.astype(float)
    assert overlap.shape == (4, 4)
    np.testing.assert_array_equal(np.diag(overlap), 1)
    assert ((overlap >= 0) & (overlap <= 1)).all()


def test_pictures_are_neither_dark_nor_burnt(room: SceneContent) -> None:
    color = np.stack([frame.color for frame in room.frames]).astype(float)
    assert 70 < color.mean() < 210
    assert color.std() > 25


def test_archive_keeps_the_room(tmp_path: object, room: SceneContent) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "room.zip"
    write_scene(path, room)
    archive = read_scene(path)
    np.testing.assert_array_equal(archive.segment_id(1), room.frames[1].segment_id)
    assert {segment.class_name for segment in archive.segments} == {segment.class_name for segment in room.segments}


def test_depth_and_ids_are_the_same_in_another_process_and_thread_count() -> None:
    here = digest(generate_scene(CONFIG, 3, "train", 3))
    code = (
        "from tests.data.test_rooms import CONFIG, digest, generate_scene;"
        "print(digest(generate_scene(CONFIG, 3, 'train', 3)))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout.strip() == here


def test_seed_split_and_index_change_the_room() -> None:
    small = RoomsConfig(SplitSizes(6, 2, 2), SplitSizes(1, 1, 1), 32, 24, "fast", 0.2)
    digests = {
        digest(generate_scene(small, *key))
        for key in ((3, "train", 3), (4, "train", 3), (3, "test", 3), (3, "train", 9))
    }
    assert len(digests) == 4


def test_names_follow_the_split_sizes() -> None:
    assert scene_names(CONFIG, "validation") == ["validation-0000", "validation-0001"]
    with pytest.raises(ConfigError, match="splits train, validation, test"):
        scene_names(CONFIG, "holdout")


def test_last_variant_is_kept_for_validation_and_test() -> None:
    family = Family("chair", "chair", lambda mesh, style, generator, variant: None, 4)
    generator = np.random.default_rng(0)
    assert {family.draw_variant(generator, False) for _ in range(200)} == {0, 1, 2}
    assert {family.draw_variant(generator, True) for _ in range(200)} == {0, 1, 2, 3}


def test_reserved_cloths_never_reach_training() -> None:
    kinds = {}
    for held_out in (False, True):
        styles = [Style(np.random.default_rng(k), held_out) for k in range(20)]
        kinds[held_out] = {material.kind for style in styles for material in style.table.materials}
    assert not kinds[False] & set(RESERVED_CLOTHS)
    assert kinds[True] & set(RESERVED_CLOTHS)


def test_furniture_does_not_stand_in_furniture() -> None:
    for kind, seed in product(("bedroom", "office", "bathroom"), range(4)):
        plan = plan_room(kind, np.random.default_rng(seed), False, 0.5)
        assert len(plan.objects) > 10
        overlapping = [(a, b) for i, a in enumerate(plan.solid) for b in plan.solid[i + 1 :] if a.meets(b)]
        assert not overlapping


@pytest.mark.parametrize(
    ("pixel", "shift", "look", "expected"),
    [
        (1, (0.3, 0.2), 1, 1),
        (1, (0.3, 0.2), 2, 2),
        (1, (0.3, 0.2), 3, 4),  # straight below before the diagonal
        (1, (-0.3, 0.2), 2, -1),
        (1, (0.3, 0.2), 9, -1),
        (5, (0.3, 0.2), 4, -1),  # the next view begins there
        (6, (-0.3, -0.2), 3, -1),
        (10, (0.3, -0.2), 4, 7),
    ],
)
def test_an_edge_takes_the_colour_of_the_pixel_beside_it_that_looks_alike(
    pixel: int, shift: tuple[float, float], look: int, expected: int
) -> None:
    looks = np.array([[[1, 1, 2], [1, 3, 3]], [[4, 4, 4], [4, 5, 6]]], np.int32)
    rows = pixels_alike(looks.ravel(), np.array([look], np.int32), np.array([pixel]), np.array([shift]), looks.shape)
    assert rows.tolist() == [expected]


def test_edges_mix_what_meets_there_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = generate_scene(CONFIG, 3, "train", 1).frames[0]
    monkeypatch.setitem(QUALITIES, "fast", replace(QUALITIES["fast"], edge_samples=0))
    hard = generate_scene(CONFIG, 3, "train", 1).frames[0]
    np.testing.assert_array_equal(smooth.segment_id, hard.segment_id)
    edge = maximum_filter(hard.segment_id, 3) != minimum_filter(hard.segment_id, 3)
    change = np.abs(smooth.color.astype(int) - hard.color).max(2)
    assert change[edge].mean() > 1.5 * change[~edge].mean()
    assert np.median(change[~edge]) <= 1
    # A mixture lies between the colours around it.
    low = minimum_filter(hard.color, (3, 3, 1)).astype(int) - 4  # the exposure moves a little, too
    high = maximum_filter(hard.color, (3, 3, 1)).astype(int) + 4
    inside = ((smooth.color >= low) & (smooth.color <= high)).all(2)
    assert inside[edge].mean() > 0.95


def test_sensor_noise_grows_with_distance_and_stops_at_its_range() -> None:
    near, far = np.full((40, 40), 1.0, np.float32), np.full((40, 40), 5.0, np.float32)
    no = np.zeros((40, 40), bool)
    facing = np.ones((40, 40), np.float32)
    spread = []
    for exact in (near, far):
        depth = sense_depth(exact, np.full_like(exact, np.inf), no, no, no, facing, np.random.default_rng(1))
        spread.append(depth[depth > 0].std())
    assert spread[1] > 10 * spread[0]
    beyond = sense_depth(near * 9, near * np.inf, no, no, no, facing, np.random.default_rng(1))
    assert not beyond.any()


def test_sensor_loses_panes_and_grazing_surfaces() -> None:
    exact = np.full((40, 40), 2.0, np.float32)
    pane = np.zeros((40, 40), bool)
    pane[:, :20] = True
    facing = np.ones((40, 40), np.float32)
    facing[:5] = 0.05
    shares = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        depth = sense_depth(exact, np.full_like(exact, np.inf), pane, ~pane & False, ~pane & False, facing, generator)
        assert not depth[:5].any()
        assert (depth[5:, 20:] > 0).mean() > 0.95
        shares.append((depth[5:, :20] == 0).mean())
    assert np.mean(shares) > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 8}, "too small"),
        ({"frames": SplitSizes(0, 1, 1)}, "frames >= 1"),
        ({"surface_spacing": 0.0}, "surface_spacing"),
    ],
)
def test_bad_parameters_are_refused(change: dict[str, object], message: str) -> None:
    from dataclasses import replace

    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)
