"""Dining, coffee and side tables, and desks."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from pano3d.data.rooms.family import Family
from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import Interval, ObjectMesh


def _top_material(style: Style, generator: Generator) -> int:
    return style.repaint((style.wood, style.wood_dark, style.lacquer)[int(generator.integers(3))])


def _oval_top(mesh: ObjectMesh, width: float, depth: float, z: Interval, material: int) -> None:
    profile: list[Interval] = [(0.0, z[0]), (0.5, z[0]), (0.5, z[1]), (0.0, z[1])]
    mesh.lathe(profile, material, segments=28, stretch=(width, depth), smooth=False)


def _splayed_legs(
    mesh: ObjectMesh, width: float, depth: float, height: float, radius: float, material: int, inset: float = 0.7
) -> None:
    """Four round legs that lean outwards to the corners of (width, depth)."""
    for right in (-0.5, 0.5):
        for front in (-0.5, 0.5):
            foot = (right * width, front * depth, 0.0)
            mesh.tube([foot, (right * width * inset, front * depth * inset, height)], radius, material)


def build_dining_table(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    top, height = _top_material(style, generator), generator.uniform(0.72, 0.77)
    width, depth = generator.uniform(1.1, 1.7), generator.uniform(0.75, 0.9)
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    if variant == 1:  # round on a pedestal
        radius = generator.uniform(0.45, 0.58)
        mesh.lathe(
            [(0.0, height - 0.035), (radius, height - 0.035), (radius, height), (0.0, height)],
            top,
            segments=28,
            smooth=False,
        )
        mesh.lathe([(0.3, 0.0), (0.28, 0.03), (0.06, 0.1), (0.045, 0.4), (0.07, height - 0.04)], style.wood_dark)
        return
    if variant in (4, 7):  # an oval top on two columns, a round one on four legs
        wide = width if variant == 4 else depth * 1.2
        _oval_top(mesh, wide, depth * 1.2 if variant == 7 else depth, (height - 0.03, height), top)
        if variant == 4:
            for side in (-0.22, 0.22):
                mesh.cylinder((side * width, 0), 0.05, (0.03, height - 0.03), style.repaint(style.wood_dark), 10)
                mesh.cylinder((side * width, 0), 0.2, (0, 0.03), style.black, 16)
        else:
            half = depth * 0.4
            mesh.legs((-half, half), (-half, half), (0, height - 0.03), 0.055, style.repaint(style.wood_upright), True)
        return
    mesh.box(x, y, (height - 0.035, height), top)
    if variant == 5:
        _splayed_legs(mesh, width * 0.96, depth * 0.96, height - 0.035, 0.025, style.repaint(style.wood_dark), 0.75)
    elif variant == 6:  # one block on a square foot
        block = style.repaint(style.lacquer)
        mesh.box((-0.2, 0.2), (-0.14, 0.14), (0.05, height - 0.035), block)
        mesh.box((-0.36, 0.36), (-0.26, 0.26), (0, 0.05), block)
    elif variant == 0:
        mesh.legs((x[0] + 0.03, x[1] - 0.03), (y[0] + 0.03, y[1] - 0.03), (0, height - 0.035), 0.06, top)
        for edge in (y[0] + 0.05, y[1] - 0.07):
            mesh.box((x[0] + 0.05, x[1] - 0.05), (edge, edge + 0.02), (height - 0.12, height - 0.035), top)
    elif variant == 2:
        for edge in (x[0] + 0.08, x[1] - 0.12):
            mesh.box((edge, edge + 0.04), (y[0] + 0.04, y[1] - 0.04), (0, height - 0.035), top)
    else:  # trestles
        for edge in (x[0] + 0.2, x[1] - 0.2):
            for sign in (-1, 1):
                foot, head = sign * (depth / 2 - 0.08), -sign * (depth / 2 - 0.12)
                mesh.tube([(edge, foot, 0.0), (edge, head, height - 0.035)], 0.03, style.wood_dark)
        mesh.box((x[0] + 0.2, x[1] - 0.2), (-0.02, 0.02), (height * 0.48, height * 0.55), style.wood_dark)


def build_coffee_table(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    top, height = _top_material(style, generator), generator.uniform(0.36, 0.46)
    width, depth = generator.uniform(0.8, 1.2), generator.uniform(0.5, 0.65)
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    if variant == 0:
        mesh.box(x, y, (height - 0.04, height), top)
        mesh.box((x[0] + 0.04, x[1] - 0.04), (y[0] + 0.04, y[1] - 0.04), (0.12, 0.15), top)
        mesh.legs(x, y, (0, height - 0.04), 0.05, top)
    elif variant == 1:
        radius = depth * 0.7
        mesh.lathe(
            [(0.0, height - 0.03), (radius, height - 0.03), (radius, height), (0.0, height)],
            top,
            segments=28,
            smooth=False,
        )
        for angle in np.arange(3) * 2 * np.pi / 3:
            head = (0.4 * radius * np.cos(angle), 0.4 * radius * np.sin(angle), height - 0.03)
            mesh.tube([head, (0.8 * radius * np.cos(angle), 0.8 * radius * np.sin(angle), 0.0)], 0.02, style.black)
    elif variant == 4:  # oval
        _oval_top(mesh, width, depth, (height - 0.03, height), top)
        _splayed_legs(mesh, width * 0.75, depth * 0.75, height - 0.03, 0.018, style.repaint(style.wood_dark))
    elif variant == 5:  # a chest with two drawers
        mesh.box(x, y, (height - 0.03, height), top)
        mesh.legs(x, y, (0, 0.12), 0.05, style.black)
        mesh.box((x[0] + 0.02, x[1] - 0.02), (y[0] + 0.02, y[1] - 0.02), (0.12, height - 0.03), top)
        for left, right in ((x[0] + 0.03, -0.01), (0.01, x[1] - 0.03)):
            _drawers(mesh, (left, right), y[1] - 0.02, (0.13, height - 0.04), 1, top, style.metal)
    elif variant == 6:  # slats on two frames
        for low in np.linspace(y[0], y[1] - 0.06, 6):
            mesh.box(x, (low, low + 0.055), (height - 0.03, height), top)
        for edge in (x[0] + 0.08, x[1] - 0.1):
            for end in (y[0] + 0.02, y[1] - 0.04):
                mesh.box((edge, edge + 0.02), (end, end + 0.02), (0, height - 0.03), style.black)
            mesh.box((edge, edge + 0.02), y, (height - 0.05, height - 0.03), style.black)
            mesh.box((edge, edge + 0.02), (y[0] + 0.02, y[1] - 0.02), (0, 0.02), style.black)
    elif variant == 2:  # dark glass on a metal frame
        gloss = style.draw_screen(1.0, 1.0, is_on=False)
        mesh.box(x, y, (height - 0.015, height), gloss)
        mesh.legs(x, y, (0, height - 0.015), 0.035, style.metal)
    else:  # a solid block on a plinth
        mesh.box(x, y, (0.08, height), top)
        mesh.box((x[0] + 0.08, x[1] - 0.08), (y[0] + 0.08, y[1] - 0.08), (0, 0.08), style.black)


def build_side_table(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    top, height = _top_material(style, generator), generator.uniform(0.48, 0.6)
    half = generator.uniform(0.2, 0.26)
    if variant > 2:  # a tray on three legs, a drum, a board on a bow at one side
        if variant == 3:
            mesh.cylinder((0, 0), half * 1.1, (height - 0.02, height), top, 20)
            for angle in np.arange(3) * 2 * np.pi / 3 + 0.5:
                foot = (half * float(np.cos(angle)), half * float(np.sin(angle)))
                mesh.tube([(*foot, 0.0), (foot[0] * 0.5, foot[1] * 0.5, height - 0.02)], 0.015, style.black)
        elif variant == 4:
            mesh.cylinder((0, 0), half, (0, height), top, 20, top=half * generator.uniform(0.7, 1.0))
        else:
            mesh.box((-half, half), (-half * 0.7, half * 0.7), (height - 0.02, height), top)
            mesh.box((-half, half), (-half * 0.7, half * 0.7), (0, 0.02), top)
            mesh.box((-half, -half + 0.02), (-half * 0.7, half * 0.7), (0.02, height - 0.02), top)
        return
    if variant == 1:
        mesh.cylinder((0, 0), half, (height - 0.025, height), top, 20)
        mesh.cylinder((0, 0), 0.025, (0.02, height - 0.025), style.metal, 8)
        mesh.cylinder((0, 0), half * 0.7, (0, 0.02), style.metal, 18)
        return
    mesh.box((-half, half), (-half, half), (height - 0.03, height), top)
    mesh.legs((-half, half), (-half, half), (0, height - 0.03), 0.035, style.black if variant == 2 else top)
    if variant == 0:
        mesh.box((-half + 0.02, half - 0.02), (-half + 0.02, half - 0.02), (0.15, 0.17), top)


def _drawers(
    mesh: ObjectMesh, x: tuple[float, float], y: float, z: tuple[float, float], count: int, front: int, knob: int
) -> None:
    step = (z[1] - z[0]) / count
    for row in range(count):
        low = z[0] + row * step
        mesh.box((x[0] + 0.008, x[1] - 0.008), (y, y + 0.018), (low + 0.006, low + step - 0.006), front)
        middle = (x[0] + x[1]) / 2
        mesh.box(
            (middle - 0.06, middle + 0.06), (y + 0.018, y + 0.035), (low + step * 0.6, low + step * 0.6 + 0.012), knob
        )


def build_desk(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    top, height = _top_material(style, generator), generator.uniform(0.72, 0.76)
    width, depth = generator.uniform(1.1, 1.6), generator.uniform(0.6, 0.75)
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    mesh.box(x, y, (height - 0.03, height), top)
    under = height - 0.03
    if variant == 4:  # two drawers under the top, leaning legs
        _splayed_legs(mesh, width * 0.96, depth * 0.94, under, 0.022, style.repaint(style.wood_upright), 0.85)
        mesh.box((x[0] + 0.12, x[1] - 0.12), (y[0] + 0.08, y[1] - 0.06), (under - 0.12, under), top)
        for part in ((x[0] + 0.14, -0.01), (0.01, x[1] - 0.14)):
            _drawers(mesh, part, y[1] - 0.06, (under - 0.11, under), 1, top, style.metal)
    elif variant == 5:  # open shelves at one side, a panel at the other
        body = style.repaint(style.lacquer)
        mesh.box((x[1] - 0.03, x[1]), y, (0, under), body)
        for edge in (x[0], x[0] + 0.37):
            mesh.box((edge, edge + 0.03), y, (0, under), body)
        for z in np.linspace(0.04, under - 0.02, 4)[:-1]:
            mesh.box((x[0] + 0.03, x[0] + 0.37), y, (z, z + 0.02), body)
        mesh.box((x[0], x[0] + 0.4), (y[0], y[0] + 0.02), (0, under), body)
    elif variant == 6:  # round legs and a board that reaches far down at the back
        mesh.legs(x, y, (0, under), 0.05, style.repaint(style.metal), is_round=True)
        mesh.box((x[0] + 0.06, x[1] - 0.06), (y[0] + 0.03, y[0] + 0.05), (0.12, under), top)
    elif variant == 0:
        mesh.legs(x, y, (0, under), 0.045, style.metal)
        box = (x[1] - 0.46, x[1] - 0.06)
        mesh.box(box, (y[0] + 0.04, y[1] - 0.06), (0.08, under), style.lacquer)
        _drawers(mesh, box, y[1] - 0.06, (0.1, under), 3, style.lacquer, style.metal)
    elif variant == 1:
        for box in ((x[0] + 0.02, x[0] + 0.42), (x[1] - 0.42, x[1] - 0.02)):
            mesh.box(box, (y[0] + 0.02, y[1] - 0.04), (0.05, under), top)
            _drawers(mesh, box, y[1] - 0.04, (0.06, under), 3, top, style.black)
        mesh.box((x[0] + 0.42, x[1] - 0.42), (y[0] + 0.02, y[0] + 0.04), (0.3, under), top)
    elif variant == 2:
        for edge in (x[0], x[1] - 0.03):
            mesh.box((edge, edge + 0.03), y, (0, under), top)
        mesh.box((x[0] + 0.03, x[1] - 0.03), (y[0] + 0.05, y[0] + 0.07), (0.25, under), top)
    else:  # height-adjustable, on two T feet
        for edge in (x[0] + 0.2, x[1] - 0.2):
            mesh.box((edge - 0.035, edge + 0.035), (-0.04, 0.04), (0.04, under), style.metal)
            mesh.box((edge - 0.04, edge + 0.04), (y[0] + 0.02, y[1] - 0.02), (0, 0.04), style.metal)
        mesh.box((x[0] + 0.2, x[1] - 0.2), (-0.03, 0.03), (under - 0.05, under), style.black)


DINING_TABLE = Family("dining table", "table", build_dining_table, 4, extra=4)
COFFEE_TABLE = Family("coffee table", "table", build_coffee_table, 4, extra=3)
SIDE_TABLE = Family("side table", "table", build_side_table, 3, extra=3)
DESK = Family("desk", "desk", build_desk, 4, extra=3)
