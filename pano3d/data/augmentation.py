"""Photometric augmentation and mirroring: what a phone camera does to a picture that a renderer does not."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.types import ConfigError

RECOLOR_GAIN = 1.6


@dataclass(frozen=True)
class AugmentationConfig:
    """Strengths are half-ranges drawn uniformly; 0 switches a term off.

    brightness, contrast, saturation: relative. white_balance: relative gain per colour channel, common to the
    views of a scene with a tenth of it per view. noise: largest standard deviation of read noise in [0, 1].
    blur: chance of a slight blur, per view. jpeg: chance of JPEG artefacts, per view. mirror: chance that a whole
    scene is mirrored left to right. recolor: chance that every segment of a scene is dyed, in all views alike, by a
    gain per colour channel of 1/RECOLOR_GAIN to RECOLOR_GAIN: a sofa of a colour that no sofa of the data has. flatten:
    chance that a scene loses a share, drawn from [0, 1], of what differs within its segments: texture and shading.
    pattern: chance that half of a scene's segments are covered by a pattern each (`pano3d/data/patterns.py`).
    """

    brightness: float
    contrast: float
    saturation: float
    white_balance: float
    noise: float
    blur: float
    jpeg: float
    mirror: float
    recolor: float
    flatten: float
    pattern: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ConfigError(f"augmentation.{name} is {value}; expected a number in [0, 1]")


def augment_colors(
    colors: NDArray[np.uint8], config: AugmentationConfig, generator: np.random.Generator
) -> NDArray[np.float32]:
    """(V H W 3) uint8 to augmented RGB float32 in [0, 1]. Geometry is untouched."""
    images = colors.astype(np.float32) / 255.0
    views = len(images)
    shared = 1 + config.white_balance * generator.uniform(-1, 1, 3)
    own = 1 + 0.1 * config.white_balance * generator.uniform(-1, 1, (views, 3))
    gain = 1 + config.brightness * generator.uniform(-1, 1) + 0.1 * config.brightness * generator.uniform(-1, 1, views)
    images *= (shared * own * gain[:, None]).astype(np.float32)[:, None, None, :]
    contrast = np.float32(1 + config.contrast * generator.uniform(-1, 1))
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    images = mean + contrast * (images - mean)
    saturation = np.float32(1 + config.saturation * generator.uniform(-1, 1))
    grey = images.mean(axis=-1, keepdims=True)
    images = grey + saturation * (images - grey)
    for view in range(views):
        if generator.random() < config.blur:
            images[view] = cv2.GaussianBlur(images[view], (0, 0), sigmaX=float(generator.uniform(0.3, 0.9)))
    sigma = np.float32(config.noise * generator.random())
    images += sigma * generator.standard_normal(images.shape, dtype=np.float32)
    np.clip(images, 0, 1, out=images)
    for view in range(views):
        if generator.random() < config.jpeg:
            images[view] = _through_jpeg(images[view], quality=int(generator.integers(40, 90)))
    return images


def recolor_segments(
    colors: NDArray[np.uint8], segment_id: NDArray[np.uint16], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """(V H W 3) with every segment of (V H W) multiplied by a colour of its own; void pixels stay as they are."""
    reach = np.log(RECOLOR_GAIN)
    gains = np.exp(generator.uniform(-reach, reach, (int(segment_id.max()) + 1, 3))).astype(np.float32)
    gains[0] = 1.0
    return np.clip(colors * gains[segment_id] + np.float32(0.5), 0, 255).astype(np.uint8)


def flatten_segments(colors: NDArray[np.uint8], segment_id: NDArray[np.uint16], share: float) -> NDArray[np.uint8]:
    """(V H W 3) drawn by `share` in [0, 1] towards the mean colour, over all views, of each segment of (V H W)."""
    flat_id = segment_id.ravel()
    pixels = np.maximum(np.bincount(flat_id), 1)
    sums = [np.bincount(flat_id, weights=colors[..., channel].ravel()) for channel in range(3)]
    mean = (np.stack(sums, axis=-1) / pixels[:, None]).astype(np.float32)[segment_id]
    mean[segment_id == 0] = colors[segment_id == 0]  # void is no one thing, which a mean could stand for
    return (colors + np.float32(share) * (mean - colors) + np.float32(0.5)).astype(np.uint8)


def _through_jpeg(image: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    coded = (image * 255).round().astype(np.uint8)
    _, buffer = cv2.imencode(".jpg", coded, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: NDArray[np.uint8] = cv2.imdecode(buffer, cv2.IMREAD_COLOR)  # type: ignore[assignment]
    return decoded.astype(np.float32) / 255.0


def mirror_camera(
    intrinsics: NDArray[np.float64], scan_from_camera: NDArray[np.float64], width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cameras of a room seen in a mirror: images flipped left to right, the scan flipped in its x axis.

    Both frames change handedness once, so poses stay rotations: `M scan_from_camera M` with M = diag(-1, 1, 1, 1).
    """
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped = intrinsics.copy()
    flipped[..., 0, 2] = width - 1 - intrinsics[..., 0, 2]
    flipped[..., 0, 1] = -intrinsics[..., 0, 1]
    return flipped, mirror @ scan_from_camera @ mirror
