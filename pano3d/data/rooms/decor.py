"""What hangs, lies and stands about: curtains, pictures, mirrors, lamps, screens, plants, rugs and small things.

Wall pieces are built with the wall at y = 0 and the room on the side of +y.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.random import Generator

from pano3d.data.rooms.family import Family
from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import Interval, ObjectMesh


def _cloth_folds(
    mesh: ObjectMesh, x: Interval, z: Interval, folds: int, deep: float, material: int, y: float, tie: float = 0.0
) -> None:
    """A hanging cloth; `tie` draws it together half way down, towards the low (positive) or high (negative) end of x,
    by that share of its width."""
    u, v = np.linspace(0, 1, folds * 8), np.linspace(0, 1, max(5, int((z[1] - z[0]) / 0.2)))
    points = np.empty((len(v), len(u), 3))
    sway = 0.012 * np.sin(9 * u)[None] * (1 - v)[:, None]
    points[..., 0] = (x[0] + u * (x[1] - x[0]))[None] + sway
    if tie:
        waist = abs(tie) * np.exp(-np.square((v - 0.4) / 0.22))[:, None]
        points[..., 0] += waist * ((x[0] if tie > 0 else x[1]) - points[..., 0])
    points[..., 1] = y + (deep * (1.15 - 0.3 * v))[:, None] * np.sin(u * folds * 2 * np.pi)[None]
    points[..., 2] = (z[0] + v * (z[1] - z[0]))[:, None]
    mesh.sheet(points, material)


def build_curtains(
    style: Style, generator: Generator, width: float, z: Interval, variant: int, cell: float
) -> list[ObjectMesh]:
    """Curtains in front of an opening of that width, centred; each cloth is an object of its own."""
    material = style.draw_cloth(
        *((style.palette.cloth, style.palette.cloth_second)[:: 1 if generator.random() < 0.5 else -1])
    )
    reach = width / 2 + 0.22
    share = generator.uniform(0.3, 0.5)
    low = (0.04, 0.04, z[0] - 0.12, 0.04, z[0] - 0.2, 0.04, (z[0] + z[1]) / 2 - 0.2)[variant]
    spans = [(-reach, -reach + share * width), (reach - share * width, reach)]
    if variant == 1:
        spans = spans[: 1 if generator.random() < 0.5 else 2][-1:]
    folds = {3: 3, 4: 9, 5: 4, 6: 7}.get(variant, 5)
    curtains = []
    for side, span in enumerate(spans):
        mesh = ObjectMesh(cell)
        deep = {3: 0.055, 4: 0.02, 6: 0.02}.get(variant, 0.035)
        tie = (0.62, -0.62)[side] if variant == 5 else 0.0
        _cloth_folds(mesh, span, (low, z[1] + 0.12), folds, deep, material, 0.11, tie)
        curtains.append(mesh)
    rail = curtains[0]
    if variant == 3:
        rail.box((-reach - 0.03, reach + 0.03), (0.02, 0.19), (z[1] + 0.1, z[1] + 0.26), style.wood)
    else:
        rail.tube([(-reach - 0.06, 0.11, z[1] + 0.14), (reach + 0.06, 0.11, z[1] + 0.14)], 0.013, style.metal)
    return curtains


def build_picture(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    width, height = generator.uniform(0.35, 0.95), generator.uniform(0.35, 0.75)
    x, z = (-width / 2, width / 2), (-height / 2, height / 2)
    image = style.draw_picture(width, height)
    if variant == 1:  # a poster without a frame
        mesh.box(x, (0.0, 0.008), z, image)
        return
    if variant == 3:  # a stretched canvas
        mesh.box(x, (0.0, generator.uniform(0.02, 0.05)), z, image)
        return
    if variant == 4:  # two or three narrow ones side by side
        parts = np.linspace(x[0], x[1], int(generator.integers(3, 5)))
        for left, right in pairwise(parts):
            mesh.box((left + 0.02, right - 0.02), (0.0, 0.02), z, image)
        return
    frame = style.repaint((style.black, style.wood, style.white, style.metal)[int(generator.integers(4))])
    bar = style.vary(0.02, 0.012, 0.04) if variant == 0 else 0.055
    mesh.box(x, (0.0, 0.015), z, image)
    mesh.box((x[0] - bar, x[0]), (0.0, 0.028), (z[0] - bar, z[1] + bar), frame)
    mesh.box((x[1], x[1] + bar), (0.0, 0.028), (z[0] - bar, z[1] + bar), frame)
    mesh.box(x, (0.0, 0.028), (z[0] - bar, z[0]), frame)
    mesh.box(x, (0.0, 0.028), (z[1], z[1] + bar), frame)


def build_mirror(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    width, height = generator.uniform(0.5, 0.9), generator.uniform(0.6, 1.1)
    x, z = (-width / 2, width / 2), (-height / 2, height / 2)
    if variant == 2:  # round
        angle = np.linspace(0, 2 * np.pi, 33)
        radius = width / 2
        rim = np.stack([radius * np.cos(angle), np.full(33, 0.02), radius * np.sin(angle)], 1)
        fan = np.concatenate([rim, [[0.0, 0.02, 0.0]]])
        triangles = np.array([[33, k + 1, k] for k in range(32)], np.int32)
        mesh.add(fan, np.tile([0.0, 1.0, 0.0], (34, 1)), triangles, style.mirror)
        mesh.tube([(float(p[0]), 0.012, float(p[2])) for p in rim], 0.02, style.wood_dark)
        return
    mesh.pane(x, 0.02, z, style.mirror)
    frame = style.metal if variant == 0 else style.repaint(style.wood)
    bar = 0.012 if variant == 0 else 0.05
    for side in ((x[0] - bar, x[0]), (x[1], x[1] + bar)):
        mesh.box(side, (0.0, 0.03), (z[0] - bar, z[1] + bar), frame)
    for side in ((z[0] - bar, z[0]), (z[1], z[1] + bar)):
        mesh.box(x, (0.0, 0.03), side, frame)


def build_television(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    """Stands on z = 0 on its own foot."""
    width = generator.uniform(0.9, 1.35)
    height = width * 0.57
    z = (0.06, 0.06 + height)
    mesh.box((-width / 2, width / 2), (-0.025, 0.0), z, style.black)
    mesh.box(
        (-width / 2 + 0.012, width / 2 - 0.012),
        (0.0, 0.004),
        (z[0] + 0.012, z[1] - 0.012),
        style.draw_screen(1.0, 1.0, is_on=False),
    )
    if variant == 0:
        mesh.box((-0.2, 0.2), (-0.11, 0.1), (0, 0.015), style.black)
        mesh.box((-0.05, 0.05), (-0.03, -0.01), (0.01, 0.1), style.black)
    else:
        for x in (-width / 3, width / 3):
            mesh.box((x - 0.015, x + 0.015), (-0.11, 0.1), (0, 0.06), style.metal if variant == 2 else style.black)


def build_monitor(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    width = (0.52, 0.6, 0.78)[variant]
    height = width * (0.58 if variant < 2 else 0.44)
    z = (0.12, 0.12 + height)
    is_on = bool(generator.random() < 0.5)
    mesh.box((-width / 2, width / 2), (-0.02, 0.0), z, style.black)
    screen = style.draw_screen(width, 2 * (0.12 + height), is_on)
    mesh.box((-width / 2 + 0.012, width / 2 - 0.012), (0.0, 0.004), (z[0] + 0.012, z[1] - 0.012), screen)
    mesh.box((-0.11, 0.11), (-0.1, 0.08), (0, 0.012), style.metal)
    mesh.box((-0.02, 0.02), (-0.05, -0.02), (0.01, 0.3), style.metal)


def build_keyboard(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    half = (0.21, 0.15, 0.23)[variant]
    mesh.box((-half, half), (-0.06, 0.06), (0, 0.018), style.black if variant != 1 else style.white)
    mesh.box((-half + 0.01, half - 0.01), (-0.05, 0.05), (0.018, 0.022), style.metal)


def build_cup(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    radius, height = ((0.04, 0.1), (0.05, 0.08), (0.11, 0.07))[variant]
    color = style.ceramic if generator.random() < 0.4 else style.draw_plain_color()
    profile = [
        (0.0, 0.0),
        (radius * 0.7, 0.0),
        (radius, height),
        (radius * 0.88, height),
        (radius * 0.6, 0.01),
        (0.0, 0.01),
    ]
    mesh.lathe(profile, color, segments=14)


def build_plant(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    radius, pot = generator.uniform(0.13, 0.19), generator.uniform(0.25, 0.36)
    mesh.lathe(
        [(0.0, 0.0), (radius * 0.75, 0.0), (radius, pot), (radius * 0.9, pot), (0.0, pot - 0.02)],
        style.draw_plain_color(),
        segments=16,
    )
    mesh.cylinder((0, 0), radius * 0.88, (pot - 0.04, pot - 0.02), style.soil, 14)
    count, tall = ((26, 0.85), (16, 0.6), (34, 1.15))[variant]
    for leaf in range(count):
        turn = leaf * 2.4 + generator.uniform(0, 0.4)
        reach = generator.uniform(0.22, 0.42)
        rise = tall * generator.uniform(0.35, 1.0)
        start = np.array([0.0, 0.0, pot - 0.05 + (rise * 0.45 if variant == 2 else 0.0)])
        along = np.linspace(0, 1, 6)[:, None]
        out = np.array([np.cos(turn), np.sin(turn), 0.0])
        side = np.array([-np.sin(turn), np.cos(turn), 0.0])
        droop = 0.35 * reach * along**2
        spine = (
            start
            + out * reach * along
            + np.array([0, 0, 1.0]) * (rise * 0.55 * along - droop + rise * 0.3 * np.sqrt(along))
        )
        wide = (0.055 if variant != 1 else 0.1) * np.sin(np.pi * np.clip(along, 0.08, 0.95))
        mesh.sheet(np.stack([spine - side * wide, spine, spine + side * wide], 1), style.leaf, 0.004)
    if variant == 2:
        mesh.tube([(0, 0, pot - 0.05), (0.02, 0.01, pot + 0.4), (0, 0, pot + 0.7)], 0.02, style.wood_dark)


def build_rug(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    width, depth = generator.uniform(1.5, 2.3), generator.uniform(1.1, 1.6)
    if variant == 2:
        mesh.cylinder((0, 0), depth / 1.6, (0.0, 0.012), style.draw_rug(depth * 1.25, depth * 1.25), 32)
        return
    material = style.draw_rug(width, depth) if variant == 0 else style.recover(style.cloth_second)
    mesh.box((-width / 2, width / 2), (-depth / 2, depth / 2), (0.0, 0.012), material)


def build_floor_mat(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    size = ((0.35, 0.25), (0.4, 0.28), (0.3, 0.3))[variant]
    mesh.cushion((-size[0], size[0]), (-size[1], size[1]), (0, 0.022), style.recover(style.cloth), 0.01, 5)


def build_floor_lamp(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    height = generator.uniform(1.45, 1.7)
    shade = style.draw_lampshade(1.6)
    if variant == 2:
        mesh.legs((-0.2, 0.2), (-0.2, 0.2), (0, 0.03), 0.03, style.wood_dark)
        for angle in np.arange(3) * 2 * np.pi / 3:
            mesh.tube(
                [(0.24 * np.cos(angle), 0.24 * np.sin(angle), 0.0), (0, 0, height - 0.25)], 0.014, style.wood_dark
            )
    else:
        mesh.cylinder((0, 0), 0.14, (0, 0.02), style.black, 18)
        mesh.cylinder((0, 0), 0.012, (0.02, height), style.black, 8)
    low, top = (0.2, 0.13) if variant != 1 else (0.16, 0.16)
    mesh.lathe([(low, height - 0.28), (top, height)], shade)
    mesh.lathe([(top - 0.004, height), (low - 0.004, height - 0.28)], shade)


def build_table_lamp(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    shade = style.draw_lampshade(1.6)
    if variant == 0:
        mesh.lathe([(0.0, 0.0), (0.07, 0.0), (0.09, 0.08), (0.04, 0.16), (0.015, 0.22), (0.0, 0.3)], style.ceramic)
    elif variant == 1:
        mesh.cylinder((0, 0), 0.07, (0, 0.015), style.metal)
        mesh.cylinder((0, 0), 0.01, (0.015, 0.26), style.metal, 8)
    else:
        mesh.lathe([(0.0, 0.0), (0.09, 0.05), (0.11, 0.12), (0.09, 0.19), (0.0, 0.24)], style.draw_plain_color())
    mesh.lathe([(0.13, 0.22), (0.085, 0.42)], shade)
    mesh.lathe([(0.082, 0.42), (0.127, 0.22)], shade)


def build_radiator(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    """Wall at y = 0."""
    half = generator.uniform(0.35, 0.6)
    if variant == 3:  # round columns
        for x in np.arange(-half, half, 0.06):
            mesh.cylinder((float(x), 0.075), 0.022, (0.12, 0.66), style.white, 8)
        for z in (0.16, 0.6):
            mesh.box((-half - 0.02, half), (0.05, 0.1), (z, z + 0.03), style.white)
        return
    if variant == 1:
        mesh.box((-half, half), (0.03, 0.11), (0.14, 0.66), style.white)
        mesh.box((-half, half), (0.02, 0.12), (0.66, 0.675), style.metal)
        return
    step = 0.07 if variant == 0 else 0.1
    for x in np.arange(-half, half, step):
        mesh.box((x, x + step * 0.7), (0.03, 0.12), (0.14, 0.66), style.white)
    for z in (0.18, 0.6):
        mesh.box((-half, half), (0.05, 0.09), (z, z + 0.04), style.white)


def build_whiteboard(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    half, tall = generator.uniform(0.5, 0.9), generator.uniform(0.35, 0.5)
    mesh.box((-half, half), (0.0, 0.02), (-tall, tall), style.ceramic)
    for z in (-tall, tall - 0.02):
        mesh.box((-half - 0.01, half + 0.01), (0.0, 0.03), (z, z + 0.02), style.metal)
    mesh.box((-half * 0.4, half * 0.4), (0.02, 0.07 + 0.01 * variant), (-tall, -tall + 0.015), style.metal)


def build_towel(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    """A towel over a rail, wall at y = 0."""
    half = (0.2, 0.28, 0.16)[variant]
    mesh.tube([(-half - 0.06, 0.07, 1.3), (half + 0.06, 0.07, 1.3)], 0.01, style.metal)
    _cloth_folds(mesh, (-half, half), (0.75, 1.31), 2, 0.012, style.recover(style.cloth), 0.085)


PICTURE = Family("picture", "picture", build_picture, 3, extra=2)
MIRROR = Family("mirror", "mirror", build_mirror, 3)
TELEVISION = Family("television", "television", build_television, 3)
MONITOR = Family("monitor", "otherprop", build_monitor, 3)
KEYBOARD = Family("keyboard", "otherprop", build_keyboard, 3)
CUP = Family("cup", "otherprop", build_cup, 3)
PLANT = Family("plant", "otherprop", build_plant, 3)
RUG = Family("rug", "otherprop", build_rug, 3)
FLOOR_MAT = Family("floor mat", "floor mat", build_floor_mat, 3)
FLOOR_LAMP = Family("floor lamp", "lamp", build_floor_lamp, 3, is_stretched_up=False)
TABLE_LAMP = Family("table lamp", "lamp", build_table_lamp, 3, is_stretched_up=False)
RADIATOR = Family("radiator", "otherfurniture", build_radiator, 3, extra=1, is_stretched_up=False)
WHITEBOARD = Family("whiteboard", "whiteboard", build_whiteboard, 3)
TOWEL = Family("towel", "towel", build_towel, 3, is_stretched_up=False)
CURTAIN_VARIANTS, CURTAIN_EXTRA = 4, 3
