"""The room itself: floor, ceiling and walls with holes cut by assembling boxes, windows, doors and their trim.

Walls are numbered 0 to 3 (y = 0, x = width, y = depth, x = 0). In the frame of a wall, x runs along it from 0 to its
length, y = 0 is the inner face with the room on +y, z is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import Interval, ObjectMesh

WALL_THICKNESS = 0.2
WINDOW_VARIANTS, WINDOW_EXTRA = 4, 3
DOOR_VARIANTS, DOOR_EXTRA = 5, 3
CEILING_LAMP_VARIANTS, CEILING_LAMP_EXTRA = 3, 3
FLAT_CEILING_LAMPS = (0, 3)
GLAZED_DOORS = (2, 4, 7)


@dataclass(frozen=True)
class RoomSize:
    """Inner measures in metres; the origin is a corner of the floor."""

    width: float
    depth: float
    height: float

    def wall_length(self, wall: int) -> float:
        return self.width if wall % 2 == 0 else self.depth

    def wall_normal(self, wall: int) -> NDArray[np.float64]:
        return np.array([(0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (1.0, 0.0)][wall])

    def scan_from_wall(self, wall: int) -> NDArray[np.float64]:
        """(4 4) from the frame of a wall."""
        origin = [(0.0, 0.0), (self.width, 0.0), (self.width, self.depth), (0.0, self.depth)][wall]
        return placement(origin[0], origin[1], 0.0, wall * np.pi / 2)


def placement(x: float, y: float, z: float, yaw: float) -> NDArray[np.float64]:
    """(4 4) rotation about z followed by a shift."""
    # Quarter turns are exact, so that wall pieces have exactly axis-aligned faces.
    cos, sin = (round(float(v), 12) for v in (np.cos(yaw), np.sin(yaw)))
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1]], np.float64)


@dataclass(frozen=True)
class Opening:
    """A hole in a wall: span along it and height, metres. `is_glazed`: light comes through."""

    kind: Literal["window", "door"]
    wall: int
    span: Interval
    height: Interval
    variant: int

    @property
    def is_glazed(self) -> bool:
        return self.kind == "window" or self.variant in GLAZED_DOORS


def build_wall(
    mesh: ObjectMesh, length: float, height: float, openings: list[Opening], face: int, skirting: int
) -> None:
    """One wall as boxes round its openings, with a skirting board."""
    outer = (-WALL_THICKNESS, 0.0)
    edges = [-WALL_THICKNESS]
    for hole in sorted(openings, key=lambda o: o.span[0]):
        mesh.box((edges[-1], hole.span[0]), outer, (0, height), face)
        if hole.height[0] > 0:
            mesh.box(hole.span, outer, (0, hole.height[0]), face)
        mesh.box(hole.span, outer, (hole.height[1], height), face)
        edges.append(hole.span[1])
    mesh.box((edges[-1], length + WALL_THICKNESS), outer, (0, height), face)
    doors = sorted((o for o in openings if o.height[0] <= 0), key=lambda o: o.span[0])
    start = 0.0
    for stop, resume in [*((d.span[0] - 0.06, d.span[1] + 0.06) for d in doors), (length, length)]:
        if stop - start > 0.02:
            mesh.box((start, stop), (0.0, 0.012), (0.0, 0.08), skirting)
        start = resume


def build_slab(mesh: ObjectMesh, size: RoomSize, z: Interval, material: int) -> None:
    """Floor or ceiling; runs past the walls, so that no slit shows under a door."""
    mesh.box((-0.3, size.width + 0.3), (-0.3, size.depth + 0.3), z, material)


def build_window(mesh: ObjectMesh, style: Style, opening: Opening) -> None:
    """Frame, bars, sill and pane in the frame of the wall."""
    x, z = opening.span, opening.height
    frame = style.white if opening.variant != 1 else style.wood
    if opening.variant > 3:
        frame = style.repaint((style.black, style.white, style.wood_dark)[opening.variant - 4])
    deep = (-0.12, -0.06)
    bar = 0.05
    for side in ((x[0], x[0] + bar), (x[1] - bar, x[1])):
        mesh.box(side, deep, z, frame)
    for side in ((z[0], z[0] + bar), (z[1] - bar, z[1])):
        mesh.box(x, deep, side, frame)
    width, height = x[1] - x[0], z[1] - z[0]
    posts = {0: 1, 1: 2, 2: 3, 3: 4, 4: 1, 5: 2, 6: 2}[opening.variant] if width > 0.9 else 1
    for share in np.arange(1, posts) / posts:
        mesh.box((x[0] + share * width - 0.025, x[0] + share * width + 0.025), deep, z, frame)
    if opening.variant in (2, 3):
        share = 0.7 if opening.variant == 2 else 0.5
        mesh.box(x, deep, (z[0] + share * height - 0.02, z[0] + share * height + 0.02), frame)
    for share in {5: (0.33, 0.67), 6: (0.75,)}.get(opening.variant, ()):
        mesh.box(x, deep, (z[0] + share * height - 0.012, z[0] + share * height + 0.012), frame)
    mesh.box((x[0] - 0.05, x[1] + 0.05), (-0.06, 0.06), (z[0] - 0.03, z[0]), frame)
    mesh.pane((x[0] + bar, x[1] - bar), -0.09, (z[0] + bar, z[1] - bar), style.glass)


def build_door(mesh: ObjectMesh, style: Style, generator: Generator, opening: Opening) -> None:
    """Leaf, frame and handle in the frame of the wall; those of `GLAZED_DOORS` let light in."""
    x, top = opening.span, opening.height[1]
    trim = style.white if generator.random() < 0.6 else style.wood_upright
    leaf = style.repaint((style.white, style.wood_upright, style.lacquer)[int(generator.integers(3))])
    for side in ((x[0] - 0.06, x[0] + 0.02), (x[1] - 0.02, x[1] + 0.06)):
        mesh.box(side, (-WALL_THICKNESS, 0.018), (0, top + 0.06), trim)
    mesh.box((x[0] + 0.02, x[1] - 0.02), (-WALL_THICKNESS, 0.018), (top - 0.01, top + 0.06), trim)
    inner = (x[0] + 0.02, x[1] - 0.02)
    back, front = -0.07, -0.03
    stile = 0.11
    if opening.variant in GLAZED_DOORS:
        low = 0.25 if opening.variant != 7 else 1.05
        for side in ((inner[0], inner[0] + stile), (inner[1] - stile, inner[1])):
            mesh.box(side, (back, front), (0.005, top - 0.01), leaf)
        mesh.box(inner, (back, front), (0.005, low), leaf)
        mesh.box(inner, (back, front), (top - 0.13, top - 0.01), leaf)
        if opening.variant == 4:
            for z in np.linspace(0.25, top - 0.13, 5)[1:-1]:
                mesh.box(inner, (back, front), (z - 0.015, z + 0.015), leaf)
        mesh.pane((inner[0] + stile, inner[1] - stile), -0.05, (low, top - 0.13), style.glass)
    else:
        mesh.box(inner, (back, front), (0.005, top - 0.01), leaf)
        if opening.variant == 1:
            for z in ((0.2, 0.95), (1.1, top - 0.2)):
                middle = (inner[0] + inner[1]) / 2
                for side in ((inner[0] + stile, middle - 0.04), (middle + 0.04, inner[1] - stile)):
                    mesh.box(side, (front, front + 0.012), z, leaf)
        elif opening.variant == 3:
            for z in np.arange(0.25, top - 0.2, 0.3):
                mesh.box((inner[0] + 0.1, inner[1] - 0.1), (front, front + 0.01), (z, z + 0.2), leaf)
        elif opening.variant == 5:  # boards held by two bars
            for edge in np.linspace(inner[0], inner[1], 7)[:-1]:
                mesh.box(
                    (edge + 0.006, edge + (inner[1] - inner[0]) / 6 - 0.006), (front, front + 0.008), (0.01, top), leaf
                )
            for z in (0.25, top - 0.35):
                mesh.box((inner[0] + 0.03, inner[1] - 0.03), (front + 0.008, front + 0.022), (z, z + 0.1), leaf)
        elif opening.variant == 6:  # one tall sunken panel
            for side in ((inner[0], inner[0] + stile), (inner[1] - stile, inner[1])):
                mesh.box(side, (front, front + 0.014), (0.01, top - 0.01), leaf)
            for z in ((0.01, 0.2), (top - 0.15, top - 0.01)):
                mesh.box((inner[0] + stile, inner[1] - stile), (front, front + 0.014), z, leaf)
    handle = inner[1] - 0.07
    mesh.box((handle - 0.02, handle + 0.02), (front, front + 0.008), (0.95, 1.12), style.metal)
    mesh.tube(
        [(handle, front, 1.05), (handle, front + 0.05, 1.05), (handle - 0.11, front + 0.05, 1.05)], 0.01, style.metal
    )


def build_ceiling_lamp(mesh: ObjectMesh, style: Style, variant: int, drop: float) -> None:
    """A lamp under the ceiling; z = 0 is the ceiling, the light hangs `drop` below it."""
    shade = style.draw_lampshade(2.2)
    if variant == 0:
        mesh.lathe([(0.0, -0.1), (0.17, -0.09), (0.21, -0.03), (0.21, 0.0)], shade)
        return
    if variant == 3:  # a panel
        mesh.box((-0.3, 0.3), (-0.3, 0.3), (-0.06, 0.0), shade)
        return
    mesh.tube([(0, 0, 0), (0, 0, -drop)], 0.006, style.black)
    if variant == 1:
        mesh.lathe(
            [(0.0, -drop - 0.15), (0.11, -drop - 0.1), (0.15, -drop), (0.11, -drop + 0.1), (0.0, -drop + 0.15)], shade
        )
    elif variant == 4:  # a drum
        mesh.lathe([(0.24, -drop - 0.12), (0.24, -drop + 0.08)], shade)
        mesh.lathe([(0.235, -drop + 0.08), (0.235, -drop - 0.12)], shade)
    elif variant == 5:  # three balls on a bar
        mesh.box((-0.35, 0.35), (-0.015, 0.015), (-drop + 0.08, -drop + 0.1), style.metal)
        for x in (-0.3, 0.0, 0.3):
            ball: list[Interval] = [(0.0, -0.08), (0.06, -0.055), (0.08, 0.0), (0.06, 0.055), (0.0, 0.08)]
            mesh.lathe([(radius, z - drop) for radius, z in ball], shade, (x, 0.0), 12)
    else:
        mesh.lathe([(0.22, -drop - 0.1), (0.08, -drop + 0.08), (0.0, -drop + 0.09)], style.lacquer)
        mesh.lathe([(0.0, -drop + 0.08), (0.075, -drop + 0.07), (0.215, -drop - 0.1)], shade)
