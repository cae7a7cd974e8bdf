"""A room small enough to reason about: two walls, a floor and boxes, rendered by hand, as truth and as prediction."""

from __future__ import annotations

import dataclasses

import numpy as np

from pano3d.metrics.scenes import ScenePrediction, SceneTruth, true_points

CLASSES = ("wall", "floor", "chair", "table")
IS_THING = np.array([False, False, True, True])


def look_at(center: np.ndarray, target: np.ndarray) -> np.ndarray:
    """scan_from_camera of a camera at `center` that looks at `target`; scan's z points up."""
    z = (target - center) / np.linalg.norm(target - center)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    pose[:3, 3] = center
    return pose


def true_scene(views: int = 4, height: int = 48, width: int = 64, name: str = "room") -> SceneTruth:
    """Spheres (two chairs, a table) on a floor before a wall, traced per pixel: 1 wall, 2 floor, 3-5 things."""
    spheres = [((0.8, 0.0, 0.4), 0.4, 3), ((-0.8, 0.2, 0.4), 0.4, 4), ((0.0, 1.0, 0.5), 0.5, 5)]
    intrinsics = np.array([[60.0, 0, (width - 1) / 2], [0, 60.0, (height - 1) / 2], [0, 0, 1]])
    y, x = np.mgrid[:height, :width]
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(intrinsics).T
    poses, depths, segments = [], [], []
    for view in range(views):
        angle = -0.6 + 1.2 * view / max(views - 1, 1)
        center = np.array([3 * np.sin(angle), -3 * np.cos(angle), 1.4 + 0.2 * (view % 2)])
        pose = look_at(center, np.array([0.0, 0.3, 0.4]))
        direction = rays @ pose[:3, :3].T
        depth = np.full((height, width), np.inf)
        segment = np.zeros((height, width), np.int32)
        for normal, offset, label in (((0, 0, 1), 0.0, 2), ((0, 1, 0), 2.0, 1)):
            with np.errstate(divide="ignore"):
                t = (offset - center @ normal) / (direction @ np.array(normal, float))
            nearer = (t > 0) & (t < depth)
            depth[nearer], segment[nearer] = t[nearer], label
        for middle, radius, label in spheres:
            to_center = center - np.array(middle)
            a, b = (direction**2).sum(-1), 2 * direction @ to_center
            root = b**2 - 4 * a * (to_center @ to_center - radius**2)
            t = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / (2 * a), np.inf)
            nearer = (t > 0) & (t < depth)
            depth[nearer], segment[nearer] = t[nearer], label
        missing = ~np.isfinite(depth)
        depth[missing], segment[missing] = 0, 0
        poses.append(pose)
        depths.append(depth)
        segments.append(segment)
    truth = SceneTruth(
        name=name,
        segment_id=np.stack(segments),
        segment_class={1: 0, 2: 1, 3: 2, 4: 2, 5: 3},
        depth=np.stack(depths).astype(np.float32),
        scan_from_camera=np.stack(poses),
        intrinsics=np.stack([intrinsics] * views),
        surface_points=np.zeros((0, 3)),
        surface_segment=np.zeros(0, np.int32),
        is_thing=IS_THING,
    )
    seen = truth.depth > 0
    return dataclasses.replace(truth, surface_points=true_points(truth)[seen], surface_segment=truth.segment_id[seen])


def perfect_prediction(truth: SceneTruth, scale: float = 1.0) -> ScenePrediction:
    """The truth in a world of another scale, rotation and origin, with other segment ids."""
    turn = look_at(np.array([0.3, -0.2, 0.1]), np.array([1.0, 2.0, 0.5]))
    points = true_points(truth) @ turn[:3, :3].T * scale + np.array([5.0, -2.0, 1.0])
    cameras = truth.scan_from_camera.copy()
    cameras[:, :3, :3] = turn[:3, :3] @ cameras[:, :3, :3]
    cameras[:, :3, 3] = scale * cameras[:, :3, 3] @ turn[:3, :3].T + np.array([5.0, -2.0, 1.0])
    class_id = truth.class_of(truth.segment_id)
    missing = truth.depth == 0
    return ScenePrediction(
        segment_id=np.where(truth.segment_id > 0, 10 - truth.segment_id, 0),
        class_id=class_id,
        segment_score={10 - i: 0.5 + 0.05 * i for i in truth.segment_class},
        depth=truth.depth * np.float32(scale),
        points_world=np.where(missing[..., None], np.nan, points),
        world_from_camera=cameras,
    )
