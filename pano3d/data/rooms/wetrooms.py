"""Kitchen runs with sinks, refrigerators, toilets, basins, bathtubs and shower curtains."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from pano3d.data.rooms.family import Family
from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import Interval, ObjectMesh
from pano3d.data.rooms.storage import framed_fronts, fronts


def _basin(mesh: ObjectMesh, x: Interval, y: Interval, top: float, depth: float, material: int) -> None:
    """An open trough below `top`: inner walls and bottom, seen from above."""
    wall = 0.012
    mesh.box(x, y, (top - depth - wall, top - depth), material)
    mesh.box((x[0], x[0] + wall), y, (top - depth, top), material)
    mesh.box((x[1] - wall, x[1]), y, (top - depth, top), material)
    mesh.box(x, (y[0], y[0] + wall), (top - depth, top), material)
    mesh.box(x, (y[1] - wall, y[1]), (top - depth, top), material)


def _tap(mesh: ObjectMesh, x: float, y: float, z: float, material: int, reach: float = 0.14) -> None:
    arc = [
        (x, y, z),
        (x, y, z + 0.18),
        (x, y + 0.03, z + 0.23),
        (x, y + reach - 0.03, z + 0.23),
        (x, y + reach, z + 0.17),
    ]
    mesh.tube(arc, 0.013, material)


def _top_with_hole(
    mesh: ObjectMesh, x: Interval, y: Interval, z: Interval, hole: tuple[Interval, Interval], top: int
) -> None:
    """A worktop as four boxes round the hole."""
    hx, hy = hole
    mesh.box((x[0], hx[0]), y, z, top)
    mesh.box((hx[1], x[1]), y, z, top)
    mesh.box(hx, (y[0], hy[0]), z, top)
    mesh.box(hx, (hy[1], y[1]), z, top)


def build_kitchen_run(
    style: Style, generator: Generator, width: float, variant: int, cell: float
) -> list[tuple[str, ObjectMesh]]:
    """Worktop, base cabinets, sink and wall cabinets along one wall, as (NYU40 class, mesh) in one shared frame."""
    counter, sink = ObjectMesh(cell), ObjectMesh(cell)
    depth, height = 0.6, 0.9
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    body = style.repaint(style.lacquer if variant != 1 else style.wood_upright)
    top = style.draw_stone() if variant not in (2, 5) else style.repaint(style.wood)
    place = generator.uniform(x[0] + 0.5, x[1] - 0.5)
    hole = ((place - 0.24, place + 0.24), (-0.17, 0.19))
    _top_with_hole(counter, x, y, (height - 0.04, height), hole, top)
    counter.box(x, (y[0], y[0] + 0.015), (height, height + (0.1, 0.5, 0.06, 0.3, 0.04, 0.52, 0.2)[variant]), top)
    metal = style.ceramic if variant in (3, 5) else style.metal
    _basin(sink, hole[0], hole[1], height, 0.17, metal)
    _tap(sink, place, hole[1][0] - 0.04, height, style.metal)
    pieces = [("counter", counter), ("sink", sink)]
    blocks = max(2, round(width / 1.0))
    for block in range(blocks):
        cabinet = ObjectMesh(cell)
        part = (x[0] + block * width / blocks, x[0] + (block + 1) * width / blocks)
        below = height - 0.04 if not (part[0] < hole[0][1] and part[1] > hole[0][0]) else height - 0.24
        cabinet.box(part, (y[0], y[1] - 0.08), (0, 0.1), style.black)
        cabinet.box(part, (y[0], y[1] - 0.04), (0.1, below), body)
        drawers = bool(generator.random() < 0.4)
        if variant == 5 and not drawers:
            framed_fronts(cabinet, part, y[1] - 0.04, (0.11, height - 0.06), 2, body, style.metal)
            pieces.append(("cabinet", cabinet))
            continue
        fronts(
            cabinet,
            part,
            y[1] - 0.04,
            (0.1, height - 0.05),
            1 if drawers else 2,
            3 if drawers else 1,
            body,
            style.metal,
            drawers,
        )
        pieces.append(("cabinet", cabinet))
    if variant == 4:  # two wall cabinets with a hood between them
        for span in ((x[0], x[0] + width * 0.33), (x[1] - width * 0.33, x[1])):
            wall = ObjectMesh(cell)
            wall.box(span, (y[0], y[0] + 0.35), (1.45, 2.2), body)
            framed_fronts(wall, span, y[0] + 0.35, (1.46, 2.19), 2, body, style.metal)
            pieces.append(("cabinet", wall))
        hood = ObjectMesh(cell)
        hood.box((-0.25, 0.25), (y[0], y[0] + 0.4), (1.6, 1.66), style.metal)
        hood.box((-0.13, 0.13), (y[0], y[0] + 0.24), (1.66, 2.3), style.metal)
        pieces.append(("otherfurniture", hood))
    elif variant == 5:  # high and narrow, along the whole run
        wall = ObjectMesh(cell)
        wall.box(x, (y[0], y[0] + 0.3), (1.6, 2.0), body)
        fronts(wall, x, y[0] + 0.3, (1.6, 2.0), max(2, round(width / 0.6)), 1, body, style.black, True)
        pieces.append(("cabinet", wall))
    elif variant == 6:  # nothing above, a tall larder beside
        larder = ObjectMesh(cell)
        larder.box((x[1], x[1] + 0.55), (y[0], y[1] - 0.04), (0, 2.1), body)
        fronts(larder, (x[1], x[1] + 0.55), y[1] - 0.04, (0.06, 2.08), 1, 2, body, style.metal, False)
        pieces.append(("cabinet", larder))
    elif variant != 1:
        wall = ObjectMesh(cell)
        span = (x[0], x[0] + width * generator.uniform(0.5, 0.7))
        wall.box(span, (y[0], y[0] + 0.33), (1.42, 2.1), body)
        fronts(
            wall, span, y[0] + 0.33, (1.42, 2.1), max(2, round((span[1] - span[0]) / 0.45)), 1, body, style.metal, False
        )
        pieces.append(("cabinet", wall))
    else:
        shelf = ObjectMesh(cell)
        for z in (1.45, 1.75):
            shelf.box((x[0] + 0.1, x[1] - 0.1), (y[0], y[0] + 0.22), (z, z + 0.03), style.wood)
            for spot in np.arange(x[0] + 0.25, x[1] - 0.2, 0.22):
                tall = generator.uniform(0.08, 0.18)
                color = style.ceramic if generator.random() < 0.5 else style.draw_plain_color()
                shelf.cylinder((spot, y[0] + 0.11), 0.045, (z + 0.03, z + 0.03 + tall), color, 10)
        pieces.append(("shelves", shelf))
    return pieces


def build_stove(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    front = style.draw_screen(1.0, 1.0, is_on=False)
    body = style.white if variant == 1 else style.repaint(style.metal)
    mesh.box((-0.3, 0.3), (-0.3, 0.27), (0.05, 0.88), body)
    mesh.box((-0.25, 0.25), (0.27, 0.29), (0.2, 0.62), front)
    mesh.box((-0.25, 0.25), (0.29, 0.32), (0.66, 0.68), style.metal)
    mesh.box((-0.3, 0.3), (-0.3, 0.3), (0.88, 0.9), front)
    for x in np.linspace(-0.22, 0.22, 4):
        mesh.box((x - 0.02, x + 0.02), (0.27, 0.3), (0.76, 0.8), style.black)


def build_refrigerator(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    color = (style.ceramic, style.metal, style.black)[int(generator.integers(3))]
    width, depth, height = generator.uniform(0.6, 0.72), 0.66, generator.uniform(1.6, 1.9)
    color = style.repaint(color) if variant > 3 else color
    if variant in (2, 6):
        width = 0.9
    elif variant == 5:
        height, width = generator.uniform(0.8, 1.2), 0.55
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    if variant == 3:  # rounded, in the palette's colour
        height = 1.45
        mesh.cushion(x, y, (0.05, height), style.lacquer, 0.12, 9)
        mesh.legs((x[0] + 0.06, x[1] - 0.06), (y[0] + 0.06, y[1] - 0.06), (0, 0.1), 0.05, style.metal)
        mesh.box((x[0] + 0.02, x[1] - 0.02), (y[1], y[1] + 0.006), (height * 0.66, height * 0.67), style.black)
        for z in (height * 0.5, height * 0.72):
            mesh.box((x[1] - 0.12, x[1] - 0.09), (y[1], y[1] + 0.04), (z, z + 0.14), style.metal)
        return
    mesh.box(x, (y[0], y[1] - 0.05), (0.03, height), color)
    split = height * (0.68 if variant == 1 else 0.4)
    doors = [(x, (0.05, height - 0.01))]
    if variant in (0, 1):
        doors = [(x, (0.05, split - 0.005)), (x, (split + 0.005, height - 0.01))]
    elif variant == 2:
        doors = [((x[0], -0.004), (0.05, height - 0.01)), ((0.004, x[1]), (0.05, height - 0.01))]
    elif variant == 6:  # two doors above a drawer
        low = height * 0.36
        doors = [((x[0], -0.004), (low, height - 0.01)), ((0.004, x[1]), (low, height - 0.01))]
        mesh.cushion(x, (y[1] - 0.045, y[1]), (0.05, low - 0.008), color, 0.012, 7)
        mesh.box((x[0] + 0.1, x[1] - 0.1), (y[1], y[1] + 0.045), (low - 0.08, low - 0.06), style.metal)
    for index, (across, up) in enumerate(doors):
        mesh.cushion(across, (y[1] - 0.045, y[1]), up, color, 0.012, 7)
        edge = across[1] - 0.07 if index == 0 else across[0] + 0.05
        middle = (up[0] + up[1]) / 2
        mesh.box((edge, edge + 0.02), (y[1], y[1] + 0.045), (middle - 0.18, middle + 0.18), style.metal)


def build_toilet(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    bowl = [
        (0.0, 0.0),
        (0.14, 0.0),
        (0.11, 0.12),
        (0.15, 0.28),
        (0.2, 0.38),
        (0.2, 0.4),
        (0.14, 0.4),
        (0.12, 0.3),
        (0.0, 0.24),
    ]
    if variant == 3:  # a tall bowl before a low round tank
        mesh.lathe(
            [(0.0, 0.36), (0.17, 0.38), (0.18, 0.72), (0.0, 0.76)], style.ceramic, (0, -0.27), stretch=(1.3, 0.7)
        )
        mesh.cushion((-0.13, 0.13), (-0.4, 0.1), (0, 0.37), style.ceramic, 0.04)
    elif variant == 4:  # smooth sides down to the floor, tank in one piece
        mesh.cushion((-0.18, 0.18), (-0.4, 0.2), (0, 0.4), style.ceramic, 0.08)
        mesh.cushion((-0.2, 0.2), (-0.42, -0.2), (0.3, 0.7), style.ceramic, 0.07)
    elif variant == 1:  # hung on the wall, tank hidden
        bowl = [(0.0, 0.12), (0.1, 0.12), (0.17, 0.25), (0.2, 0.38), (0.2, 0.4), (0.14, 0.4), (0.12, 0.3), (0.0, 0.24)]
        mesh.box((-0.12, 0.12), (-0.34, -0.05), (0.14, 0.38), style.ceramic)
        mesh.box((-0.3, 0.3), (-0.42, -0.3), (0, 1.1), style.ceramic)
        mesh.box((-0.1, 0.1), (-0.3, -0.29), (0.85, 0.98), style.metal)
    elif variant == 2:  # square, with a high tank
        mesh.cushion((-0.19, 0.19), (-0.3, 0.32), (0.0, 0.4), style.ceramic, 0.05)
        mesh.box((-0.2, 0.2), (-0.18, 0.33), (0.4, 0.43), style.ceramic)
        mesh.cushion((-0.22, 0.22), (-0.42, -0.24), (0.36, 0.95), style.ceramic, 0.03)
        mesh.box((-0.04, 0.04), (-0.36, -0.3), (0.95, 0.965), style.metal)
        return
    else:
        mesh.cushion((-0.22, 0.22), (-0.4, -0.21), (0.36, 0.78), style.ceramic, 0.03)
        mesh.box((-0.235, 0.235), (-0.41, -0.2), (0.78, 0.81), style.ceramic)
        mesh.box((-0.1, 0.1), (-0.4, -0.1), (0.0, 0.36), style.ceramic)
    mesh.lathe(bowl, style.ceramic, (0, 0.08), stretch=(0.95, 1.25), segments=22)
    seat = [(0.0, 0.415), (0.19, 0.405), (0.205, 0.42), (0.19, 0.435), (0.0, 0.44)]
    if generator.random() < 0.6:
        mesh.lathe(seat, style.ceramic, (0, 0.08), stretch=(0.95, 1.25), segments=22)
    else:  # lid up against the tank
        mesh.cushion((-0.18, 0.18), (-0.2, -0.17), (0.42, 0.82), style.ceramic, 0.015)


def build_vanity(style: Style, generator: Generator, variant: int, cell: float) -> list[tuple[str, ObjectMesh]]:
    """A bathroom basin, on a cabinet or on its own pedestal."""
    sink = ObjectMesh(cell)
    if variant == 1:  # pedestal
        bowl = [(0.0, 0.7), (0.13, 0.7), (0.27, 0.83), (0.28, 0.86), (0.24, 0.86), (0.18, 0.78), (0.0, 0.76)]
        sink.lathe(bowl, style.ceramic, segments=22, stretch=(1.0, 0.8))
        sink.lathe([(0.13, 0.0), (0.09, 0.1), (0.08, 0.6), (0.12, 0.72)], style.ceramic)
        _tap(sink, 0.0, -0.2, 0.84, style.metal, 0.11)
        return [("sink", sink)]
    if variant == 3:  # hung on the wall
        half = generator.uniform(0.22, 0.32)
        hole = ((-half + 0.06, half - 0.06), (-0.1, 0.16))
        _top_with_hole(sink, (-half, half), (-0.22, 0.22), (0.74, 0.86), hole, style.ceramic)
        _basin(sink, *hole, 0.86, 0.11, style.ceramic)
        _tap(sink, 0.0, -0.16, 0.86, style.metal, 0.12)
        return [("sink", sink)]
    cabinet = ObjectMesh(cell)
    width = generator.uniform(0.65, 1.1)
    if variant == 4:  # a basin at one side of a board on legs
        x, y = (-width / 2, width / 2), (-0.24, 0.24)
        place = x[0] + 0.27
        wood = style.repaint(style.wood)
        cabinet.legs(x, y, (0, 0.78), 0.04, style.repaint(style.black))
        cabinet.box(x, y, (0.78, 0.82), wood)
        cabinet.box((x[0] + 0.02, x[1] - 0.02), (y[0] + 0.02, y[1] - 0.02), (0.2, 0.23), wood)
        cabinet.box((x[0] + 0.04, x[1] - 0.04), (y[0] + 0.02, y[1] - 0.04), (0.5, 0.78), style.repaint(style.lacquer))
        sink.box((place - 0.22, place + 0.22), (-0.15, 0.19), (0.82, 0.83), style.ceramic)
        for side in ((place - 0.22, place - 0.205), (place + 0.205, place + 0.22)):
            sink.box(side, (-0.15, 0.19), (0.83, 0.94), style.ceramic)
        for side in ((-0.15, -0.135), (0.175, 0.19)):
            sink.box((place - 0.22, place + 0.22), side, (0.83, 0.94), style.ceramic)
        _tap(sink, place, -0.2, 0.82, style.metal, 0.12)
        return [("sink", sink), ("cabinet", cabinet)]
    x, y = (-width / 2, width / 2), (-0.24, 0.24)
    lift = 0.25 if variant == 2 else 0.06
    body = style.repaint(style.wood_upright if generator.random() < 0.5 else style.lacquer)
    cabinet.box(x, (y[0], y[1] - 0.03), (lift, 0.68 if variant != 2 else 0.76), body)
    fronts(cabinet, x, y[1] - 0.03, (lift, 0.76), 2, 1, body, style.metal, is_drawer=variant == 2)
    if lift < 0.1:
        cabinet.box((x[0] + 0.03, x[1] - 0.03), (y[0], y[1] - 0.08), (0, lift), style.black)
    if variant == 2:  # a vessel standing on the board
        sink.lathe(
            [(0.0, 0.8), (0.12, 0.8), (0.2, 0.93), (0.185, 0.93), (0.12, 0.84), (0.0, 0.83)], style.ceramic, segments=22
        )
        cabinet.box(x, y, (0.76, 0.8), style.wood_dark)
        _tap(sink, 0.0, -0.2, 0.8, style.metal, 0.1)
    else:
        hole = ((-0.22, 0.22), (-0.13, 0.17))
        _top_with_hole(sink, x, y, (0.78, 0.83), hole, style.ceramic)
        _basin(sink, hole[0], hole[1], 0.83, 0.12, style.ceramic)
        _tap(sink, 0.0, -0.18, 0.83, style.metal, 0.12)
    return [("sink", sink), ("cabinet", cabinet)]


def build_bathtub(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    length, width, height = generator.uniform(1.5, 1.75), generator.uniform(0.7, 0.8), 0.56
    x, y = (-length / 2, length / 2), (-width / 2, width / 2)
    if variant == 2:  # free-standing oval on feet
        profile = [
            (0.0, 0.12),
            (0.3, 0.14),
            (0.38, 0.35),
            (0.42, 0.6),
            (0.39, 0.6),
            (0.34, 0.38),
            (0.26, 0.22),
            (0.0, 0.21),
        ]
        mesh.lathe(profile, style.ceramic, segments=30, stretch=(length / 0.84, width / 0.84))
        mesh.legs((x[0] + 0.3, x[1] - 0.3), (y[0] + 0.1, y[1] - 0.1), (0, 0.2), 0.06, style.metal)
    else:
        apron = style.ceramic if variant == 0 else style.draw_wall_tiles()
        rim = 0.07
        if variant == 3:  # clad in wood, with a wide rim
            apron, rim = style.repaint(style.wood), 0.13
        mesh.box(x, (y[0], y[0] + rim), (0, height), apron)
        mesh.box(x, (y[1] - rim, y[1]), (0, height), apron)
        mesh.box((x[0], x[0] + rim), y, (0, height), apron)
        mesh.box((x[1] - rim, x[1]), y, (0, height), apron)
        _basin(mesh, (x[0] + rim, x[1] - rim), (y[0] + rim, y[1] - rim), height, 0.4, style.ceramic)
        for edge in (y[0], y[1] - rim):
            mesh.box(x, (edge, edge + rim), (height, height + 0.012), style.ceramic)
        for edge in (x[0], x[1] - rim):
            mesh.box((edge, edge + rim), y, (height, height + 0.012), style.ceramic)
    _tap(mesh, x[0] + 0.14, y[0] + 0.03 + 0.02 * min(variant, 2), height, style.metal, 0.16)


def build_shower_curtain(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    """A curtain on a rail along the front edge of the tub, drawn partly aside."""
    width = 1.6
    share = (0.55, 0.8, 0.4, 0.95)[variant] * style.vary(1.0, 0.8, 1.05)
    folds = (9, 12, 7, 16)[variant]
    u = np.linspace(0, 1, folds * 8)
    v = np.linspace(0, 1, 9)
    points = np.empty((len(v), len(u), 3))
    points[..., 0] = (-width / 2 + u * width * share)[None]
    points[..., 1] = (0.035 + 0.015 * v[:, None]) * np.sin(u * folds * 2 * np.pi)[None]
    points[..., 2] = (0.25 + v * 1.7)[:, None]
    mesh.sheet(points, style.draw_cloth(style.palette.cloth_second, style.palette.accent))
    mesh.tube([(-width / 2, 0, 1.98), (width / 2, 0, 1.98)], 0.014, style.metal)


STOVE = Family("stove", "otherfurniture", build_stove, 2, is_stretched_up=False)
REFRIGERATOR = Family("refrigerator", "refridgerator", build_refrigerator, 4, extra=3)
TOILET = Family("toilet", "toilet", build_toilet, 3, extra=2)
BATHTUB = Family("bathtub", "bathtub", build_bathtub, 3, extra=1)
SHOWER_CURTAIN = Family("shower curtain", "shower curtain", build_shower_curtain, 3, extra=1, is_stretched_up=False)
KITCHEN_RUN_VARIANTS, KITCHEN_RUN_EXTRA = 4, 3
VANITY_VARIANTS, VANITY_EXTRA = 3, 2
