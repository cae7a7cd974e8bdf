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
    body, front = choices[int(generator.integers(3))]
    own = style.repaint(body)
    return own, (own if front == body else style.repaint(front))


def framed_fronts(mesh: ObjectMesh, x: Interval, y: float, z: Interval, columns: int, front: int, knob: int) -> None:
    """Doors of a frame about a sunken panel, with knobs, standing off the body at depth y."""
    width, bar = (x[1] - x[0]) / columns, 0.06
    for column in range(columns):
        left, right = x[0] + column * width + 0.006, x[0] + (column + 1) * width - 0.006
        mesh.box((left, right), (y, y + 0.01), z, front)
        for side in ((left, left + bar), (right - bar, right)):
            mesh.box(side, (y + 0.01, y + 0.024), z, front)
        for side in ((z[0], z[0] + bar), (z[1] - bar, z[1])):
            mesh.box((left + bar, right - bar), (y + 0.01, y + 0.024), side, front)
        edge = right - 0.045 if column % 2 == 0 else left + 0.015
        middle = (z[0] + z[1]) / 2
        mesh.cushion((edge, edge + 0.03), (y + 0.024, y + 0.05), (middle, middle + 0.03), knob, 0.012, 3)


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
    body = style.repaint((style.wood_upright, style.lacquer, style.wood_dark)[int(generator.integers(3))])
    width, depth, height = generator.uniform(0.7, 1.2), generator.uniform(0.26, 0.34), generator.uniform(1.4, 2.1)
    if variant > 3:
        _shelf_of_cells(mesh, style, generator, variant, body)
        return
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


def _shelf_of_cells(mesh: ObjectMesh, style: Style, generator: Generator, variant: int, body: int) -> None:
    """4 a grid of squares, some of them closed; 5 leaning boards that grow shallower upwards; 6 tall and narrow with
    doors below."""
    if variant == 4:
        side, columns, rows = generator.uniform(0.33, 0.4), int(generator.integers(2, 5)), int(generator.integers(2, 6))
        width, height, depth = columns * side, rows * side, 0.36
    else:
        side, columns = 0.34, 1
        width = generator.uniform(0.6, 0.95) if variant == 5 else generator.uniform(0.4, 0.6)
        height, depth = generator.uniform(1.6, 2.0), 0.38
        rows = 5
    x, y, thick = (-width / 2, width / 2), (-depth / 2, depth / 2), 0.025
    edges, levels = np.linspace(x[0], x[1] - thick, columns + 1), np.linspace(0.0, height - thick, rows + 1)
    if variant == 5:
        for edge in edges:
            middle = float(edge) + thick / 2
            mesh.tube([(middle, y[1], 0.0), (middle, y[0] + 0.08, height)], 0.018, body)
    else:
        mesh.box(x, (y[0], y[0] + 0.012), (0, height), body)
        for edge in edges:
            mesh.box((edge, edge + thick), y, (0, height), body)
    for row, level in enumerate(levels):
        # The boards of a leaning shelf end where its stiles stand.
        front = y[1] if variant != 5 else y[1] - (depth - 0.08) * float(level) / height
        if variant != 5 or row < rows:
            mesh.box(x, (y[0], front), (level, level + thick), body)
        if row == rows:
            break
        room = float(levels[row + 1] - level) - thick
        for left in edges[:-1]:
            inner = (float(left) + 0.03, float(left) + (x[1] - thick - x[0]) / columns - 0.005)
            z = (float(level) + thick, float(level) + thick + room)
            draw = generator.random()
            if (variant == 6 and row < 2) or (variant == 4 and draw < 0.2):
                fronts(mesh, inner, y[1] - 0.02, z, 1, 1, body, style.metal, is_drawer=False)
            elif draw < 0.85:
                books(mesh, style, generator, inner, (y[0], front), z[0], room)


