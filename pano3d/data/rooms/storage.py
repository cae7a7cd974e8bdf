"""Cabinets, wardrobes, dressers, night stands, television stands and bookshelves with their books."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.random import Generator

from pano3d.data.rooms.family import Family
from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import Interval, ObjectMesh


def _carcass(style: Style, generator: Generator) -> tuple[int, int]:
    """Body and front materials."""
    choices = (
        (style.wood_upright, style.wood_upright),
        (style.lacquer, style.lacquer),
        (style.wood_dark, style.lacquer),
    )
    return choices[int(generator.integers(3))]


def fronts(
    mesh: ObjectMesh,
    x: Interval,
    y: float,
    z: Interval,
    columns: int,
    rows: int,
    front: int,
    handle: int,
    is_drawer: bool,
) -> None:
    """A grid of doors or drawers with visible gaps and handles, standing off the body at depth y."""
    width, height = (x[1] - x[0]) / columns, (z[1] - z[0]) / rows
    for column in range(columns):
        for row in range(rows):
            left, low = x[0] + column * width, z[0] + row * height
            mesh.box((left + 0.006, left + width - 0.006), (y, y + 0.018), (low + 0.006, low + height - 0.006), front)
            if is_drawer:
                bar = (
                    (left + width / 2 - 0.07, left + width / 2 + 0.07),
                    (low + height * 0.62, low + height * 0.62 + 0.014),
                )
            else:
                edge = left + width - 0.05 if column % 2 == 0 else left + 0.035
                bar = ((edge, edge + 0.014), (low + height / 2 - 0.07, low + height / 2 + 0.07))
            mesh.box(bar[0], (y + 0.018, y + 0.042), bar[1], handle)


def books(
    mesh: ObjectMesh, style: Style, generator: Generator, x: Interval, y: Interval, z: float, room: float
) -> None:
    """A row of upright books of varied size on a board, not always full."""
    colors = [style.draw_plain_color() for _ in range(5)]
    end = x[1] - generator.uniform(0.0, 0.45) * (x[1] - x[0])
    left = x[0]
    while left < end - 0.05:
        thick = generator.uniform(0.02, 0.055)
        tall = room * generator.uniform(0.55, 0.92)
        front = y[1] - generator.uniform(0.005, 0.04)
        if generator.random() > 0.06:
            mesh.box(
                (left, left + thick), (y[0] + 0.02, front), (z, z + tall), colors[int(generator.integers(5))], cell=0.6
            )
        left += thick + 0.002


def build_bookshelf(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    body = (style.wood_upright, style.lacquer, style.wood_dark)[int(generator.integers(3))]
    width, depth, height = generator.uniform(0.7, 1.2), generator.uniform(0.26, 0.34), generator.uniform(1.4, 2.1)
    if variant == 3:
        width, height = width * 1.3, generator.uniform(0.85, 1.1)
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    side = 0.025
    if variant != 1:
        mesh.box(x, (y[0], y[0] + 0.012), (0, height), body)
        mesh.box((x[0], x[0] + side), y, (0, height), body)
        mesh.box((x[1] - side, x[1]), y, (0, height), body)
        mesh.box(x, y, (height - side, height), body)
    else:
        mesh.legs(x, y, (0, height), 0.03, style.black)
    shelves = np.linspace(0.06, height, max(3, int(height / 0.34)) + 1)
    halves = [x] if variant in (0, 1) else [(x[0], 0.0), (0.0, x[1])]
    if variant >= 2:
        mesh.box((-side / 2, side / 2), y, (0.06, height - side), body)
    for low, high in pairwise(shelves):
        mesh.box(x, y, (low - side, low), body)
        for half in halves:
            inner = (half[0] + 0.03, half[1] - 0.03)
            if generator.random() < 0.85:
                books(mesh, style, generator, inner, y, float(low), float(high - low - side))
            else:
                middle = (inner[0] + inner[1]) / 2
                mesh.lathe(
                    [(0.0, low), (0.06, low), (0.08, low + 0.1), (0.03, low + 0.2)],
                    style.draw_plain_color(),
                    (middle, 0),
                )
    if variant == 1:
        mesh.box(x, y, (height - side, height), body)


def build_cabinet(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    body, front = _carcass(style, generator)
    width, depth = generator.uniform(0.7, 1.3), generator.uniform(0.36, 0.46)
    height = generator.uniform(0.75, 1.25)
    if variant == 2:
        _vitrine(mesh, style, generator, body)
        return
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2 - 0.02)
    if variant == 3:  # tall legs, drawers above doors
        mesh.legs(x, y, (0, 0.22), 0.04, style.metal)
        mesh.box(x, y, (0.22, height), body)
        fronts(mesh, x, y[1], (height - 0.2, height), 2, 1, front, style.black, is_drawer=True)
        fronts(mesh, x, y[1], (0.22, height - 0.2), 2, 1, front, style.black, is_drawer=False)
        return
    mesh.box((x[0] + 0.02, x[1] - 0.02), (y[0], y[1] - 0.03), (0, 0.07), style.black)
    mesh.box(x, y, (0.07, height), body)
    rows = 1 if variant == 0 else int(generator.integers(2, 4))
    fronts(mesh, x, y[1], (0.07, height), 2, rows, front, style.metal, is_drawer=variant == 1)


def _vitrine(mesh: ObjectMesh, style: Style, generator: Generator, body: int) -> None:
    """A glass-fronted cabinet with crockery behind the panes."""
    width, depth, height = generator.uniform(0.8, 1.1), 0.4, generator.uniform(1.5, 1.9)
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    low = 0.55
    mesh.box(x, (y[0], y[1] - 0.02), (0, low), body)
    fronts(mesh, x, y[1] - 0.02, (0.04, low), 2, 1, body, style.metal, is_drawer=False)
    mesh.box(x, (y[0], y[0] + 0.015), (low, height), body)
    for edge in (x[0], x[1] - 0.025):
        mesh.box((edge, edge + 0.025), y, (low, height), body)
    mesh.box(x, y, (height - 0.03, height), body)
    for board in np.linspace(low, height, 4)[:-1]:
        mesh.box(x, (y[0], y[1] - 0.03), (board, board + 0.02), body)
        for place in np.linspace(x[0] + 0.14, x[1] - 0.14, 4):
            color = style.ceramic if generator.random() < 0.6 else style.draw_plain_color()
            tall = generator.uniform(0.08, 0.22)
            z = board + 0.02
            mesh.lathe(
                [(0.0, z), (0.05, z), (0.07, z + tall * 0.6), (0.05, z + tall), (0.0, z + tall)],
                color,
                (place, -0.02),
                10,
            )
    for left, right in ((x[0] + 0.025, 0.0), (0.0, x[1] - 0.025)):
        for bar in (left, right - 0.03):
            mesh.box((bar, bar + 0.03), (y[1] - 0.02, y[1]), (low, height - 0.03), body)
        mesh.box((left, right), (y[1] - 0.02, y[1]), (height - 0.07, height - 0.03), body)
        mesh.pane((left + 0.03, right - 0.03), y[1] - 0.008, (low, height - 0.07), style.glass)


def build_wardrobe(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    body, front = _carcass(style, generator)
    doors = int(generator.integers(2, 4))
    width, depth, height = (
        doors * generator.uniform(0.45, 0.55),
        generator.uniform(0.55, 0.62),
        generator.uniform(1.9, 2.2),
    )
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2 - 0.02)
    mesh.box(x, y, (0.05, height), body)
    mesh.box((x[0] + 0.02, x[1] - 0.02), (y[0], y[1] - 0.03), (0, 0.05), style.black)
    if variant == 0:
        fronts(mesh, x, y[1], (0.05, height), doors, 1, front, style.metal, is_drawer=False)
    elif variant == 1:
        fronts(mesh, x, y[1], (0.4, height), doors, 1, front, style.black, is_drawer=False)
        fronts(mesh, x, y[1], (0.05, 0.4), doors, 1, front, style.black, is_drawer=True)
    else:  # louvred doors under a cornice
        fronts(mesh, x, y[1], (0.05, height), doors, 1, front, style.metal, is_drawer=False)
        for z in np.arange(0.2, height - 0.15, 0.11):
            mesh.box((x[0] + 0.06, x[1] - 0.06), (y[1] + 0.018, y[1] + 0.03), (z, z + 0.05), body)
        mesh.box((x[0] - 0.04, x[1] + 0.04), (y[0], y[1] + 0.04), (height, height + 0.06), body)


def build_dresser(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    body, front = _carcass(style, generator)
    width, height = generator.uniform(0.8, 1.3), generator.uniform(0.75, 0.95)
    x, y = (-width / 2, width / 2), (-0.22, 0.2)
    lift = (0.04, 0.12, 0.2)[variant]
    mesh.legs(x, y, (0, lift), 0.05, style.wood_dark)
    mesh.box(x, y, (lift, height), body)
    mesh.box((x[0] - 0.015, x[1] + 0.015), (y[0], y[1] + 0.03), (height, height + 0.025), body)
    fronts(
        mesh, x, y[1], (lift, height), 2 if variant else 1, 4 if variant < 2 else 3, front, style.metal, is_drawer=True
    )


def build_night_stand(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    body, front = _carcass(style, generator)
    half, height = generator.uniform(0.2, 0.27), generator.uniform(0.45, 0.58)
    lift = (0.03, 0.15, 0.28)[variant]
    mesh.legs((-half, half), (-0.2, 0.18), (0, lift), 0.035, body)
    mesh.box((-half, half), (-0.2, 0.18), (lift, height), body)
    fronts(mesh, (-half, half), 0.18, (lift, height), 1, 2 if variant < 2 else 1, front, style.metal, is_drawer=True)


def build_tv_stand(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    body, front = _carcass(style, generator)
    width, height = generator.uniform(1.2, 1.8), generator.uniform(0.4, 0.52)
    x, y = (-width / 2, width / 2), (-0.21, 0.19)
    lift = 0.12 if variant else 0.04
    mesh.legs(x, y, (0, lift), 0.04, style.metal)
    if variant == 2:  # an open rack
        mesh.box(x, y, (lift, lift + 0.03), body)
        for edge in (x[0], -0.015, x[1] - 0.03):
            mesh.box((edge, edge + 0.03), y, (lift, height), body)
        mesh.box((x[0] + 0.2, -0.2), (-0.1, 0.12), (lift + 0.03, lift + 0.12), style.black)
    else:
        mesh.box(x, y, (lift, height), body)
        fronts(mesh, x, y[1], (lift, height), 3 + variant, 1, front, style.metal, is_drawer=variant == 0)
    mesh.box((x[0] - 0.01, x[1] + 0.01), (y[0], y[1] + 0.02), (height, height + 0.025), body)


BOOKSHELF = Family("bookshelf", "bookshelf", build_bookshelf, 4)
CABINET = Family("cabinet", "cabinet", build_cabinet, 4)
WARDROBE = Family("wardrobe", "otherfurniture", build_wardrobe, 3)
DRESSER = Family("dresser", "dresser", build_dresser, 3)
NIGHT_STAND = Family("night stand", "night stand", build_night_stand, 3)
TV_STAND = Family("television stand", "otherfurniture", build_tv_stand, 3)
