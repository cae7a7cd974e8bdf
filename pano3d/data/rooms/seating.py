"""Chairs, armchairs, sofas, beds, stools and ottomans."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.random import Generator

from pano3d.data.rooms.family import Family
from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import Interval, ObjectMesh


def build_dining_chair(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    width, depth, seat = 0.44, 0.44, generator.uniform(0.44, 0.48)
    back = seat + generator.uniform(0.4, 0.5)
    frame = (style.wood_upright, style.metal, style.black, style.lacquer)[int(generator.integers(4))]
    if variant > 3:
        _assembled_chair(mesh, style, generator, variant, (width, depth, seat, back), style.repaint(frame))
        return
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
    cloth = style.recover(style.cloth)
    mesh.legs(x, y, (0, seat - 0.03), style.vary(0.035, 0.02, 0.05), frame, is_round=variant == 1)
    if variant == 1:
        mesh.cushion(x, y, (seat - 0.05, seat + 0.03), cloth, 0.03, 3)
    else:
        mesh.box(x, y, (seat - 0.03, seat), frame)
    post = (-depth / 2, -depth / 2 + 0.03)
    if variant == 1:
        mesh.cushion((x[0] + 0.02, x[1] - 0.02), (post[0] - 0.01, post[1] + 0.03), (seat + 0.1, back), cloth, 0.03, 3)
    for edge in (x[0], x[1] - 0.035):
        mesh.box((edge, edge + 0.035), post, (seat, back), frame)
    if variant == 0:
        for z in np.linspace(seat + 0.14, back - 0.06, 3):
            mesh.box(x, post, (z, z + 0.06), frame)
    if variant == 2:
        mesh.box(x, post, (back - 0.06, back), frame)
        for edge in np.linspace(x[0] + 0.07, x[1] - 0.09, 4):
            mesh.box((edge, edge + 0.02), post, (seat, back), frame)


def _chair_base(
    mesh: ObjectMesh, generator: Generator, width: float, depth: float, height: float, material: int
) -> None:
    """What carries a seat: square, turned or splayed legs, or a column on a disc or a cross."""
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    kind, thick = int(generator.integers(5)), generator.uniform(0.025, 0.05)
    if kind < 2:
        mesh.legs(x, y, (0, height), thick, material, is_round=kind == 1)
    elif kind == 2:
        for right in (-1, 1):
            for front in (-1, 1):
                foot, head = (right * width * 0.52, front * depth * 0.52), (right * width * 0.3, front * depth * 0.3)
                mesh.tube([(*foot, 0.0), (*head, height)], thick / 2, material)
    else:
        mesh.cylinder((0, 0), 0.03, (0.02, height), material, 8)
        if kind == 3:
            mesh.cylinder((0, 0), width * 0.5, (0, 0.02), material, 18)
        else:
            mesh.box(x, (-0.03, 0.03), (0, 0.03), material)
            mesh.box((-0.03, 0.03), y, (0, 0.03), material)


def _assembled_chair(
    mesh: ObjectMesh,
    style: Style,
    generator: Generator,
    variant: int,
    measures: tuple[float, float, float, float],
    frame: int,
) -> None:
    """A chair of a base, a seat, arms or none, and a back: 4 a board, 5 a hoop of bent wood, 6 an oval pad, 7 two
    posts with a woven panel. measures: width, depth, height of the seat and of the back."""
    width, depth, seat, back = measures
    cloth = style.recover(style.cloth)
    _chair_base(mesh, generator, width, depth, seat - 0.04, frame)
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    form = int(generator.integers(3))
    if form == 0:
        mesh.box(x, y, (seat - 0.04, seat), frame)
    elif form == 1:
        mesh.cushion(x, y, (seat - 0.07, seat + 0.02), cloth, 0.03, 3)
    else:
        mesh.cylinder((0, 0), width * 0.52, (seat - 0.05, seat), cloth if generator.random() < 0.5 else frame, 18)
    lean = generator.uniform(0.02, 0.09)
    behind = y[0] + 0.02
    if variant == 4:
        mesh.box((x[0] + 0.02, x[1] - 0.02), (behind - 0.015, behind + 0.015), (seat, back), frame)
    elif variant == 5:
        angle = np.linspace(0, np.pi, 11)
        hoop = [
            (0.47 * width * float(np.cos(a)), behind - lean, seat + (back - seat) * float(np.sin(a))) for a in angle
        ]
        mesh.tube([(0.47 * width, behind, seat), *hoop, (-0.47 * width, behind, seat)], 0.016, frame)
        for share in (-0.5, 0.0, 0.5):
            top = seat + (back - seat) * float(np.sqrt(1 - share**2))
            mesh.tube([(share * 0.47 * width, behind, seat), (share * 0.47 * width, behind - lean, top)], 0.01, frame)
    elif variant == 6:
        for side in (-0.1, 0.1):
            mesh.box((side - 0.015, side + 0.015), (behind - 0.02, behind + 0.01), (seat - 0.03, back - 0.2), frame)
        angle, rows = np.linspace(0, 2 * np.pi, 19), np.linspace(0.02, 1, 4)
        pad = np.empty((len(rows), len(angle), 3))
        pad[..., 0] = 0.24 * rows[:, None] * np.cos(angle)
        pad[..., 1] = behind + 0.02 - 0.02 * rows[:, None] ** 2
        pad[..., 2] = back - 0.18 + 0.18 * rows[:, None] * np.sin(angle)
        mesh.sheet(pad, cloth, 0.05)
    else:
        for edge in (x[0], x[1] - 0.03):
            mesh.box((edge, edge + 0.03), (behind - 0.02, behind + 0.01), (0, back), frame)
        mesh.box((x[0] + 0.03, x[1] - 0.03), (behind - 0.012, behind + 0.002), (seat + 0.12, back - 0.03), cloth)
        mesh.box((x[0] + 0.03, x[1] - 0.03), (behind - 0.02, behind + 0.01), (back - 0.03, back), frame)
    if generator.random() < 0.35:
        rest = seat + generator.uniform(0.18, 0.25)
        for side in (x[0] - 0.01, x[1] + 0.01):
            mesh.box((side - 0.02, side + 0.02), (behind, y[1] - 0.08), (rest - 0.025, rest), frame)
            mesh.box((side - 0.015, side + 0.015), (y[1] - 0.12, y[1] - 0.08), (seat - 0.04, rest - 0.025), frame)


def build_office_chair(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    seat = generator.uniform(0.45, 0.52)
    cloth = style.recover(style.black if generator.random() < 0.5 else style.cloth)
    if variant > 2:
        _visitor_chair(mesh, style, generator, seat, cloth, has_wheels=variant == 4)
        return
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


def _visitor_chair(
    mesh: ObjectMesh, style: Style, generator: Generator, seat: float, cloth: int, has_wheels: bool
) -> None:
    """A padded seat and a low curved back on four legs, or on a column with four wheels."""
    frame = style.repaint(style.metal)
    if has_wheels:
        mesh.cylinder((0, 0), 0.035, (0.06, seat - 0.05), frame, 10)
        for x, y in ((0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3)):
            mesh.tube([(0, 0, 0.13), (x, y, 0.06)], 0.025, frame)
            mesh.cylinder((x, y), 0.03, (0, 0.06), style.black, 8)
    else:
        _chair_base(mesh, generator, 0.5, 0.48, seat - 0.05, frame)
    mesh.cushion((-0.25, 0.25), (-0.24, 0.24), (seat - 0.07, seat + 0.03), cloth, 0.04)
    angle, rows = np.linspace(1.15 * np.pi, 1.85 * np.pi, 11), np.linspace(0, 1, 5)
    tall = generator.uniform(0.28, 0.5)
    shell = np.empty((len(rows), len(angle), 3))
    shell[..., 0] = 0.29 * np.cos(angle)[None]
    shell[..., 1] = (0.02 + 0.29 * np.sin(angle))[None] - 0.06 * rows[:, None]
    shell[..., 2] = seat + 0.12 + tall * rows[:, None]
    mesh.sheet(shell, cloth, 0.045)
    mesh.box((-0.03, 0.03), (-0.3, -0.26), (seat - 0.06, seat + 0.2), frame)


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


def _rolled_seat(mesh: ObjectMesh, style: Style, cloth: int, seats: int, width: float, depth: float) -> None:
    """Arms and back of one height that roll outwards, a quilted front."""
    total, roll = width + 0.36, 0.09
    left, height = -total / 2, 0.68
    mesh.legs((left + 0.04, -left - 0.04), (-depth / 2 + 0.04, depth / 2 - 0.04), (0, 0.1), 0.06, style.wood_dark, True)
    mesh.cushion((left + 0.05, -left - 0.05), (-depth / 2, depth / 2), (0.1, 0.32), cloth, 0.03, 7)
    mesh.box((left + 0.05, -left - 0.05), (-depth / 2, -depth / 2 + 0.16), (0.3, height), cloth)
    for side in (-1, 1):
        inner, outer = sorted((side * (-left - 0.05), side * (-left - 0.2)))
        mesh.box((inner, outer), (-depth / 2, depth / 2), (0.1, height), cloth)
        edge = side * (-left - 0.1)
        mesh.tube([(edge, -depth / 2, height), (edge, depth / 2, height)], roll, cloth, 10)
        mesh.cushion(
            (edge - roll, edge + roll), (depth / 2 - 0.02, depth / 2 + 0.01), (height - roll, height + roll), cloth
        )
    mesh.tube([(left + 0.1, -depth / 2 + 0.08, height), (-left - 0.1, -depth / 2 + 0.08, height)], roll, cloth, 10)
    step = width / seats
    for seat in range(seats):
        x = (-width / 2 + seat * step + 0.005, -width / 2 + (seat + 1) * step - 0.005)
        mesh.cushion(x, (-depth / 2 + 0.14, depth / 2 + 0.02), (0.3, 0.45), cloth, 0.04)


def _framed_seat(mesh: ObjectMesh, style: Style, cloth: int, seats: int, width: float, depth: float) -> None:
    """Loose cushions on an open frame of wood or metal."""
    frame = style.repaint(style.wood)
    x, y = (-width / 2 - 0.07, width / 2 + 0.07), (-depth / 2, depth / 2)
    mesh.legs(x, y, (0, 0.56), 0.05, frame)
    for edge in (x[0], x[1] - 0.05):
        mesh.box((edge, edge + 0.05), y, (0.56, 0.6), frame)
    mesh.box(x, (y[0] + 0.05, y[1] - 0.05), (0.24, 0.29), frame)
    for z in (0.42, 0.56, 0.7):
        mesh.box(x, (y[0], y[0] + 0.03), (z, z + 0.05), frame)
    step = width / seats
    for seat in range(seats):
        part = (-width / 2 + seat * step + 0.005, -width / 2 + (seat + 1) * step - 0.005)
        mesh.cushion(part, (y[0] + 0.05, y[1] + 0.01), (0.29, 0.44), cloth, 0.04)
        mesh.cushion(part, (y[0] + 0.03, y[0] + 0.17), (0.43, 0.84), cloth, 0.05)


def _platform_seat(mesh: ObjectMesh, style: Style, cloth: int, seats: int, width: float, depth: float) -> None:
    """A low upholstered block without arms; one long cushion, and backs that stand on it."""
    x, y = (-width / 2 - 0.04, width / 2 + 0.04), (-depth / 2, depth / 2)
    mesh.box(x, (y[0] + 0.03, y[1] - 0.03), (0, 0.07), style.black)
    mesh.cushion(x, y, (0.07, 0.27), cloth, 0.02, 7)
    mesh.cushion(x, (y[0], y[1] + 0.01), (0.27, 0.44), cloth, 0.06, 9)
    back = style.recover(cloth)
    step = (x[1] - x[0]) / seats
    for seat in range(seats):
        part = (x[0] + seat * step + 0.01, x[0] + (seat + 1) * step - 0.01)
        mesh.cushion(part, (y[0], y[0] + 0.22), (0.42, 0.74), back, 0.09)


_SEATS = (_rolled_seat, _framed_seat, _platform_seat)
"""Shapes 4, 5 and 6 of sofas and armchairs, in training rooms."""


def build_armchair(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    cloth = style.recover(style.cloth_second if generator.random() < 0.5 else style.cloth)
    if variant == 7:  # high back and wings
        half, depth = generator.uniform(0.34, 0.4), generator.uniform(0.7, 0.8)
        y = (-depth / 2, depth / 2)
        mesh.legs((-half, half), y, (0, 0.18), 0.045, style.wood_dark, is_round=True)
        mesh.cushion((-half, half), y, (0.16, 0.46), cloth, 0.05)
        mesh.cushion((-half, half), (y[0], y[0] + 0.16), (0.3, 1.08), cloth, 0.06)
        for x in ((-half, -half + 0.1), (half - 0.1, half)):
            mesh.cushion(x, (y[0], y[1] - 0.08), (0.3, 0.62), cloth, 0.04)
            mesh.cushion(x, (y[0], y[0] + 0.32), (0.55, 1.05), cloth, 0.04)
        return
    if variant > 3:
        _SEATS[variant - 4](mesh, style, cloth, 1, generator.uniform(0.5, 0.65), generator.uniform(0.68, 0.82))
        return
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
    cloth = style.recover(style.cloth)
    if variant > 3:
        _SEATS[variant - 4](mesh, style, cloth, seats, width, depth)
        return
    _soft_seat(mesh, style, cloth, seats, width, depth, min(variant, 2) if variant < 3 else 0)
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
    cover, second = style.recover(style.cloth), style.recover(style.cloth_second)
    if variant in (0, 3):
        mesh.box((x[0] - 0.03, x[1] + 0.03), head, (0, generator.uniform(0.85, 1.1)), frame)
    elif variant > 3:
        _bed_ends(mesh, generator, variant, (x, y), style.repaint(frame), second)
    elif variant == 1:
        mesh.box((x[0] - 0.03, x[1] + 0.03), head, (0.85, 0.93), frame)
        for edge in np.linspace(x[0] - 0.03, x[1] - 0.03, int(width / 0.18)):
            mesh.box((edge, edge + 0.06), head, (0, 0.85), upright)
    else:
        mesh.cushion((x[0] - 0.05, x[1] + 0.05), (y[0] - 0.13, y[0]), (0, 1.1), second, 0.05, 7)
    mesh.box((x[0] - 0.02, x[1] + 0.02), y, (0.12, 0.28), frame if variant != 2 else second)
    mesh.legs(x, y, (0, 0.12), 0.07, style.wood_dark)
    mesh.cushion(x, (y[0] + 0.01, y[1] - 0.02), (0.26, 0.47), style.recover(style.linen), 0.06, 9)
    rows, columns = 14, 17
    u, v = np.linspace(-1, 1, columns), np.linspace(0, 1, rows)
    reach = width / 2 + 0.03
    fall, start = style.vary(0.22, 0.05, 0.4), style.vary(0.62, 0.4, 1.2)
    across = np.clip(u * (reach + fall), -reach, reach)
    drop = np.maximum(np.abs(u) * (reach + fall) - reach, 0)
    blanket = np.empty((rows, columns, 3))
    blanket[..., 0] = across[None]
    blanket[..., 1] = (y[0] + start + v * (length - (start - 0.02)))[:, None]
    wave = 0.008 * np.sin(v * 19 + 2)[:, None] * np.cos(u * 7)[None]
    blanket[..., 2] = 0.495 + wave - drop[None] - 0.02 * (np.abs(u) > 0.75)[None]
    mesh.sheet(blanket, cover, 0.03)
    fold = (y[0] + (start - 0.07), y[0] + (start + 0.18))
    mesh.cushion((x[0] - 0.02, x[1] + 0.02), fold, (0.485, 0.53), second, 0.02, 7)


def _bed_ends(
    mesh: ObjectMesh, generator: Generator, variant: int, base: tuple[Interval, Interval], frame: int, cloth: int
) -> None:
    """Head and foot of a bed: 4 padded panels, 5 metal bars, 6 a case with a shelf behind the head and a board at the
    feet, 7 none but a plinth."""
    x, y = base
    tall = generator.uniform(0.8, 1.2)
    if variant == 4:
        edges = np.linspace(x[0] - 0.05, x[1] + 0.05, int(generator.integers(3, 6)))
        for left, right in pairwise(edges):
            mesh.cushion((float(left) + 0.005, float(right) - 0.005), (y[0] - 0.09, y[0]), (0.1, tall), cloth, 0.03)
    elif variant == 5:
        for end, top in ((y[0] - 0.03, tall), (y[1] + 0.01, tall * 0.65)):
            mesh.tube([(x[0], end, 0), (x[0], end, top), (x[1], end, top), (x[1], end, 0)], 0.018, frame)
            for edge in np.linspace(x[0], x[1], 7)[1:-1]:
                mesh.tube([(float(edge), end, 0.3), (float(edge), end, top)], 0.009, frame)
    elif variant == 6:
        mesh.box((x[0] - 0.04, x[1] + 0.04), (y[0] - 0.2, y[0]), (0, tall * 0.85), frame)
        mesh.box((x[0] - 0.04, x[1] + 0.04), (y[1], y[1] + 0.04), (0, 0.55), frame)
        for edge in (x[0] - 0.04, x[1] + 0.01):
            mesh.box((edge, edge + 0.03), y, (0, 0.36), frame)
    else:
        mesh.box((x[0] + 0.02, x[1] - 0.02), (y[0] + 0.02, y[1] - 0.02), (0, 0.13), frame)


def build_pillow(mesh: ObjectMesh, style: Style, generator: Generator, variant: int) -> None:
    size = ((0.62, 0.38), (0.45, 0.42), (0.7, 0.3))[variant]
    cloth = style.recover(style.linen if variant == 0 else style.cloth_second)
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
    cloth = style.recover(style.cloth_second)
    if variant == 0:
        mesh.cushion((-0.3, 0.3), (-0.3, 0.3), (0.03, height), cloth, 0.06)
    elif variant == 1:
        mesh.lathe([(0.0, 0.0), (0.26, 0.01), (0.32, height * 0.5), (0.26, height), (0.0, height + 0.02)], cloth)
    elif variant > 2:  # a bench, or a square pad, on legs
        half = 0.5 if variant == 3 else 0.27
        mesh.legs((-half, half), (-0.2, 0.2), (0, height - 0.12), 0.04, style.repaint(style.wood_dark), variant == 4)
        mesh.cushion((-half, half), (-0.22, 0.22), (height - 0.14, height), cloth, 0.05)
    else:  # a bean bag
        profile = [(0.0, 0.0), (0.38, 0.02), (0.44, 0.22), (0.36, 0.45), (0.2, 0.66), (0.07, 0.76), (0.0, 0.77)]
        mesh.lathe(profile, style.cloth)


DINING_CHAIR = Family("dining chair", "chair", build_dining_chair, 4, extra=4)
OFFICE_CHAIR = Family("office chair", "chair", build_office_chair, 3, extra=2)
ARMCHAIR = Family("armchair", "chair", build_armchair, 4, extra=4)
SOFA = Family("sofa", "sofa", build_sofa, 4, extra=3, is_stretched_up=False)
BED = Family("bed", "bed", build_bed, 4, extra=4, is_stretched_up=False)
PILLOW = Family("pillow", "pillow", build_pillow, 3)
STOOL = Family("stool", "otherprop", build_stool, 3)
OTTOMAN = Family("ottoman", "otherfurniture", build_ottoman, 3, extra=2)
