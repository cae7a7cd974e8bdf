"""Solid textures: albedo as a function of the position in the object's own frame.

No picture files and no texture coordinates. Noise is one lookup in a volume made once per process from a fixed seed;
patterns fade where a pixel is wider than their period. Points are grouped by texture kind, not by material.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pano3d.data.rooms.materials import KINDS, MaterialColumns

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int32]

_SIDE = 64
_VOXELS_PER_FEATURE = 8


@cache
def _noise_volume() -> FloatArray:
    """(64**3,) fractal noise that repeats in all directions, about in [-1, 1]."""
    generator = np.random.default_rng(20240229)
    volume = np.zeros((_SIDE,) * 3)
    for sigma, weight in ((3.2, 1.0), (1.6, 0.5), (0.8, 0.3)):
        octave = gaussian_filter(generator.standard_normal((_SIDE,) * 3), sigma, mode="wrap")
        volume += weight * octave / octave.std()
    return np.clip(volume / (2.2 * volume.std()), -1, 1).astype(np.float32).ravel()


def noise(x: FloatArray, y: FloatArray, z: FloatArray, seed: IntArray) -> FloatArray:
    """Noise with features about one unit wide; `seed` shifts the volume."""
    scale = np.float32(_VOXELS_PER_FEATURE)
    i = (np.floor(x * scale).astype(np.int32) + seed) & (_SIDE - 1)
    j = (np.floor(y * scale).astype(np.int32) + (seed >> 3)) & (_SIDE - 1)
    k = (np.floor(z * scale).astype(np.int32) + (seed >> 6)) & (_SIDE - 1)
    return _noise_volume().take((i * _SIDE + j) * _SIDE + k)


def hash_unit(i: IntArray, j: IntArray, seed: IntArray | int) -> FloatArray:
    """Uniform [0, 1) numbers from integer coordinates, the same in every process."""
    value = i.astype(np.uint32) * np.uint32(0x9E3779B1) ^ j.astype(np.uint32) * np.uint32(0x85EBCA77)
    value ^= np.asarray(seed, np.uint32) * np.uint32(0xC2B2AE3D)
    value ^= value >> np.uint32(15)
    value *= np.uint32(0x2C1B3C6D)
    value ^= value >> np.uint32(12)
    value *= np.uint32(0x297A2D39)
    value ^= value >> np.uint32(15)
    return (value >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


class TexturePoints:
    """Points that share a texture kind.

    p: (3 n) position in the object's frame; u, v: the two coordinates in the plane of the face; color, second:
    (3 n); scale, seed, axis: (n,); size: (2 n); footprint: (n,) width of a pixel on the surface, metres. Points run
    along the last axis, where numpy is fast.
    """

    def __init__(
        self, p: FloatArray, face_axis: IntArray, material: IntArray, columns: MaterialColumns, footprint: FloatArray
    ):
        self.p = p
        self.footprint = footprint
        self._face_axis, self._material, self._columns = face_axis, material, columns

    @cached_property
    def u(self) -> FloatArray:
        return np.where(self._face_axis == 0, self.p[1], self.p[0])

    @cached_property
    def v(self) -> FloatArray:
        return np.where(self._face_axis == 2, self.p[1], self.p[2])

    @cached_property
    def color(self) -> FloatArray:
        return self._columns.color.T.take(self._material, axis=1)

    @cached_property
    def second(self) -> FloatArray:
        return self._columns.second.T.take(self._material, axis=1)

    @cached_property
    def scale(self) -> FloatArray:
        return self._columns.scale.take(self._material)

    @cached_property
    def size(self) -> FloatArray:
        return self._columns.size.T.take(self._material, axis=1)

    @cached_property
    def axis(self) -> IntArray:
        return self._columns.axis.take(self._material)

    @cached_property
    def seed(self) -> IntArray:
        return self._columns.seed.take(self._material)

    def fade(self, period: FloatArray | float) -> FloatArray:
        """1 for a pattern well above the pixel, 0 where the pixel swallows it."""
        return np.clip(1.5 - 2.5 * self.footprint / period, 0, 1).astype(np.float32)

    def blend(self, share: FloatArray) -> FloatArray:
        return self.color + (self.second - self.color) * share


def _plain(t: TexturePoints) -> FloatArray:
    return t.color


def _paint(t: TexturePoints) -> FloatArray:
    x, y, z = t.p
    stain = noise(x * 0.9, y * 0.9, z * 0.9, t.seed)
    grain = noise(x * 9, y * 9, z * 9, t.seed + 5) * t.fade(0.06)
    return t.color * (1 + 0.07 * stain + 0.04 * grain)


def _wood(t: TexturePoints) -> FloatArray:
    along = np.float32(0.12)
    x, y, z = (t.p[k] * np.where(t.axis == k, along, np.float32(1)) / t.scale for k in range(3))
    bend = noise(x * 0.5, y * 0.5, z * 0.5, t.seed)
    ring = np.sin((x + y + z) * np.float32(2.2) + bend * np.float32(5))
    fibre = noise(x * 3, y * 3, z * 3, t.seed + 9)
    return t.blend(np.clip(0.4 + (0.35 * ring + 0.25 * fibre) * t.fade(t.scale), 0, 1))


def _planks(t: TexturePoints) -> FloatArray:
    row = np.floor(t.v / t.scale).astype(np.int32)
    shift = hash_unit(row, row, t.seed)
    length = t.scale * 7
    along = t.u / length + shift
    column = np.floor(along).astype(np.int32)
    tint = hash_unit(row, column, t.seed + 1)
    grain = noise(t.u * 2.5, t.v * 22, tint * 8, t.seed + row * 7)
    share = 0.15 + 0.5 * tint + 0.25 * grain * t.fade(0.07)
    edge = np.minimum(np.abs(t.v / t.scale - np.rint(t.v / t.scale)) * t.scale, np.abs(along - np.rint(along)) * length)
    joint = np.clip(1 - edge / np.maximum(np.float32(0.004), t.footprint * 0.5), 0, 1) * t.fade(t.scale * 0.8)
    return t.blend(np.clip(share, 0, 1)) * (1 - 0.45 * joint)


def _tiles(t: TexturePoints) -> FloatArray:
    i = np.floor(t.u / t.scale)
    j = np.floor(t.v / t.scale)
    tint = hash_unit(i.astype(np.int32), j.astype(np.int32), t.seed)
    edge = (
        np.minimum(np.abs(t.u / t.scale - np.rint(t.u / t.scale)), np.abs(t.v / t.scale - np.rint(t.v / t.scale)))
        * t.scale
    )
    width = np.maximum(np.float32(0.006), t.footprint * 0.6)
    joint = np.clip(1.3 - edge / width, 0, 1) * t.fade(t.scale) * np.minimum(1, 0.009 / width)
    speckle = noise(t.u * 6, t.v * 6, tint * 9, t.seed)
    face = t.color * (0.92 + 0.12 * tint + 0.04 * speckle)
    return face + (t.second - face) * joint


def _fabric(t: TexturePoints) -> FloatArray:
    x, y, z = t.p / t.scale
    weave = noise(x * 2, y * 2, z * 2, t.seed) * t.fade(t.scale * 0.8)
    soft = noise(x * 0.15, y * 0.15, z * 0.15, t.seed + 3)
    return t.blend(np.clip(0.45 + 0.45 * weave + 0.3 * soft, 0, 1))


def _band(coordinate: FloatArray, sharp: FloatArray | float) -> FloatArray:
    """A smooth square wave of period 1, in [0, 1]."""
    return np.clip(0.5 + sharp * np.sin(coordinate * np.float32(2 * np.pi)), 0, 1).astype(np.float32)


def _stripes(t: TexturePoints) -> FloatArray:
    # Horizontal faces (a mattress, a seat) and fronts share the stripes across x; sides take them across y.
    band = _band(t.u / t.scale, 3.0)
    return t.blend(0.5 + (band - 0.5) * t.fade(t.scale)) * (1 + 0.05 * noise(t.u * 9, t.v * 9, t.v, t.seed))


def _plaid(t: TexturePoints) -> FloatArray:
    wide = 0.5 * _band(t.u / t.scale, 3.0) + 0.5 * _band(t.v / t.scale, 3.0)
    thin = np.maximum(_band(t.u / t.scale * 4, 3.0) * 0.25, _band(t.v / t.scale * 4, 3.0) * 0.25) * t.fade(t.scale / 4)
    return t.blend(np.clip(0.45 + (wide - 0.45) * t.fade(t.scale) + thin - 0.1, 0, 1))


def _marble(t: TexturePoints) -> FloatArray:
    x, y, z = t.p / t.scale
    vein = noise(x, y, z, t.seed)
    line = np.exp(-np.square(vein * 6)) * t.fade(0.05)
    speck = noise(x * 8, y * 8, z * 8, t.seed + 1) * t.fade(0.03)
    return t.blend(np.clip(0.15 + 0.6 * line + 0.12 * speck, 0, 1))


def _rug(t: TexturePoints) -> FloatArray:
    border = np.minimum(t.size[0] / 2 - np.abs(t.u), t.size[1] / 2 - np.abs(t.v))
    diamond = _band((np.abs(t.u) + np.abs(t.v)) / t.scale / 2, 3.0)
    other = _band((np.abs(t.u) - np.abs(t.v)) / t.scale / 2, 3.0)
    inner = np.where(t.seed % 2 == 0, diamond * other, 0.6 * diamond)
    share = np.where((border > 0.07) & (border < 0.13), 1.0, np.where(border < 0.16, 0.0, inner)).astype(np.float32)
    pile = noise(t.u * 14, t.v * 14, t.u, t.seed) * t.fade(0.06)
    return t.blend(share) * (1 + 0.12 * pile)


def _picture(t: TexturePoints) -> FloatArray:
    x, y = t.u / t.size[0], t.v / t.size[1]
    horizon = 0.1 * noise(x * 2, y * 0, x * 0, t.seed) - 0.1 + 0.2 * hash_unit(t.seed, t.seed, 3)
    share = np.clip(0.5 + (y - horizon) * 14, 0, 1)
    color = t.blend(share) * (0.75 + 0.5 * np.abs(y))
    for disc in range(3):
        cx = hash_unit(t.seed, t.seed + disc, 11) - 0.5
        cy = hash_unit(t.seed + disc, t.seed, 12) - 0.5
        radius = 0.08 + 0.17 * hash_unit(t.seed + disc, t.seed + disc, 13)
        aspect = t.size[1] / t.size[0]
        distance = np.sqrt(np.square(x - cx) + np.square((y - cy) * aspect))
        inside = np.clip((radius - distance) * 60 + 0.5, 0, 1)
        tint = 0.2 + 0.5 * np.stack([hash_unit(t.seed + disc, t.seed + k, 14) for k in range(3)])
        tint = (tint + tint.mean(0)) * (0.25 + 0.35 * hash_unit(t.seed, t.seed + disc, 15))
        color = color + (tint - color) * inside
    mat = (np.maximum(np.abs(x), np.abs(y)) > 0.43) & (t.seed % 3 == 0)
    return np.where(mat, np.float32(0.8), color)


def _screen(t: TexturePoints) -> FloatArray:
    x, y = t.u / t.size[0] + 0.5, t.v / t.size[1] + 0.5
    line = np.floor(y * 16).astype(np.int32)
    indent = 0.07 + 0.1 * hash_unit(line, line * 0, t.seed)
    length = 0.25 + 0.6 * hash_unit(line, line * 0 + 1, t.seed)
    text = (x > indent) & (x < length) & (np.mod(y * 16, 1) < 0.55) & (y < 0.86) & (y > 0.08)
    panel = (y > 0.88) | (x < 0.05)
    share = np.where(panel, 0.25, np.where(text, 0.85, 0.0)).astype(np.float32)
    return t.blend(share)


def _spine(t: TexturePoints) -> FloatArray:
    band = _band(t.v / t.scale, 6.0) * (np.mod(t.v / t.scale, 3) < 1) * t.fade(t.scale / 2)
    return t.blend(0.55 * band.astype(np.float32))


def _leaf(t: TexturePoints) -> FloatArray:
    x, y, z = t.p / t.scale
    return t.blend(np.clip(0.5 + 0.5 * noise(x, y, z, t.seed), 0, 1))


def _dots(t: TexturePoints) -> FloatArray:
    row = np.floor(t.v / t.scale)
    x = np.mod(t.u / t.scale + 0.5 * np.mod(row, 2), 1) - 0.5
    y = np.mod(t.v / t.scale, 1) - 0.5
    inside = np.clip((0.28 - np.sqrt(x * x + y * y)) * 12 + 0.5, 0, 1)
    return t.blend(0.25 + (inside - 0.25) * t.fade(t.scale))


def _zigzag(t: TexturePoints) -> FloatArray:
    wave = np.abs(np.mod(t.u / t.scale, 1) - 0.5)
    return t.blend(0.5 + (_band(t.v / t.scale + wave, 3.0) - 0.5) * t.fade(t.scale))


def _checker(t: TexturePoints) -> FloatArray:
    i, j = np.floor(t.u / t.scale).astype(np.int32), np.floor(t.v / t.scale).astype(np.int32)
    share = ((i + j) & 1).astype(np.float32)
    vein = noise(t.u * 4, t.v * 4, share * 5, t.seed)
    return t.blend(0.5 + (share - 0.5) * t.fade(t.scale)) * (1 + 0.07 * vein)


def _brick(t: TexturePoints) -> FloatArray:
    height = t.scale / 3
    row = np.floor(t.v / height)
    along = t.u / t.scale + 0.5 * np.mod(row, 2)
    tint = hash_unit(row.astype(np.int32), np.floor(along).astype(np.int32), t.seed)
    edge = np.minimum(np.abs(t.v / height - np.rint(t.v / height)) * height, np.abs(along - np.rint(along)) * t.scale)
    joint = np.clip(1.4 - edge / np.maximum(np.float32(0.008), t.footprint * 0.5), 0, 1) * t.fade(height)
    face = t.color * (0.7 + 0.5 * tint)
    return face + (t.second - face) * joint


def _waves(t: TexturePoints) -> FloatArray:
    bend = np.float32(0.22) * np.sin(t.u / t.scale * np.float32(1.9) + t.seed.astype(np.float32))
    return t.blend(0.5 + (_band(t.v / t.scale + bend, 1.5) - 0.5) * t.fade(t.scale))


def _blotches(t: TexturePoints) -> FloatArray:
    x, y, z = t.p / t.scale
    share = np.clip(0.5 + 7 * noise(x, y, z, t.seed), 0, 1)
    return t.blend(0.5 + (share - 0.5) * t.fade(t.scale))


def _lattice(t: TexturePoints) -> FloatArray:
    rising, falling = (t.u + t.v) / t.scale, (t.u - t.v) / t.scale
    edge = np.minimum(np.abs(rising - np.rint(rising)), np.abs(falling - np.rint(falling)))
    return t.blend(0.15 + (np.clip(1.4 - edge * 14, 0, 1) - 0.15) * t.fade(t.scale))


def _terrazzo(t: TexturePoints) -> FloatArray:
    """Chips of stone: the nearest of the jittered centres in the cells around colours a point."""
    x, y = t.u / t.scale, t.v / t.scale
    i, j = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    nearest, tint = np.full(len(x), np.inf, np.float32), np.zeros(len(x), np.float32)
    for right in (-1, 0, 1):
        for up in (-1, 0, 1):
            a, b = i + right, j + up
            cx, cy = a + hash_unit(a, b, t.seed), b + hash_unit(a, b, t.seed + 1)
            distance = np.square(x - cx) + np.square(y - cy)
            closer = distance < nearest
            nearest = np.where(closer, distance, nearest)
            tint = np.where(closer, hash_unit(a, b, t.seed + 2), tint)
    share = 0.35 + (np.where(nearest < 0.16, tint, 0.0) - 0.35) * t.fade(t.scale)
    return t.blend(share.astype(np.float32))


def _basket(t: TexturePoints) -> FloatArray:
    """Parquet of square blocks, their strips turned in every other one."""
    x, y = t.u / t.scale, t.v / t.scale
    i, j = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    across = ((i + j) & 1).astype(bool)
    strip = np.where(across, y, x) * 4
    tint = hash_unit(np.floor(strip).astype(np.int32), np.where(across, i, j), t.seed)
    edge = np.minimum(np.abs(strip - np.rint(strip)) / 4, np.minimum(np.abs(x - np.rint(x)), np.abs(y - np.rint(y))))
    joint = np.clip(1 - edge * t.scale / np.maximum(np.float32(0.004), t.footprint * 0.5), 0, 1) * t.fade(t.scale / 4)
    return t.blend(0.1 + 0.8 * tint) * (1 - 0.4 * joint)


def _hexagons(t: TexturePoints) -> FloatArray:
    """Six-sided tiles: the nearer of the centres of two staggered grids owns a point."""
    x, y = t.u / t.scale, t.v / t.scale / np.float32(np.sqrt(3))
    i, j = np.rint(x), np.rint(y)
    k, m = np.floor(x) + np.float32(0.5), np.floor(y) + np.float32(0.5)
    first = np.square(x - i) + 3 * np.square(y - j)
    second = np.square(x - k) + 3 * np.square(y - m)
    is_first = first < second
    a, b = np.where(is_first, i, k), np.where(is_first, j, m)
    tint = hash_unit((2 * a).astype(np.int32), (2 * b).astype(np.int32), t.seed)
    # To the slanted edges, which part the two grids, and to the upright ones, within a grid.
    edge = np.minimum(np.abs(first - second) / 2, 0.5 - np.abs(x - a))
    width = np.maximum(np.float32(0.012), t.footprint / t.scale)
    joint = np.clip(1.3 - edge / width, 0, 1) * t.fade(t.scale)
    face = t.color * (0.85 + 0.25 * tint)
    return face + (t.second - face) * joint


_TEXTURES: dict[str, Callable[[TexturePoints], FloatArray]] = {
    "plain": _plain, "paint": _paint, "wood": _wood, "planks": _planks, "tiles": _tiles, "fabric": _fabric,
    "stripes": _stripes, "plaid": _plaid, "marble": _marble, "rug": _rug, "picture": _picture, "screen": _screen,
    "spine": _spine, "leaf": _leaf, "dots": _dots, "zigzag": _zigzag, "checker": _checker, "brick": _brick,
    "waves": _waves, "blotches": _blotches, "lattice": _lattice, "terrazzo": _terrazzo, "basket": _basket,
    "hexagons": _hexagons,
    "glass": _plain, "mirror": _plain,
}  # fmt: skip


def albedo(
    position: FloatArray, face_axis: IntArray, material: IntArray, footprint: FloatArray, columns: MaterialColumns
) -> FloatArray:
    """Linear RGB albedo of surface points.

    Args:
        position: (N 3) in the object's own frame, metres.
        face_axis: (N,) axis of that frame which is closest to the face's normal.
        material: (N,) row of `columns`.
        footprint: (N,) width of a pixel on the surface, metres.

    Returns:
        (N 3) float32 in [0, 1].
    """
    # Numbers of 8 bits are sorted in linear time.
    kind = columns.kind.astype(np.uint8).take(material)
    order = np.argsort(kind, kind="stable")
    bounds = np.concatenate([[0], np.bincount(kind, minlength=len(KINDS)).cumsum()])
    position, face_axis = np.ascontiguousarray(position.take(order, axis=0).T), face_axis.take(order)
    material, footprint = material.take(order), footprint.take(order)
    sorted_result = np.empty_like(position)
    for name, start, end in zip(KINDS, bounds[:-1], bounds[1:], strict=True):
        if start < end:
            rows = slice(start, end)
            points = TexturePoints(position[:, rows], face_axis[rows], material[rows], columns, footprint[rows])
            np.clip(_TEXTURES[name](points), 0, 0.95, out=sorted_result[:, rows])
    result = np.empty((len(order), 3), np.float32)
    result[order] = sorted_result.T
    return result