def build_cabinet(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    body, front = _carcass(style, generator)
    width, depth = generator.uniform(0.7, 1.3), generator.uniform(0.36, 0.46)
    height = generator.uniform(0.75, 1.25)
    if variant == 2:
        _vitrine(mesh, style, generator, body)
        return
    if variant > 3:
        _other_cabinet(mesh, style, generator, variant, (body, front))
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


def _other_cabinet(
    mesh: ObjectMesh, style: Style, generator: Generator, variant: int, materials: tuple[int, int]
) -> None:
    """4 a long sideboard with smooth doors, 5 a filing cabinet of metal, 6 framed doors, 7 an open shelf above doors,
    8 rounded on four round legs."""
    body, front = materials
    width, depth = generator.uniform(0.7, 1.3), generator.uniform(0.36, 0.46)
    height = generator.uniform(0.75, 1.25)
    if variant == 4:
        width, height = generator.uniform(1.3, 1.9), generator.uniform(0.6, 0.85)
    elif variant == 5:
        width, depth, height = 0.46, 0.56, float(generator.choice([0.7, 1.0, 1.32]))
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2 - 0.02)
    if variant == 5:
        steel = style.repaint(style.metal)
        mesh.box(x, y, (0, height), steel)
        fronts(mesh, x, y[1], (0.03, height), 1, round(height / 0.33), steel, style.black, is_drawer=True)
    elif variant == 8:
        mesh.legs(x, y, (0, 0.2), 0.035, style.black, is_round=True)
        mesh.cushion(x, y, (0.18, height), body, 0.08, 7)
        for left, right in ((x[0] + 0.08, -0.005), (0.005, x[1] - 0.08)):
            mesh.box((left, right), (y[1], y[1] + 0.012), (0.26, height - 0.08), front)
    elif variant == 7:
        shelf = height * 0.62
        mesh.box(x, y, (0, shelf), body)
        fronts(mesh, x, y[1], (0.04, shelf - 0.02), 2, 1, front, style.black, is_drawer=False)
        for edge in (x[0], x[1] - 0.03):
            mesh.box((edge, edge + 0.03), y, (shelf, height + 0.2), body)
        mesh.box(x, (y[0], y[0] + 0.012), (shelf, height + 0.2), body)
        mesh.box(x, y, (height + 0.17, height + 0.2), body)
        books(mesh, style, generator, (x[0] + 0.04, x[1] - 0.04), y, shelf, height + 0.17 - shelf)
    elif variant == 6:
        mesh.box((x[0] + 0.03, x[1] - 0.03), (y[0], y[1] - 0.03), (0, 0.06), style.black)
        mesh.box(x, y, (0.06, height), body)
        mesh.box((x[0] - 0.02, x[1] + 0.02), (y[0], y[1] + 0.04), (height, height + 0.03), body)
        framed_fronts(mesh, x, y[1], (0.07, height - 0.01), int(generator.integers(2, 4)), front, style.metal)
    else:
        mesh.legs((x[0] + 0.1, x[1] - 0.1), y, (0, 0.12), 0.04, style.repaint(style.wood_dark), is_round=True)
        mesh.box(x, y, (0.12, height), body)
        for left, right in pairwise(np.linspace(x[0], x[1], int(generator.integers(3, 5)))):
            mesh.box((left + 0.008, right - 0.008), (y[1], y[1] + 0.016), (0.14, height - 0.02), front)


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
    if variant == 3:  # sliding doors, one of them a mirror
        middle = (x[0] + x[1]) / 2
        mesh.box((x[0], middle + 0.02), (y[1], y[1] + 0.02), (0.06, height - 0.02), front)
        mesh.box((middle, x[1]), (y[1] + 0.02, y[1] + 0.03), (0.06, height - 0.02), style.metal)
        mesh.pane((middle + 0.03, x[1] - 0.03), y[1] + 0.031, (0.1, height - 0.06), style.mirror)
    elif variant == 4:
        framed_fronts(mesh, x, y[1], (0.06, height - 0.01), doors, front, style.metal)
    elif variant == 5:  # smooth sliding doors on a frame
        for door, (left, right) in enumerate(pairwise(np.linspace(x[0], x[1], doors + 1))):
            off = y[1] + 0.018 * (door % 2)
            mesh.box((left, right), (off, off + 0.018), (0.06, height - 0.02), front if door % 2 else body)
        mesh.box((x[0] - 0.02, x[1] + 0.02), (y[0], y[1] + 0.05), (height - 0.02, height + 0.02), body)
    elif variant == 0:
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
    if variant == 4:  # tall and narrow
        width, height = generator.uniform(0.45, 0.65), generator.uniform(1.05, 1.3)
    x, y = (-width / 2, width / 2), (-0.22, 0.2)
    lift = (0.04, 0.12, 0.2, 0.16, 0.03, 0.08)[variant]
    mesh.legs(x, y, (0, lift), 0.05, style.repaint(style.wood_dark), is_round=variant == 3)
    if variant > 2:
        columns, rows = ((3, 2), (1, 5), (2, 3))[variant - 3]
        mesh.box(x, y, (lift, height), body)
        fronts(mesh, x, y[1], (lift, height), columns, rows, front, style.black, is_drawer=True)
        return
    mesh.box(x, y, (lift, height), body)
    mesh.box((x[0] - 0.015, x[1] + 0.015), (y[0], y[1] + 0.03), (height, height + 0.025), body)
    fronts(
        mesh, x, y[1], (lift, height), 2 if variant else 1, 4 if variant < 2 else 3, front, style.metal, is_drawer=True
    )


