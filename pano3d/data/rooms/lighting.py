"""Light of a room: sun, sky through the openings, lamps, and what bounces, kept per vertex.

Everything but the direct sun is smooth, so it is computed once per room at the vertices and interpolated; the sun is
traced per pixel. Bouncing light solves the radiosity equation by a few gathering passes over fixed rays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pano3d.data.rooms.config import Quality
from pano3d.data.rooms.plan import Lamp, RoomPlan
from pano3d.data.rooms.scene import RayScene, RoomGeometry
from pano3d.data.rooms.shell import Opening

FloatArray = NDArray[np.floating]

_LIFT = np.float32(0.004)
_BOUNCES = 3
_SMOOTHINGS = 3
_AMBIENT = np.float32(0.015)


@dataclass(frozen=True)
class Weather:
    """The world outside. sun: unit vector towards it; sun_power, sky: linear RGB."""

    sun: NDArray[np.float64]
    sun_power: NDArray[np.float64]
    sky: NDArray[np.float64]
    horizon: NDArray[np.float64]
    seed: int
    is_lamp_lit: bool


@dataclass(frozen=True)
class Light:
    """irradiance (N 3) at the vertices without the direct sun; exposedness (N,): share of the room's windows and
    lamps that a vertex sees, weighted by what they would give."""

    irradiance: FloatArray
    exposedness: FloatArray


def draw_weather(plan: RoomPlan, generator: Generator) -> Weather:
    """A clear or dull day, or an evening; the sun stands before one of the glazed openings."""
    glazed = [o for o in plan.openings if o.is_glazed]
    normal = plan.size.wall_normal(glazed[int(generator.integers(len(glazed)))].wall) if glazed else np.array([0.0, 1])
    turn, height = generator.uniform(-0.9, 0.9), generator.uniform(0.35, 0.85)
    outward = -normal
    flat = np.array(
        [
            outward[0] * np.cos(turn) - outward[1] * np.sin(turn),
            outward[0] * np.sin(turn) + outward[1] * np.cos(turn),
        ]
    )
    sun = np.array([flat[0] * np.cos(height), flat[1] * np.cos(height), np.sin(height)])
    kind = generator.random()
    seed = int(generator.integers(1 << 16))
    if kind < 0.68:
        power = generator.uniform(7.0, 11.0) * np.array([1.0, 0.92, 0.78])
        return Weather(
            sun,
            power,
            np.array([0.75, 0.95, 1.25]) * 2.2,
            np.array([1.3, 1.3, 1.25]),
            seed,
            bool(generator.random() < 0.35),
        )
    if kind < 0.88:
        grey = np.array([1.0, 1.02, 1.06])
        return Weather(sun, np.zeros(3), grey * 2.6, grey * 1.3, seed, bool(generator.random() < 0.6))
    return Weather(sun, np.zeros(3), np.array([0.25, 0.32, 0.55]), np.array([0.5, 0.36, 0.3]), seed, True)


def bake(
    plan: RoomPlan, geometry: RoomGeometry, opaque: RayScene, weather: Weather, quality: Quality, generator: Generator
) -> Light:
    """Irradiance of every vertex."""
    points, normals = _sample_points(geometry)
    direct = np.zeros_like(points)
    seen, possible = np.zeros(len(points), np.float32), np.full(len(points), 1e-4, np.float32)
    for position, facing, power in _light_samples(plan, weather, quality, generator):
        to_light = position - points
        cosine, fall = _geometry_term(to_light, normals, facing)
        would = cosine * fall
        lit = np.flatnonzero(would > 1e-5)
        clear = ~opaque.is_blocked(points[lit], to_light[lit], 0.97)
        weight = np.float32(power.mean())
        possible[lit] += would[lit] * weight
        reached = lit[clear]
        seen[reached] += would[reached] * weight
        direct[reached] += would[reached, None] * power.astype(np.float32)
    sun = _sun_at(points, normals, opaque, weather)
    return Light(direct + _bounce(geometry, points, normals, opaque, direct + sun, quality), seen / possible)


def _sample_points(geometry: RoomGeometry) -> tuple[FloatArray, FloatArray]:
    """Vertices drawn a little into their faces and off the surface, so that corners do not lie in the next wall."""
    count = len(geometry.vertices)
    faces = geometry.triangles
    centre = geometry.vertices[faces].mean(1)
    index = faces.ravel()
    number = np.maximum(np.bincount(index, minlength=count), 1)
    middle = np.stack(
        [np.bincount(index, np.repeat(centre[:, k], 3), minlength=count) / number for k in range(3)], 1
    ).astype(np.float32)
    points = geometry.vertices + np.float32(0.25) * (middle - geometry.vertices) + geometry.normals * _LIFT
    return points.astype(np.float32), geometry.normals


def _geometry_term(
    to_light: FloatArray, normals: FloatArray, facing: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Cosine at the receiver, and cosine at the sender over squared distance."""
    x, y, z = to_light.T
    square = np.maximum(x * x + y * y + z * z, np.float32(0.02))
    length = np.sqrt(square)
    cosine = np.maximum((x * normals[:, 0] + y * normals[:, 1] + z * normals[:, 2]) / length, 0)
    fall = 1 / square
    if facing is not None:
        fall = fall * np.maximum(-(x * facing[0] + y * facing[1] + z * facing[2]) / length, 0)
    return cosine, fall


