"""A small hand-made scene for tests: two coloured boxes of pixels before a wall, three frames."""

from __future__ import annotations

import numpy as np

from pano3d.data.archive import Frame, SceneContent, SceneSegment, Surface


def make_scene(name: str = "scene0000", views: int = 3, height: int = 24, width: int = 32) -> SceneContent:
    generator = np.random.default_rng(7)
    frames = []
    for index in range(views):
        segment_id = np.ones((height, width), np.uint16)
        segment_id[4:12, 4 + index : 12 + index] = 2
        segment_id[20:, :] = 0
        pose = np.eye(4)
        pose[0, 3] = 0.1 * index
        frames.append(
            Frame(
                name=f"{index:06d}",
                color=generator.integers(0, 256, (height, width, 3), dtype=np.uint8),
                depth_mm=generator.integers(1000, 4000, (height, width), dtype=np.uint16),
                segment_id=segment_id,
                intrinsics=np.array([[30.0, 0, width / 2], [0, 30.0, height / 2], [0, 0, 1]]),
                scan_from_camera=pose,
                depth_exact_mm=np.full((height, width), 2000, np.uint16),
                ambiguous=segment_id == 2,
                shadow=segment_id == 1,
            )
        )
    return SceneContent(
        name=name,
        dataset="handmade",
        label_space="scannet20",
        frames=frames,
        segments=[SceneSegment(1, "wall", "wall", False), SceneSegment(2, "chair", "chair", True)],
        surface=Surface(generator.normal(size=(50, 3)).astype(np.float32), np.ones(50, np.uint16)),
        overlap=np.full((views, views), 0.8, np.float16),
        license="Apache-2.0",
        provenance={"seed": 7},
    )
