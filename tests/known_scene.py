"""A room whose geometry and labels are known, as a `PanopticScene`: what a perfect network would say."""

from __future__ import annotations

import numpy as np

from pano3d.types import VOID, PanopticScene, Segment

NAMES = ("wall", "floor", "chair")


def known_scene(views: int = 3, height: int = 24, width: int = 32) -> PanopticScene:
    """A wall 4 m away and a floor 1 m below cameras that step 0.2 m to the right; a chair stands in front.

    The chair is a plane 2 m away, 0.8 m wide, from the floor up to the cameras' height.
    """
    focal = 0.9 * width
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(intrinsics).T
    points, depths, ids, poses = [], [], [], []
    for view in range(views):
        pose = np.eye(4)
        pose[0, 3] = 0.2 * view
        with np.errstate(divide="ignore"):
            floor = np.where(rays[..., 1] > 0, 1.0 / rays[..., 1], np.inf)
        depth = np.minimum(4.0, floor)
        segment = np.where(depth < 4.0, 2, 1)
        x, y = 2 * rays[..., 0] + pose[0, 3], 2 * rays[..., 1]
        chair = (np.abs(x) < 0.4) & (y > 0) & (depth > 2)
        depth, segment = np.where(chair, 2.0, depth), np.where(chair, 3, segment)
        segment[0, 0] = 0
        points.append(rays * depth[..., None] + pose[:3, 3])
        depths.append(depth)
        ids.append(segment)
        poses.append(pose)
    segment_id = np.stack(ids).astype(np.int32)
    palette = np.array([(20, 20, 20), (200, 190, 180), (120, 90, 60), (30, 60, 160)], np.uint8)
    rng = np.random.default_rng(0)
    return PanopticScene(
        points_world=np.stack(points).astype(np.float32),
        depth=np.stack(depths).astype(np.float32),
        confidence=(1 + rng.random(segment_id.shape)).astype(np.float32),
        confidence_kind="confidence",
        segment_id=segment_id,
        class_id=np.where(segment_id > 0, segment_id - 1, VOID).astype(np.int32),
        segment_score=np.where(segment_id > 0, 0.9, 0).astype(np.float32),
        world_from_camera=np.stack(poses),
        intrinsics=np.stack([intrinsics] * views),
        colors=palette[segment_id],
        segments=[Segment(i + 1, i, name, i == 2, 0.9 - 0.1 * i) for i, name in enumerate(NAMES)],
        class_names=NAMES,
    )
