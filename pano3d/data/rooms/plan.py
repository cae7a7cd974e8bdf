"""A furnished room as a list of placed objects, and the bookkeeping of free floor and wall."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pano3d.data.rooms.family import Family, build_family
from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import Interval, ObjectMesh
from pano3d.data.rooms.shell import Opening, RoomSize, placement

FRONT_CLEARANCE = 0.35


@dataclass(frozen=True)
class PlacedObject:
    """A segment of the room: NYU40 class, mesh in its own frame, (4 4) pose."""

    source_class: str
    mesh: ObjectMesh
    scan_from_object: NDArray[np.float64]


@dataclass(frozen=True)
class Lamp:
    """A light: position (3,), radiant power per channel (3,), radius in metres."""

    position: NDArray[np.float64]
    power: NDArray[np.float64]
    radius: float


@dataclass(frozen=True)
class Footprint:
    """Axis-aligned rectangle of floor in use: low and high (x, y), height span."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    z: Interval

    def meets(self, other: Footprint) -> bool:
        if not (self.z[0] < other.z[1] and other.z[0] < self.z[1]):
            return False
        # Number by number: a room asks this a thousand times, and arrays of two are slow.
        (a, b), (c, d) = self.low.tolist(), self.high.tolist()
        (e, f), (g, h) = other.low.tolist(), other.high.tolist()
        return bool(a < g - 1e-6 and b < h - 1e-6 and e < c - 1e-6 and f < d - 1e-6)


