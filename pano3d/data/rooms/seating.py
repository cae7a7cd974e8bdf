"""Chairs, armchairs, sofas, beds, stools and ottomans."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from pano3d.data.rooms.family import Family
from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import ObjectMesh


def build_dining_chair(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    width, depth, seat = 0.44, 0.44, generator.uniform(0.44, 0.48)
    back = seat + generator.uniform(0.4, 0.5)
    frame = (style.wood_upright, style.metal, style.black, style.lacquer)[int(generator.integers(4))]
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    if variant == 3:  # a moulded shell on sled runners
        u, v = np.linspace(-1, 1, 9), np.linspace(0, 1, 12)
        bend = np.where(v < 0.5, -0.2 + 0.0 * v, -0.2 - 0.1 * (v - 0.5))
        shell = np.empty((12, 9, 3))
        shell[..., 0] = u[None] * (0.23 - 0.03 * v[:, None])
        shell[..., 1] = np.where(v < 0.5, 0.22 - 0.84 * v, bend)[:, None] + 0.06 * (u**2)[None] * (v > 0.4)[:, None]
        shell[..., 2] = np.where(v < 0.5, seat, seat + (v - 0.5) * 0.84)[:, None] + 0.03 * (u**2)[None]
        mesh.sheet(shell, style.cloth, 0.02)
        for side in (-0.18, 0.18):
            mesh.tube(
                [(side, -0.2, seat), (side, -0.22, 0.012), (side, 0.22, 0.012), (side, 0.18, seat)], 0.012, style.metal
            )
        return
    mesh.legs(x, y, (0, seat - 0.03), 0.035, frame, is_round=variant == 1)
    if variant == 1:
        mesh.cushion(x, y, (seat - 0.05, seat + 0.03), style.cloth, 0.03, 3)
    else:
        mesh.box(x, y, (seat - 0.03, seat), frame)
    post = (-depth / 2, -depth / 2 + 0.03)
    if variant == 1:
        mesh.cushion(
            (x[0] + 0.02, x[1] - 0.02), (post[0] - 0.01, post[1] + 0.03), (seat + 0.1, back), style.cloth, 0.03, 3
        )
    for edge in (x[0], x[1] - 0.035):
        mesh.box((edge, edge + 0.035), post, (seat, back), frame)
    if variant == 0:
        for z in np.linspace(seat + 0.14, back - 0.06, 3):
            mesh.box(x, post, (z, z + 0.06), frame)
    if variant == 2:
        mesh.box(x, post, (back - 0.06, back), frame)
        for edge in np.linspace(x[0] + 0.07, x[1] - 0.09, 4):
            mesh.box((edge, edge + 0.02), post, (seat, back), frame)


def build_office_chair(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    seat = generator.uniform(0.45, 0.52)
    cloth = style.black if generator.random() < 0.5 else style.cloth
    for angle in np.arange(5) * 2 * np.pi / 5:
        x, y = 0.28 * np.cos(angle), 0.28 * np.sin(angle)
        mesh.tube([(0, 0, 0.1), (x, y, 0.07)], 0.022, style.black)
        mesh.cylinder((x, y), 0.028, (0, 0.055), style.black, 8)
    mesh.cylinder((0, 0), 0.028, (0.08, seat - 0.04), style.metal, 10)
    mesh.cushion((-0.25, 0.25), (-0.22, 0.26), (seat - 0.06, seat + 0.03), cloth, 0.04)
    top = seat + (0.72 if variant == 1 else 0.52)
    if variant == 2:
        for z in np.linspace(seat + 0.16, top, 5):
            mesh.cushion((-0.22, 0.22), (-0.27, -0.23), (z, z + 0.06), cloth, 0.018, 3)
        mesh.box((-0.03, 0.03), (-0.29, -0.26), (seat - 0.05, top + 0.04), style.metal)
    else:
        mesh.cushion((-0.23, 0.23), (-0.29, -0.21), (seat + 0.12, top), cloth, 0.04)
        mesh.box((-0.03, 0.03), (-0.3, -0.27), (seat - 0.05, seat + 0.3), style.black)
    if variant != 0:
        for side in (-0.28, 0.28):
            mesh.box((side - 0.025, side + 0.025), (-0.15, 0.12), (seat + 0.19, seat + 0.22), style.black)
            mesh.box((side - 0.015, side + 0.015), (-0.03, 0.01), (seat - 0.05, seat + 0.19), style.black)


def _soft_seat(
    mesh: ObjectMesh, style: Style, cloth: int, seats: int, width: float, depth: float, variant: int
) -> None:
    """Base, arms, seat and back cushions shared by armchairs and sofas."""
    arm = (0.16, 0.22, 0.07)[min(variant, 2)]
    total = width + 2 * arm
    left = -total / 2
    lift = 0.14 if variant == 2 else 0.06
    mesh.legs((left + 0.05, -left - 0.05), (-depth / 2 + 0.05, depth / 2 - 0.05), (0, lift), 0.05, style.wood_dark)
    mesh.cushion((left, -left), (-depth / 2, depth / 2), (lift, 0.3), cloth, 0.03, 7)
    radius = 0.1 if variant == 1 else 0.03
    for x in ((left, left + arm), (-left - arm, -left)):
        mesh.cushion(x, (-depth / 2, depth / 2), (lift, 0.62 if variant != 2 else 0.56), cloth, radius)
    mesh.cushion((left, -left), (-depth / 2, -depth / 2 + 0.18), (lift, 0.8), cloth, 0.06, 7)
    step = width / seats
    for seat in range(seats):
        x = (-width / 2 + seat * step + 0.005, -width / 2 + (seat + 1) * step - 0.005)
        mesh.cushion(x, (-depth / 2 + 0.16, depth / 2 + 0.02), (0.29, 0.45), cloth, 0.05)
        mesh.cushion(x, (-depth / 2 + 0.14, -depth / 2 + 0.32), (0.43, 0.86), cloth, 0.07)


def build_armchair(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    cloth = style.cloth_second if generator.random() < 0.5 else style.cloth
    if variant == 3:  # a barrel chair
        angle = np.linspace(np.pi * 0.93, np.pi * 2.07, 15)
        wall = np.empty((6, 15, 3))
        for row, z in enumerate(np.linspace(0.08, 0.72, 6)):
            radius = 0.4 + 0.04 * np.sin(row)
            wall[row] = np.stack([radius * np.cos(angle), 0.05 + radius * np.sin(angle), np.full(15, z)], 1)
        mesh.sheet(wall, cloth, 0.09)
        mesh.lathe([(0.0, 0.1), (0.36, 0.1), (0.37, 0.3), (0.34, 0.44), (0.0, 0.46)], cloth, (0, 0.05))
        mesh.legs((-0.25, 0.25), (-0.2, 0.3), (0, 0.12), 0.04, style.wood_dark)
        return
    _soft_seat(mesh, style, cloth, 1, generator.uniform(0.52, 0.62), generator.uniform(0.72, 0.82), variant)


def build_sofa(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    seats = int(generator.integers(2, 4))
    width, depth = seats * generator.uniform(0.58, 0.7), generator.uniform(0.8, 0.92)
    _soft_seat(mesh, style, style.cloth, seats, width, depth, min(variant, 2) if variant < 3 else 0)
    if variant == 3:  # a chaise longue at one end
        step = width / seats
        mesh.cushion((-width / 2, -width / 2 + step), (depth / 2, depth / 2 + 0.6), (0.06, 0.3), style.cloth, 0.03)
        mesh.cushion(
            (-width / 2, -width / 2 + step), (depth / 2 - 0.02, depth / 2 + 0.62), (0.29, 0.45), style.cloth, 0.05
        )


def build_bed(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    width, length = float(generator.choice([0.95, 1.45, 1.65, 1.85])), generator.uniform(1.95, 2.1)
    frame = style.wood if generator.random() < 0.6 else style.lacquer
    upright = style.wood_upright if frame == style.wood else style.lacquer
    x, y = (-width / 2, width / 2), (-length / 2, length / 2)
    head = (y[0] - 0.05, y[0])
    if variant == 3:  # four posts with a rail
        mesh.legs((x[0] - 0.05, x[1] + 0.05), (y[0] - 0.05, y[1] + 0.05), (0, 1.7), 0.06, upright)
        for z in (1.64,):
            mesh.box((x[0] - 0.05, x[1] + 0.05), (y[0] - 0.05, y[0] - 0.01), (z, z + 0.05), frame)
            mesh.box((x[0] - 0.05, x[1] + 0.05), (y[1] + 0.01, y[1] + 0.05), (z, z + 0.05), frame)
    if variant in (0, 3):
        mesh.box((x[0] - 0.03, x[1] + 0.03), head, (0, generator.uniform(0.85, 1.1)), frame)
    elif variant == 1:
        mesh.box((x[0] - 0.03, x[1] + 0.03), head, (0.85, 0.93), frame)
        for edge in np.linspace(x[0] - 0.03, x[1] - 0.03, int(width / 0.18)):
            mesh.box((edge, edge + 0.06), head, (0, 0.85), upright)
    else:
        mesh.cushion((x[0] - 0.05, x[1] + 0.05), (y[0] - 0.13, y[0]), (0, 1.1), style.cloth_second, 0.05, 7)
    mesh.box((x[0] - 0.02, x[1] + 0.02), y, (0.12, 0.28), frame if variant != 2 else style.cloth_second)
    mesh.legs(x, y, (0, 0.12), 0.07, style.wood_dark)
    mesh.cushion(x, (y[0] + 0.01, y[1] - 0.02), (0.26, 0.47), style.linen, 0.06, 9)
    rows, columns = 14, 17
    u, v = np.linspace(-1, 1, columns), np.linspace(0, 1, rows)
    reach = width / 2 + 0.03
    across = np.clip(u * (reach + 0.22), -reach, reach)
    drop = np.maximum(np.abs(u) * (reach + 0.22) - reach, 0)
    blanket = np.empty((rows, columns, 3))
    blanket[..., 0] = across[None]
    blanket[..., 1] = (y[0] + 0.62 + v * (length - 0.6))[:, None]
    wave = 0.008 * np.sin(v * 19 + 2)[:, None] * np.cos(u * 7)[None]
    blanket[..., 2] = 0.495 + wave - drop[None] - 0.02 * (np.abs(u) > 0.75)[None]
    mesh.sheet(blanket, style.cloth, 0.03)
    mesh.cushion((x[0] - 0.02, x[1] + 0.02), (y[0] + 0.55, y[0] + 0.8), (0.485, 0.53), style.cloth_second, 0.02, 7)


def build_pillow(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    size = ((0.62, 0.38), (0.45, 0.42), (0.7, 0.3))[variant]
    cloth = style.linen if variant == 0 else style.cloth_second
    mesh.cushion(
        (-size[0] / 2, size[0] / 2), (-size[1] / 2, size[1] / 2), (0, generator.uniform(0.12, 0.15)), cloth, 0.07
    )


def build_stool(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    height = generator.uniform(0.42, 0.65)
    if variant == 2:
        mesh.cylinder((0, 0), 0.17, (0, 0.02), style.metal)
        mesh.cylinder((0, 0), 0.025, (0.02, height - 0.03), style.metal, 8)
    else:
        mesh.legs((-0.16, 0.16), (-0.16, 0.16), (0, height - 0.03), 0.035, style.wood_upright, is_round=variant == 1)
    if variant == 0:
        mesh.box((-0.18, 0.18), (-0.18, 0.18), (height - 0.03, height), style.wood)
    else:
        mesh.cylinder((0, 0), 0.18, (height - 0.04, height), style.wood if variant == 1 else style.cloth)


def build_ottoman(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    height = generator.uniform(0.36, 0.44)
    if variant == 0:
        mesh.cushion((-0.3, 0.3), (-0.3, 0.3), (0.03, height), style.cloth_second, 0.06)
    elif variant == 1:
        mesh.lathe(
            [(0.0, 0.0), (0.26, 0.01), (0.32, height * 0.5), (0.26, height), (0.0, height + 0.02)], style.cloth_second
        )
    else:  # a bean bag
        profile = [(0.0, 0.0), (0.38, 0.02), (0.44, 0.22), (0.36, 0.45), (0.2, 0.66), (0.07, 0.76), (0.0, 0.77)]
        mesh.lathe(profile, style.cloth)


DINING_CHAIR = Family("dining chair", "chair", build_dining_chair, 4)
OFFICE_CHAIR = Family("office chair", "chair", build_office_chair, 3)
ARMCHAIR = Family("armchair", "chair", build_armchair, 4)
SOFA = Family("sofa", "sofa", build_sofa, 4)
BED = Family("bed", "bed", build_bed, 4)
PILLOW = Family("pillow", "pillow", build_pillow, 3)
STOOL = Family("stool", "otherprop", build_stool, 3)
OTTOMAN = Family("ottoman", "otherfurniture", build_ottoman, 3)
