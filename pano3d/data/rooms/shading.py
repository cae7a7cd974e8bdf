"""Colour of camera rays: texture times light, sun with soft shadows, panes, mirrors and glossy surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pano3d.data.rooms.config import Quality
from pano3d.data.rooms.lighting import Light, Weather
from pano3d.data.rooms.materials import KINDS
from pano3d.data.rooms.outdoors import outdoor_radiance
from pano3d.data.rooms.scene import Hits, RayScene, RoomGeometry, Rows
from pano3d.data.rooms.textures import albedo

FloatArray = NDArray[np.floating]

_GLASS, _MIRROR, _SCREEN = (KINDS.index(kind) for kind in ("glass", "mirror", "screen"))
_SUN_RADIUS = 0.012
_INV_PI = np.float32(1 / np.pi)


@dataclass(frozen=True)
class Surfel:
    """Where rays arrived, one row per hit: position, facing normal, own-frame position, irradiance, exposedness."""

    position: FloatArray
    normal: FloatArray
    local: FloatArray
    irradiance: FloatArray
    exposedness: FloatArray


class Shader:
    """Everything that is constant over the frames of a room."""

    def __init__(
        self, geometry: RoomGeometry, full: RayScene, opaque: RayScene, light: Light, weather: Weather, quality: Quality
    ):
        self.geometry, self.full, self.opaque = geometry, full, opaque
        self.weather, self.quality = weather, quality
        self._attributes = np.concatenate(
            [geometry.normals, geometry.local, light.irradiance, light.exposedness[:, None]], 1
        ).astype(np.float32)
        # Per triangle: whether its front faces the sun, and the step off its surface that starts a shadow ray.
        face, sun = geometry.face_normal, weather.sun.astype(np.float32)
        self._faces_sun = face[:, 0] * sun[0] + face[:, 1] * sun[1] + face[:, 2] * sun[2] > 0
        self._sun_lift = face * np.float32(0.002)

    def surfels(self, origins: FloatArray, directions: FloatArray, hits: Hits, rows: Rows) -> Surfel:
        """Interpolate the vertex attributes at the hits `rows`."""
        corners = self.geometry.triangles.take(hits.triangle[rows], axis=0)
        u, v = hits.u[rows, None], hits.v[rows, None]
        table = self._attributes
        values = (1 - u - v) * table.take(corners[:, 0], axis=0)
        values += u * table.take(corners[:, 1], axis=0)
        values += v * table.take(corners[:, 2], axis=0)
        normal = values[:, :3]
        length = np.sqrt(normal[:, 0] ** 2 + normal[:, 1] ** 2 + normal[:, 2] ** 2)
        normal = normal / np.maximum(length, np.float32(1e-6))[:, None]
        position = origins[rows] + hits.t[rows, None] * directions[rows]
        return Surfel(position, normal, values[:, 3:6], values[:, 6:9], values[:, 9])

    def rows_of(self, hits: Hits) -> Rows:
        """The rays that met something."""
        gone = hits.triangle < 0
        return np.flatnonzero(~gone) if gone.any() else slice(None)

    def radiance(
        self,
        origins: FloatArray,
        directions: FloatArray,
        hits: Hits,
        spread: float,
        salt: int,
        is_first: bool = True,
        surfel: Surfel | None = None,
    ) -> FloatArray:
        """(N 3) linear radiance along rays.

        Args:
            origins, directions: (N 3); t of `hits` counts in `directions`.
            spread: width of a pixel at unit distance.
            salt: changes the pattern of soft shadows.
            is_first: camera rays see panes and reflections; what is seen in or through those does not.
            surfel: of the rays that met something, where the caller has it already.
        """
        result = np.empty_like(directions)
        rows = self.rows_of(hits)
        if not isinstance(rows, slice):
            gone = np.flatnonzero(hits.triangle < 0)
            result[gone] = outdoor_radiance(directions[gone], self.weather)
            if not len(rows):
                return result
        geometry = self.geometry
        triangle = hits.triangle[rows]
        material = geometry.material.take(triangle)
        kind = geometry.columns.kind.take(material)
        surfel = surfel or self.surfels(origins, directions, hits, rows)
        footprint = hits.t[rows] * np.float32(spread)
        base = albedo(surfel.local, geometry.face_axis.take(triangle), material, footprint, geometry.columns)
        irradiance = surfel.irradiance + self._sun(surfel, triangle, salt)
        color = base * irradiance * _INV_PI
        emission = geometry.columns.emission.take(material)
        # Screens glow with their picture, lamp shades evenly.
        lit = (emission > 0) & ((kind == _SCREEN) | self.weather.is_lamp_lit)
        color[lit] += base[lit] * emission[lit, None]
        if is_first:
            self._add_reflections(color, origins[rows], directions[rows], surfel, material, kind, spread, salt)
        else:
            color[kind == _MIRROR] = np.float32(0.3)
        result[rows] = color
        return result

    def _sun(self, surfel: Surfel, triangle: NDArray[np.int32], salt: int) -> FloatArray:
        """Direct sun with a penumbra."""
        result = np.zeros_like(surfel.position)
        weather = self.weather
        if not weather.sun_power.any():
            return result
        sun = weather.sun.astype(np.float32)
        normal = surfel.normal
        cosine = normal[:, 0] * sun[0] + normal[:, 1] * sun[1] + normal[:, 2] * sun[2]
        rows = np.flatnonzero((cosine > 0) & self._faces_sun.take(triangle))
        if not len(rows):
            return result
        start = surfel.position.take(rows, axis=0)
        start += self._sun_lift.take(triangle.take(rows), axis=0)
        side = np.array([-sun[1], sun[0], 0], np.float32)
        side /= np.sqrt(side[0] ** 2 + side[1] ** 2)
        other = np.array([sun[1] * side[2] - sun[2] * side[1], sun[2] * side[0] - sun[0] * side[2],
                          sun[0] * side[1] - sun[1] * side[0]], np.float32)  # fmt: skip
        visible = np.zeros(len(rows), np.float32)
        count = self.quality.sun_samples
        for sample in range(count):
            # The same points of the disc for every pixel: steps of light instead of grain.
            angle = 2.399963229728653 * (sample + 0.17 * salt)
            radius = _SUN_RADIUS * np.sqrt((sample + 0.5) / count) if count > 1 else 0.0
            towards = sun + radius * np.cos(angle) * side + radius * np.sin(angle) * other
            towards = np.broadcast_to(towards.astype(np.float32), start.shape)
            visible += ~self.opaque.is_blocked(start, towards)
        visible *= cosine[rows] / np.float32(count)
        result[rows] = visible[:, None] * weather.sun_power.astype(np.float32)
        return result

    def _add_reflections(
        self,
        color: FloatArray,
        origins: FloatArray,
        directions: FloatArray,
        surfel: Surfel,
        material: NDArray[np.int32],
        kind: NDArray[np.int32],
        spread: float,
        salt: int,
    ) -> None:
        """Panes, mirrors and gloss, in place."""
        gloss = self.geometry.columns.gloss.take(material)
        has_reflections = self.quality.has_reflections
        is_pane = (kind == _GLASS) | (kind == _MIRROR)
        rows = np.flatnonzero(is_pane | (gloss > 0.03 if has_reflections else gloss >= 0.06))
        if not len(rows):
            return
        gloss, kind, is_pane, towards = gloss[rows], kind[rows], is_pane[rows], directions[rows]
        x, y, z = towards.T
        length = np.sqrt(x * x + y * y + z * z)
        normal = surfel.normal[rows]
        along = (x * normal[:, 0] + y * normal[:, 1] + z * normal[:, 2]) / length
        fresnel = gloss + (1 - gloss) * np.float32(0.7) * (1 - np.abs(along)) ** 5
        if has_reflections:
            kept = np.flatnonzero(is_pane | (gloss >= 0.05) | (fresnel > 0.1))
            rows, kind, is_pane, towards = rows[kept], kind[kept], is_pane[kept], towards[kept]
            length, normal, along, fresnel = length[kept], normal[kept], along[kept], fresnel[kept]
            if not len(rows):
                return
        position = surfel.position[rows]
        bounced = towards / length[:, None] - 2 * along[:, None] * normal
        mirrored = self._secondary(position + bounced * np.float32(0.004), bounced, spread, salt)
        share = fresnel[:, None]
        color[rows] = np.where(is_pane[:, None], 0, color[rows] * (1 - share)) + share * mirrored
        behind = np.flatnonzero(kind == _GLASS)
        if len(behind):
            through = towards[behind]
            seen = self._secondary(position[behind] + through * np.float32(0.002), through, spread, salt + 7)
            color[rows[behind]] += (1 - share[behind]) * np.float32(0.93) * seen

    def _secondary(self, origins: FloatArray, directions: FloatArray, spread: float, salt: int) -> FloatArray:
        start = np.ascontiguousarray(origins, np.float32)
        towards = np.ascontiguousarray(directions, np.float32)
        return self.radiance(start, towards, self.opaque.cast(start, towards), spread, salt, is_first=False)
