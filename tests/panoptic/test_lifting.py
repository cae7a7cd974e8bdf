"""Votes by hand, and against a dictionary."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from pano3d.panoptic.lifting import lift_points, lift_vertices, lift_voxels
from pano3d.types import VOID, DataError, PanopticScene, Segment


def scene(
    points: np.ndarray, segment_id: list[int], score: list[float], confidence: list[float] | None = None
) -> PanopticScene:
    """One view with one row of pixels; segment s has class s + 10."""
    ids = np.array(segment_id, np.int32)[None, None]
    width = ids.shape[-1]
    return PanopticScene(
        points_world=np.asarray(points, np.float32)[None, None],
        depth=np.ones((1, 1, width), np.float32),
        confidence=np.array(confidence or [1.0] * width, np.float32)[None, None],
        confidence_kind="confidence",
        segment_id=ids,
        class_id=np.where(ids > 0, ids + 10, VOID).astype(np.int32),
        segment_score=np.array(score, np.float32)[None, None],
        world_from_camera=np.eye(4)[None],
        intrinsics=np.eye(3)[None],
        colors=np.arange(width * 3, dtype=np.uint8).reshape(1, 1, width, 3),
        segments=[Segment(s, s + 10, f"class {s}", True, 0.9) for s in sorted(set(segment_id) - {0})],
    )


# Two voxels of 1 m: three pixels in the first, two in the second.
POINTS = np.array([[0.1, 0, 0], [0.5, 0, 0], [0.9, 0, 0], [1.2, 0, 0], [1.6, 0, 0]])


def test_votes_are_weighted_by_mask_probability() -> None:
    # Segment 1 has two votes of 0.3, segment 2 one of 0.9: 2 wins the first voxel. Void does not vote in the second.
    voxels = lift_voxels(scene(POINTS, [1, 1, 2, 0, 1], [0.3, 0.3, 0.9, 0.0, 0.5]), voxel_size=1.0)
    assert voxels.segment_id.tolist() == [2, 1]
    assert voxels.class_id.tolist() == [12, 11]
    np.testing.assert_allclose(voxels.score, [0.9 / 3, 0.5 / 2])
    np.testing.assert_allclose(voxels.points_world[:, 0], [0.5, 1.4], rtol=1e-6)
    assert voxels.colors[0].tolist() == [3, 4, 5]


def test_larger_segment_wins_a_tie() -> None:
    # One vote of 0.5 each in the first voxel; segment 2 has three pixels in the room, segment 1 one.
    voxels = lift_voxels(scene(POINTS, [1, 2, 0, 2, 2], [0.5, 0.5, 0.0, 0.5, 0.5]), voxel_size=1.0)
    assert voxels.segment_id.tolist() == [2, 2]


def test_small_segments_and_unsure_points_are_left_out() -> None:
    labelled = scene(POINTS, [1, 1, 1, 2, 2], [0.5] * 5, [5, 5, 5, 1, 5])
    assert lift_voxels(labelled, 1.0, minimum_voxels=2).segment_id.tolist() == [0, 0]
    assert lift_voxels(labelled, 1.0, minimum_voxels=2).class_id.tolist() == [VOID, VOID]
    assert len(lift_points(labelled, minimum_confidence=3.0).points_world) == 4
    broken = replace(
        labelled,
        points_world=np.where(np.arange(5)[:, None] == 1, np.nan, labelled.points_world[0, 0])[None, None].astype(
            np.float32
        ),
    )
    assert len(lift_points(broken).points_world) == 4


def test_votes_against_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 2, (400, 3))
    ids = rng.integers(0, 5, 400)
    scores = rng.uniform(0.1, 1, 400)
    voxels = lift_voxels(scene(points, ids.tolist(), scores.tolist()), voxel_size=1.0)
    votes: dict[tuple[int, ...], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for point, segment, weight in zip(points.astype(np.float32), ids.tolist(), scores.tolist()):
        cell = votes[tuple(np.floor(point).astype(int).tolist())]
        if segment:
            cell[segment] += weight
    found = {tuple(np.floor(p).astype(int).tolist()): int(s) for p, s in zip(voxels.points_world, voxels.segment_id)}
    assert found == {cell: max(own, key=own.__getitem__, default=0) for cell, own in votes.items()}


def test_vertices_take_votes_and_say_whether_they_are_covered() -> None:
    vertices = np.array([[0.0, 0, 0], [1.0, 0, 0], [1.5, 0, 0], [9.0, 0, 0]])
    lifted = lift_vertices(scene(POINTS, [1, 1, 2, 0, 2], [0.5] * 5), vertices, reach=0.3)
    # 0.1 votes for vertex 0; 0.9 and 1.2 (void) for vertex 1; 1.6 for vertex 2; 0.5 is out of reach; nothing near 9.
    assert lifted.segment_id.tolist() == [1, 2, 2, 0]
    assert lifted.class_id.tolist() == [11, 12, 12, VOID]
    assert lifted.is_covered.tolist() == [True, True, True, False]
    assert lifted.coverage == 0.75
    assert (
        lift_vertices(scene(POINTS, [1, 1, 2, 0, 2], [0.5] * 5), vertices, 0.3, minimum_vertices=2).segment_id[0] == 0
    )


def test_vertex_without_votes_takes_the_nearest_point() -> None:
    vertices = np.array([[0.0, 0, 0], [0.2, 0, 0]])  # the only point votes for the second vertex
    lifted = lift_vertices(scene(np.array([[0.15, 0, 0]]), [3], [0.8]), vertices, reach=0.5)
    assert lifted.segment_id.tolist() == [3, 3]
    assert lifted.coverage == 1.0


def test_nothing_to_lift() -> None:
    empty = scene(POINTS, [1] * 5, [0.5] * 5, [0.0] * 5)
    assert len(lift_voxels(empty, 0.02, minimum_confidence=1.0).points_world) == 0
    assert lift_vertices(empty, np.zeros((3, 3)), 0.1, minimum_confidence=1.0).coverage == 0
    assert lift_vertices(empty, np.zeros((0, 3)), 0.1).coverage == 0
    with pytest.raises(DataError, match="voxel size"):
        lift_voxels(empty, 0.0)
    with pytest.raises(DataError, match="reach"):
        lift_vertices(empty, np.zeros((3, 3)), -1.0)