def build_night_stand(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    body, front = _carcass(style, generator)
    half, height = generator.uniform(0.2, 0.27), generator.uniform(0.45, 0.58)
    if variant == 3:  # a drum
        mesh.cylinder((0, 0), half * 0.9, (0.05, height), body, 20)
        mesh.cylinder((0, 0), half * 0.7, (0, 0.05), style.black, 16)
        return
    if variant == 4:  # an open cube
        for z in (0.0, height * 0.45, height - 0.025):
            mesh.box((-half, half), (-0.18, 0.18), (z, z + 0.025), body)
        for edge in (-half, half - 0.025):
            mesh.box((edge, edge + 0.025), (-0.18, 0.18), (0.025, height - 0.025), body)
        return
    lift = (0.03, 0.15, 0.28)[variant]
    mesh.legs((-half, half), (-0.2, 0.18), (0, lift), 0.035, body)
    mesh.box((-half, half), (-0.2, 0.18), (lift, height), body)
    fronts(mesh, (-half, half), 0.18, (lift, height), 1, 2 if variant < 2 else 1, front, style.metal, is_drawer=True)


def build_tv_stand(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    body, front = _carcass(style, generator)
    width, height = generator.uniform(1.2, 1.8), generator.uniform(0.4, 0.52)
    x, y = (-width / 2, width / 2), (-0.21, 0.19)
    lift = 0.12 if variant else 0.04
    if variant == 3:  # smooth doors at the sides of drawers, on a plinth
        mesh.box((x[0] + 0.04, x[1] - 0.04), (y[0], y[1] - 0.04), (0, 0.06), style.black)
        mesh.box(x, y, (0.06, height), body)
        third = width / 6
        fronts(mesh, (-third, third), y[1], (0.07, height - 0.01), 1, 2, front, style.black, is_drawer=True)
        for part in ((x[0], -third), (third, x[1])):
            mesh.box((part[0] + 0.01, part[1] - 0.01), (y[1], y[1] + 0.016), (0.07, height - 0.01), front)
        return
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


BOOKSHELF = Family("bookshelf", "bookshelf", build_bookshelf, 4, extra=3)
CABINET = Family("cabinet", "cabinet", build_cabinet, 4, extra=5)
WARDROBE = Family("wardrobe", "otherfurniture", build_wardrobe, 3, extra=3)
DRESSER = Family("dresser", "dresser", build_dresser, 3, extra=3)
NIGHT_STAND = Family("night stand", "night stand", build_night_stand, 3, extra=2)
TV_STAND = Family("television stand", "otherfurniture", build_tv_stand, 3, extra=1)
