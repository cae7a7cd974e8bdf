"""Solid patterns over segments: stripes, checks, blobs and veins that no texture of the data has, in all views alike.

A pattern is a function of the position in the scan (Perlin, "An Image Synthesizer", 1985), so that a surface carries it
from view to view as paint would be carried.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from pano3d.geometry.projection import transform_points, unproject_depth

PERIODS = (0.08, 0.8)
"""Metres between stripes, shortest and longest."""
GAINS = (0.4, 1.6)
"""What a pattern multiplies a colour channel by where it is strongest."""


def pattern_segments(
    colors: NDArray[np.uint8],
    segment_id: NDArray[np.uint16],
    depth: NDArray[np.float32],
    intrinsics: NDArray[np.float64],
    scan_from_camera: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.uint8]:
    """Half of the segments covered by a pattern of their own, the same one in all views; void stays as it is.

    Args:
        colors: (V H W 3).
        segment_id: (V H W), 0 = void.
        depth: (V H W) metres, 0 = missing. There the nearest pixel with depth stands in; a view without any depth keeps
            its colours.
        intrinsics: (V 3 3) of the views.
        scan_from_camera: (V 4 4) of the views.
    """
    count = int(segment_id.max()) + 1
    patterns = _Patterns(count, generator)
    is_covered = generator.random(count) < 0.5
    is_covered[0] = False
    chosen = is_covered[segment_id] & (depth > 0).any(axis=(1, 2), keepdims=True)
    filled = _fill(depth)
    points = _scan_points(filled, intrinsics, scan_from_camera)[chosen]
    pixel = (filled / intrinsics[:, 0, 0].astype(np.float32)[:, None, None])[chosen]
    painted = colors.copy()
    gains = patterns.gains(points, segment_id[chosen], pixel)
    painted[chosen] = np.clip(colors[chosen] * gains + np.float32(0.5), 0, 255).astype(np.uint8)
    return painted


class _Patterns:
    """Three waves per segment, their phases bent by a slower fourth, put together in one of three ways."""

    def __init__(self, count: int, generator: np.random.Generator) -> None:
        # Upright and level directions draw stripes and checks, any directions blobs and veins.
        yaw = generator.uniform(0, np.pi, count)
        upright = np.zeros((count, 3, 3))
        upright[:, 0, 0], upright[:, 0, 1] = np.cos(yaw), np.sin(yaw)
        upright[:, 1, 0], upright[:, 1, 1] = -np.sin(yaw), np.cos(yaw)
        upright[:, 2, 2] = 1
        anyhow = generator.standard_normal((count, 3, 3))
        anyhow /= np.linalg.norm(anyhow, axis=-1, keepdims=True)
        directions = np.where(generator.random((count, 1, 1)) < 0.5, upright, anyhow)
        directions = np.stack([one[generator.permutation(3)] for one in directions])
        shortest, longest = np.log(PERIODS)
        period = np.exp(generator.uniform(shortest, longest, (count, 1))) * generator.uniform(1, 2, (count, 3))
        self._waves = (2 * np.pi * directions / period[..., None]).astype(np.float32)
        self._frequency = (1 / period.min(axis=1)).astype(np.float32)
        bend = generator.standard_normal((count, 3))
        self._bend = (np.pi * bend / period.max(axis=1, keepdims=True)).astype(np.float32)
        self._bent = (generator.uniform(0, 3, count) * (generator.random(count) < 0.5)).astype(np.float32)
        self._phase = generator.uniform(0, 2 * np.pi, (count, 3)).astype(np.float32)
        self._way = generator.integers(3, size=count)
        self._sharp = np.exp(generator.uniform(-1, 3, count)).astype(np.float32)
        weakest, strongest = np.log(GAINS)
        common = generator.uniform(weakest, strongest, (count, 1))
        own = generator.uniform(weakest, strongest, (count, 3))
        self._gain = np.exp(0.7 * common + 0.3 * own).astype(np.float32)

    def gains(
        self, points: NDArray[np.float32], segment: NDArray[np.uint16], pixel: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(N 3) factors on the colours of (N 3) points; `pixel` (N,) is the width of one in metres.

        A pattern fades where a pixel is wider than its period, as the eye of a camera would have it.
        """
        turn = self._bent[segment] * np.sin((self._bend[segment] * points).sum(-1))
        phase = np.einsum("nkc,nc->nk", self._waves[segment], points) + self._phase[segment] + turn[:, None]
        first, second, third = np.sin(phase).T
        way = self._way[segment]
        together = np.clip((first + second + third) / 2, -1, 1)
        value = np.where(way == 0, first, np.where(way == 1, first * second, together))
        sharp = self._sharp[segment]
        fade = np.clip(1.5 - 2.5 * pixel * self._frequency[segment], 0, 1)
        share = 0.5 + 0.5 * fade * np.tanh(sharp * value) / np.tanh(sharp)
        return (1 + (self._gain[segment] - 1) * share[:, None]).astype(np.float32)


def _fill(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    filled = depth.copy()
    for view in filled:
        if (view > 0).any() and not (view > 0).all():
            rows, columns = distance_transform_edt(view <= 0, return_distances=False, return_indices=True)
            view[...] = view[rows, columns]
    return filled


def _scan_points(
    depth: NDArray[np.float32], intrinsics: NDArray[np.float64], scan_from_camera: NDArray[np.float64]
) -> NDArray[np.float32]:
    points = unproject_depth(torch.from_numpy(depth), torch.from_numpy(intrinsics).float())
    moved: NDArray[np.float32] = transform_points(torch.from_numpy(scan_from_camera).float(), points).numpy()
    return moved