def _light_samples(
    plan: RoomPlan, weather: Weather, quality: Quality, generator: Generator
) -> list[tuple[FloatArray, FloatArray | None, NDArray[np.float64]]]:
    """(position, normal or None for a ball, power) of the points that stand for windows and lamps."""
    samples: list[tuple[FloatArray, FloatArray | None, NDArray[np.float64]]] = []
    for opening in plan.openings:
        if opening.is_glazed:
            samples += _window_samples(plan, opening, weather, quality.light_samples, generator)
    for lamp in plan.lamps if weather.is_lamp_lit else []:
        samples += _lamp_samples(lamp, max(2, quality.light_samples // 2), generator)
    return samples


def _window_samples(
    plan: RoomPlan, opening: Opening, weather: Weather, count: int, generator: Generator
) -> list[tuple[FloatArray, FloatArray | None, NDArray[np.float64]]]:
    pose = plan.size.scan_from_wall(opening.wall)
    width, height = opening.span[1] - opening.span[0], opening.height[1] - opening.height[0]
    facing = pose[:3, :3] @ [0.0, 1.0, 0.0]
    power = weather.sky * width * height * 0.7 / count
    samples: list[tuple[FloatArray, FloatArray | None, NDArray[np.float64]]] = []
    for index in range(count):
        # A low-discrepancy pair: the samples cover the pane evenly for any count.
        s = (0.5 + index * 0.7548776662 + generator.uniform(-0.05, 0.05)) % 1
        t = (0.5 + index * 0.5698402910 + generator.uniform(-0.05, 0.05)) % 1
        place = pose @ [opening.span[0] + s * width, -0.15, opening.height[0] + t * height, 1.0]
        samples.append((place[:3].astype(np.float32), facing.astype(np.float32), power))
    return samples


def _lamp_samples(
    lamp: Lamp, count: int, generator: Generator
) -> list[tuple[FloatArray, FloatArray | None, NDArray[np.float64]]]:
    directions = generator.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return [
        ((lamp.position + d * lamp.radius * [1, 1, 0.4]).astype(np.float32), None, lamp.power / count)
        for d in directions
    ]


def _sun_at(points: FloatArray, normals: FloatArray, opaque: RayScene, weather: Weather) -> FloatArray:
    """Direct sun at the vertices, for its bounces only."""
    result = np.zeros_like(points)
    if not weather.sun_power.any():
        return result
    sun = weather.sun.astype(np.float32)
    cosine = normals[:, 0] * sun[0] + normals[:, 1] * sun[1] + normals[:, 2] * sun[2]
    lit = np.flatnonzero(cosine > 0)
    clear = ~opaque.is_blocked(points[lit], np.tile(sun, (len(lit), 1)))
    result[lit[clear]] = cosine[lit[clear], None] * weather.sun_power.astype(np.float32)
    return result


def _directions(normals: FloatArray, count: int) -> FloatArray:
    """(count N 3) cosine-weighted directions about each normal, the same pattern for all: no grain, no seams."""
    index = np.arange(count) + 0.5
    radius, angle = np.sqrt(index / count), index * 2.399963229728653
    local = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - radius**2)], 1).astype(np.float32)
    x, y, z = normals.T
    sign = np.where(z >= 0, np.float32(1), np.float32(-1))
    a = -1 / (sign + z)
    b = x * y * a
    tangent = np.stack([1 + sign * x * x * a, sign * b, -sign * x], 1)
    other = np.stack([b, sign + y * y * a, -y], 1)
    return local[:, :1, None] * tangent + local[:, 1:2, None] * other + local[:, 2:, None] * normals


def _bounce(
    geometry: RoomGeometry,
    points: FloatArray,
    normals: FloatArray,
    opaque: RayScene,
    direct: FloatArray,
    quality: Quality,
) -> FloatArray:
    """Indirect irradiance: cosine-weighted mean over the hemisphere of albedo times irradiance met there."""
    count = quality.gather_rays
    met = np.empty((count, len(points)), np.int32)
    for index, directions in enumerate(_directions(normals, count)):
        directions = np.ascontiguousarray(directions, np.float32)
        hits = opaque.cast(points, directions)
        face = geometry.face_normal.take(hits.triangle, axis=0, mode="clip")
        away = directions[:, 0] * face[:, 0] + directions[:, 1] * face[:, 1] + directions[:, 2] * face[:, 2] > 0
        # A face seen from behind means that the vertex lies inside something.
        met[index] = np.where(away | (hits.triangle < 0), len(geometry.triangles), hits.triangle)
    albedo = geometry.columns.mean[geometry.material]
    radiosity = np.zeros((len(geometry.triangles) + 1, 3), np.float32)
    indirect = np.full_like(direct, _AMBIENT)
    for _ in range(_BOUNCES):
        total = direct + indirect
        faces = geometry.triangles
        radiosity[:-1] = albedo * _sum_of_corners(total, faces) / 3
        share = radiosity / np.float32(count)
        indirect = np.full_like(direct, _AMBIENT)
        for row in met:
            indirect += share.take(row, axis=0)
    return _smooth(geometry, indirect)


def _sum_of_corners(values: FloatArray, faces: NDArray[np.int32]) -> FloatArray:
    """(T 3) sum of the vertex values (N 3) over each triangle."""
    first, second, third = faces.T
    return values.take(first, axis=0) + values.take(second, axis=0) + values.take(third, axis=0)


def _smooth(geometry: RoomGeometry, values: FloatArray) -> FloatArray:
    """Spread bounced light over neighbouring vertices of a face: few rays per vertex leave blotches on plain walls."""
    faces = geometry.triangles
    index = faces.ravel()
    number = np.maximum(np.bincount(index, minlength=len(values)), 1)
    for _ in range(_SMOOTHINGS):
        middle = _sum_of_corners(values, faces) / np.float32(3)
        values = np.stack(
            [np.bincount(index, np.repeat(middle[:, k], 3), minlength=len(values)) / number for k in range(3)], 1
        ).astype(np.float32)
    return values
