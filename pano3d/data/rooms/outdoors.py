"""What stands behind the windows: sky, clouds, two rows of houses, ground; a function of the direction alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pano3d.data.rooms.lighting import Weather
from pano3d.data.rooms.textures import hash_unit, noise

FloatArray = NDArray[np.floating]

# A camera exposed for a room clips the sky; this keeps its content visible.
_DIMMED = np.float32(0.55)


def outdoor_radiance(directions: FloatArray, weather: Weather) -> FloatArray:
    """(N 3) linear radiance for directions (N 3) that need not have unit length."""
    x, y, z = directions.T
    flat = np.maximum(np.sqrt(x * x + y * y), np.float32(1e-6))
    rise = z / flat
    azimuth = np.arctan2(y, x).astype(np.float32)
    seed = np.full(len(rise), weather.seed, np.int32)
    sky = weather.sky.astype(np.float32)
    horizon = weather.horizon.astype(np.float32)
    blend = np.clip(rise * 1.4, 0, 1)[:, None]
    color = horizon + (sky * np.float32(0.7) - horizon) * blend
    cloud = np.clip(noise(azimuth * 2.5, rise * 5, rise, seed) * 1.6, 0, 0.8)[:, None]
    color = color + (horizon * np.float32(1.15) - color) * cloud * (rise[:, None] > 0)
    for layer, (width, tall, tint) in enumerate(((0.11, 0.42, 0.75), (0.19, 0.3, 0.5))):
        house = np.floor(azimuth / np.float32(width)).astype(np.int32)
        top = np.float32(0.06) + np.float32(tall) * hash_unit(house, house + layer, seed) ** 2
        inside = (rise < top) & (hash_unit(house, house, seed + 5 + layer) > 0.25)
        shade = 0.4 + 0.5 * hash_unit(house, house, seed + 9 + layer)
        warmth = 0.3 * hash_unit(house, house, seed + 11 + layer)
        face = np.stack([shade * (1 + warmth), shade, shade * (1 - warmth)], 1)
        column = np.floor(azimuth / np.float32(width / 6)).astype(np.int32)
        row = np.floor(rise / np.float32(0.035)).astype(np.int32)
        window = (np.mod(azimuth / (width / 6), 1) > 0.45) & (np.mod(rise / 0.035, 1) > 0.45)
        is_lit = hash_unit(column, row, seed + 3) > (0.6 if weather.is_lamp_lit else 0.97)
        pane = np.where(is_lit[:, None], np.float32(1.6), np.float32(0.35))
        wall = horizon * np.float32(tint) * np.where(window[:, None], face * pane * 0.6, face)
        color = np.where(inside[:, None], wall, color)
    ground = (
        horizon
        * np.array([0.22, 0.3, 0.14], np.float32)
        * (1 + 0.4 * noise(azimuth * 9, rise * 9, rise, seed))[:, None]
    )
    return (np.where((rise < -0.03)[:, None], ground, color) * _DIMMED).astype(np.float32)