@dataclass
class RoomPlan:
    """One room under construction.

    objects keeps the order of placement: segment ids follow from it. solid: used floor. kept: floor that must stay
    free (in front of doors and drawers).
    """

    kind: str
    size: RoomSize
    style: Style
    generator: Generator
    cell: float
    openings: list[Opening] = field(default_factory=list)
    objects: list[PlacedObject] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    solid: list[Footprint] = field(default_factory=list)
    kept: list[Footprint] = field(default_factory=list)

    def put(self, source_class: str, mesh: ObjectMesh, scan_from_object: NDArray[np.float64]) -> None:
        self.objects.append(PlacedObject(source_class, mesh, scan_from_object))

    def footprint(self, low: NDArray[Any], high: NDArray[Any], pose: NDArray[np.float64]) -> Footprint:
        """Of a box given in an object's frame."""
        corners = np.array([[x, y, 0.0, 1.0] for x in (low[0], high[0]) for y in (low[1], high[1])]) @ pose.T
        z = pose[2, 3]
        return Footprint(corners[:, :2].min(0), corners[:, :2].max(0), (float(low[2] + z), float(high[2] + z)))

    def is_free(self, footprint: Footprint, keep: Footprint | None = None) -> bool:
        inside = (footprint.low > -1e-6).all() and (
            footprint.high < [self.size.width + 1e-6, self.size.depth + 1e-6]
        ).all()
        if not inside or any(footprint.meets(other) for other in [*self.solid, *self.kept]):
            return False
        return keep is None or not any(keep.meets(other) for other in self.solid)

    def _covers_opening(self, wall: int, span: Interval, z: Interval) -> bool:
        return any(
            o.wall == wall
            and o.span[0] - 0.08 < span[1]
            and span[0] < o.span[1] + 0.08
            and z[0] < o.height[1]
            and z[1] > o.height[0]
            for o in self.openings
        )

    def against_wall(
        self,
        pieces: list[tuple[str, ObjectMesh]],
        walls: list[int] | None = None,
        gap: float = 0.02,
        clearance: float = FRONT_CLEARANCE,
        tries: int = 40,
    ) -> NDArray[np.float64] | None:
        """Slide pieces that share a frame along a wall until they fit; returns their pose, or None if nothing did.

        `clearance` is kept free in front.
        """
        bounds = [mesh.bounds() for _, mesh in pieces]
        low, high = np.min([b[0] for b in bounds], 0), np.max([b[1] for b in bounds], 0)
        width, back = float(high[0] - low[0]), float(-low[1])
        draws = self.generator.random((tries, 2))
        choices = walls if walls is not None else [0, 1, 2, 3]
        for wall_draw, place_draw in draws:
            wall = choices[int(wall_draw * len(choices))]
            length = self.size.wall_length(wall)
            if width > length - 0.04:
                continue
            start = 0.02 + place_draw * (length - width - 0.04)
            # Furniture likes corners.
            if place_draw < 0.15 or place_draw > 0.85:
                start = 0.02 if place_draw < 0.5 else length - width - 0.02
            if self._covers_opening(wall, (start, start + width), (float(low[2]), float(high[2]))):
                continue
            pose = self.size.scan_from_wall(wall) @ placement(start - float(low[0]), back + gap, 0.0, 0.0)
            solid = self.footprint(low, high, pose)
            keep = self.footprint(np.array([low[0], high[1], 0.0]), np.array([high[0], high[1] + clearance, 2.0]), pose)
            if self.is_free(solid, keep):
                self.solid.append(solid)
                self.kept.append(keep)
                for source_class, mesh in pieces:
                    self.put(source_class, mesh, pose)
                return pose
        return None

    def family_against_wall(
        self, family: Family, walls: list[int] | None = None, clearance: float = FRONT_CLEARANCE
    ) -> NDArray[Any] | None:
        mesh = build_family(family, self.style, self.generator, self.cell)
        return self.against_wall([(family.source_class, mesh)], walls, clearance=clearance)

    def in_the_open(
        self, family: Family, centre: tuple[float, float], yaw: float, tries: int = 25
    ) -> NDArray[Any] | None:
        """Stand a piece near `centre`, shifted until it is free."""
        mesh = build_family(family, self.style, self.generator, self.cell)
        low, high = mesh.bounds()
        for index, shift in enumerate(self.generator.standard_normal((tries, 2))):
            spread = 0.08 + 0.06 * index
            pose = placement(centre[0] + shift[0] * spread, centre[1] + shift[1] * spread, 0.0, yaw)
            solid = self.footprint(low, high, pose)
            if self.is_free(solid):
                self.solid.append(solid)
                self.put(family.source_class, mesh, pose)
                return pose
        return None

    def beside(
        self, family: Family, pose: NDArray[np.float64], xy: tuple[float, float], yaw: float, margin: float = 0.0
    ) -> bool:
        """Place a piece relative to another's pose where that floor is free of furniture (it may use kept floor)."""
        mesh = build_family(family, self.style, self.generator, self.cell)
        low, high = mesh.bounds()
        own = pose @ placement(xy[0], xy[1], 0.0, yaw)
        solid = self.footprint(low + margin, high - margin, own)
        room = (solid.low > 0).all() and (solid.high < [self.size.width, self.size.depth]).all()
        if not room or any(solid.meets(other) for other in self.solid):
            return False
        self.solid.append(solid)
        self.put(family.source_class, mesh, own)
        return True

    def on_top(
        self, family: Family, pose: NDArray[np.float64], xy: tuple[float, float], z: float, yaw: float
    ) -> NDArray[Any]:
        """Stand a small thing on a surface at height z of another's frame."""
        mesh = build_family(family, self.style, self.generator, self.cell)
        own = pose @ placement(xy[0], xy[1], z, yaw)
        self.put(family.source_class, mesh, own)
        return own

    def hang(
        self,
        family: Family,
        height: float,
        walls: list[int] | None = None,
        over: NDArray[Any] | None = None,
        tries: int = 30,
    ) -> bool:
        """Hang a wall piece (wall at y = 0, its own z = 0 at `height`) where the wall is free, or over a given pose."""
        mesh = build_family(family, self.style, self.generator, self.cell)
        low, high = mesh.bounds()
        draws = self.generator.random((tries, 2))
        for wall_draw, place_draw in draws:
            choices = walls if walls is not None else [0, 1, 2, 3]
            wall = choices[int(wall_draw * len(choices))]
            length = self.size.wall_length(wall)
            start = 0.3 - float(low[0]) + place_draw * max(0.0, length - 0.6 - float(high[0] - low[0]))
            if over is not None:
                wall = round(float(np.arctan2(over[1, 0], over[0, 0])) / (np.pi / 2)) % 4
                start = float((np.linalg.inv(self.size.scan_from_wall(wall)) @ over[:, 3])[0]) + 0.3 * (
                    place_draw - 0.5
                )
            span = (start + float(low[0]), start + float(high[0]))
            z = (height + float(low[2]), height + float(high[2]))
            if z[1] > self.size.height - 0.1 or self._covers_opening(wall, span, z):
                continue
            pose = self.size.scan_from_wall(wall) @ placement(start, 0.003, height, 0.0)
            margin = np.array([0.05, 0, 0.05])
            solid = self.footprint(low - margin, high + margin, pose)
            inside = span[0] > 0.05 and span[1] < self.size.wall_length(wall) - 0.05
            if inside and not any(solid.meets(other) for other in self.solid):
                self.solid.append(solid)
                self.put(family.source_class, mesh, pose)
                return True
        return False
