"""Six kinds of room: their openings, lights and furniture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pano3d.data.rooms import decor, seating, storage, tables, wetrooms
from pano3d.data.rooms.family import Family, draw_variant
from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.plan import Lamp, RoomPlan
from pano3d.data.rooms.primitives import ObjectMesh
from pano3d.data.rooms.shell import (
    CEILING_LAMP_EXTRA,
    CEILING_LAMP_VARIANTS,
    DOOR_EXTRA,
    DOOR_VARIANTS,
    FLAT_CEILING_LAMPS,
    GLAZED_DOORS,
    WINDOW_EXTRA,
    WINDOW_VARIANTS,
    Opening,
    RoomSize,
    build_ceiling_lamp,
    build_door,
    build_slab,
    build_wall,
    build_window,
    placement,
)

ROOM_KINDS = ("living_room", "bedroom", "kitchen", "bathroom", "office", "studio")
_SIZES = {
    "living_room": ((4.2, 5.4), (3.8, 4.8)),
    "bedroom": ((3.6, 4.4), (3.3, 4.2)),
    "kitchen": ((3.3, 4.4), (3.0, 3.8)),
    "bathroom": ((2.6, 3.3), (2.3, 3.0)),
    "office": ((3.5, 4.6), (3.3, 4.3)),
    "studio": ((4.8, 6.0), (4.2, 5.0)),
}
_WARM = np.array([1.0, 0.82, 0.6])


def plan_room(kind: str, generator: Generator, is_held_out: bool, cell: float) -> RoomPlan:
    """Draw a whole room. Objects 0, 1, 2 are the walls, the floor and the ceiling."""
    across, along = _SIZES[kind]
    size = RoomSize(generator.uniform(*across), generator.uniform(*along), generator.uniform(2.45, 2.8))
    style = Style(generator, is_held_out)
    plan = RoomPlan(kind, size, style, generator, cell)
    _cut_openings(plan)
    _build_shell(plan)
    _FURNISH[kind](plan)
    _ceiling_lamp(plan)
    return plan


def _cut_openings(plan: RoomPlan) -> None:
    generator, size = plan.generator, plan.size
    held_out = plan.style.is_held_out
    is_wet = plan.kind in ("kitchen", "bathroom")
    walls = [int(w) for w in generator.permutation(4)]
    door_wall = walls[0]
    variant = draw_variant(generator, DOOR_VARIANTS, DOOR_EXTRA, held_out)
    if plan.kind == "bathroom" and variant in GLAZED_DOORS:
        variant = 1
    width = generator.uniform(0.8, 0.95)
    start = generator.uniform(0.12, 0.5) if generator.random() < 0.7 else size.wall_length(door_wall) - width - 0.2
    plan.openings.append(
        Opening("door", door_wall, (start, start + width), (0.0, generator.uniform(2.0, 2.1)), variant)
    )
    count = 1 if is_wet or plan.kind == "bedroom" else int(generator.integers(1, 3))
    for wall in walls[1 : 1 + count]:
        length = size.wall_length(wall)
        width = generator.uniform(0.9, 1.2) if is_wet else generator.uniform(1.2, min(2.2, length - 1.2))
        low = 1.15 if is_wet else float(generator.choice([0.5, 0.85, 0.9]))
        start = (length - width) * generator.uniform(0.3, 0.7)
        variant = draw_variant(generator, WINDOW_VARIANTS, WINDOW_EXTRA, held_out)
        top = generator.uniform(2.05, min(2.3, size.height - 0.2))
        plan.openings.append(Opening("window", wall, (start, start + width), (low, top), variant))


def _build_shell(plan: RoomPlan) -> None:
    style, size, generator = plan.style, plan.size, plan.generator
    is_wet = plan.kind in ("kitchen", "bathroom")
    accent_wall = int(generator.integers(4))
    plain = style.draw_wall(is_accent=False)
    accent = style.draw_wall(is_accent=True)
    tiled = style.draw_wall_tiles() if plan.kind == "bathroom" else plain
    walls = ObjectMesh(plan.cell)
    merged = []
    for wall in range(4):
        mesh = ObjectMesh(plan.cell)
        face = accent if wall == accent_wall and plan.kind != "bathroom" else tiled
        holes = [o for o in plan.openings if o.wall == wall]
        build_wall(mesh, size.wall_length(wall), size.height, holes, face, style.white)
        merged.append((mesh, size.scan_from_wall(wall)))
    for mesh, pose in merged:
        part = mesh.arrays()
        vertices = part.vertices @ pose[:3, :3].T.astype(np.float32) + pose[:3, 3].astype(np.float32)
        normals = part.normals @ pose[:3, :3].T.astype(np.float32)
        for material in np.unique(part.material):
            walls.add(vertices, normals, part.triangles[part.material == material], int(material))
    plan.put("wall", walls, np.eye(4))
    floor, ceiling = ObjectMesh(plan.cell), ObjectMesh(plan.cell)
    build_slab(floor, size, (-0.1, 0.0), style.draw_floor(is_wet))
    build_slab(ceiling, size, (size.height, size.height + 0.1), style.ceiling)
    plan.put("floor", floor, np.eye(4))
    plan.put("ceiling", ceiling, np.eye(4))
    for opening in plan.openings:
        mesh = ObjectMesh(plan.cell)
        pose = size.scan_from_wall(opening.wall)
        if opening.kind == "window":
            build_window(mesh, style, opening)
        else:
            build_door(mesh, style, generator, opening)
            swing = np.array([opening.span[0], 0.0, 0.0]), np.array([opening.span[1], 0.8, 2.0])
            plan.kept.append(plan.footprint(*swing, pose))
        plan.put(opening.kind, mesh, pose)


def _ceiling_lamp(plan: RoomPlan) -> None:
    generator, size = plan.generator, plan.size
    variant = draw_variant(generator, CEILING_LAMP_VARIANTS, CEILING_LAMP_EXTRA, plan.style.is_held_out)
    drop = generator.uniform(0.35, 0.55)
    mesh = ObjectMesh(plan.cell)
    build_ceiling_lamp(mesh, plan.style, variant, drop)
    x = size.width / 2 + generator.uniform(-0.3, 0.3)
    y = size.depth / 2 + generator.uniform(-0.3, 0.3)
    plan.put("lamp", mesh, placement(x, y, size.height, 0.0))
    z = size.height - (0.14 if variant in FLAT_CEILING_LAMPS else drop + 0.05)
    power = generator.uniform(0.6, 1.1) * (0.5 + 0.07 * size.width * size.depth)
    plan.lamps.append(Lamp(np.array([x, y, z]), power * (0.4 + 0.6 * _WARM), 0.16))


def _stand_lamp(plan: RoomPlan, family: Family, pose: NDArray[Any] | None, height: float) -> None:
    """Light up a lamp that has been placed."""
    if pose is not None:
        plan.lamps.append(Lamp(pose[:3, 3] + [0, 0, height], 0.35 * _WARM, 0.1))


def _floor_lamp(plan: RoomPlan) -> None:
    pose = plan.family_against_wall(decor.FLOOR_LAMP, clearance=0.0)
    _stand_lamp(plan, decor.FLOOR_LAMP, pose, 1.4)


def _curtains(plan: RoomPlan, chance: float) -> None:
    for opening in plan.openings:
        if opening.kind != "window" or plan.generator.random() > chance:
            continue
        width = opening.span[1] - opening.span[0]
        variant = draw_variant(plan.generator, decor.CURTAIN_VARIANTS, decor.CURTAIN_EXTRA, plan.style.is_held_out)
        middle = (opening.span[0] + opening.span[1]) / 2
        pose = plan.size.scan_from_wall(opening.wall) @ placement(middle, 0.0, 0.0, 0.0)
        cloths = decor.build_curtains(plan.style, plan.generator, width, opening.height, variant, plan.cell)
        for mesh in cloths:
            solid = plan.footprint(*mesh.bounds(), pose)
            if not any(solid.meets(other) for other in plan.solid):
                plan.put("curtain", mesh, pose)
                plan.solid.append(solid)


def _pictures(plan: RoomPlan, count: int) -> None:
    for _ in range(count):
        plan.hang(decor.PICTURE, plan.generator.uniform(1.5, 1.65))


def _radiator(plan: RoomPlan) -> None:
    """Under a window with a sill high enough."""
    for opening in plan.openings:
        if opening.kind == "window" and opening.height[0] > 0.75 and plan.generator.random() < 0.7:
            middle = (opening.span[0] + opening.span[1]) / 2
            pose = plan.size.scan_from_wall(opening.wall) @ placement(middle, 0.0, 0.0, 0.0)
            plan.beside(decor.RADIATOR, pose, (0.0, 0.0), 0.0, margin=0.001)


def _rug(plan: RoomPlan, x: float, y: float, yaw: float) -> None:
    plan.on_top(decor.RUG, placement(x, y, 0.0, yaw), (0.0, 0.0), 0.0, 0.0)


def _table_with_chairs(plan: RoomPlan, centre: tuple[float, float]) -> None:
    generator = plan.generator
    yaw = float(generator.integers(2)) * np.pi / 2
    pose = plan.in_the_open(tables.DINING_TABLE, centre, yaw)
    if pose is None:
        return
    high = plan.objects[-1].mesh.bounds()[1]
    own = plan.solid.pop()
    width, depth = float(high[0]), float(high[1])
    seats = [(-width / 2, depth), (width / 2, depth), (-width / 2, -depth), (width / 2, -depth)]
    # Sides: chairs face the table; some are pulled out or turned.
    for x, y in seats[: int(generator.integers(2, 5))]:
        out = generator.uniform(0.08, 0.3) * np.sign(y)
        turn = (np.pi if y > 0 else 0.0) + generator.normal() * 0.15
        plan.beside(seating.DINING_CHAIR, pose, (x * 0.9, y + out), turn, margin=0.04)
    plan.solid.append(own)
    for _ in range(int(generator.integers(1, 4))):
        spot = (generator.uniform(-0.5, 0.5) * width, generator.uniform(-0.5, 0.5) * depth)
        plan.on_top(decor.CUP, pose, spot, float(high[2]), 0.0)


def _workplace(plan: RoomPlan) -> None:
    generator = plan.generator
    pose = plan.family_against_wall(tables.DESK, clearance=0.8)
    if pose is None:
        return
    top = float(plan.objects[-1].mesh.bounds()[1][2])
    plan.on_top(decor.MONITOR, pose, (generator.uniform(-0.25, 0.1), -0.12), top, generator.normal() * 0.1)
    plan.on_top(decor.KEYBOARD, pose, (-0.05, 0.14), top, generator.normal() * 0.05)
    plan.on_top(decor.CUP, pose, (0.38, generator.uniform(-0.1, 0.1)), top, 0.0)
    if generator.random() < 0.5:
        lamp = plan.on_top(decor.TABLE_LAMP, pose, (0.45, -0.15), top, 0.0)
        _stand_lamp(plan, decor.TABLE_LAMP, lamp, 0.33)
    plan.beside(
        seating.OFFICE_CHAIR,
        pose,
        (generator.uniform(-0.2, 0.2), generator.uniform(0.5, 0.7)),
        np.pi + generator.normal() * 0.5,
        0.1,
    )


def _sleeping_place(plan: RoomPlan) -> None:
    pose = plan.family_against_wall(seating.BED, clearance=0.5)
    if pose is None:
        return
    low, high = plan.objects[-1].mesh.bounds()
    head = float(low[1]) + 0.32
    places = (0.0,) if high[0] < 0.6 else (-float(high[0]) / 2, float(high[0]) / 2)
    for x in places:
        plan.on_top(seating.PILLOW, pose, (x, head), 0.46, plan.generator.normal() * 0.08)
    for side in (-1, 1):
        spot = (side * (float(high[0]) + 0.3), float(low[1]) + 0.28)
        if plan.beside(storage.NIGHT_STAND, pose, spot, 0.0):
            placed = plan.objects[-1]
            top = float(placed.mesh.bounds()[1][2])
            if plan.generator.random() < 0.65:
                lamp = plan.on_top(decor.TABLE_LAMP, placed.scan_from_object, (0.0, 0.0), top, 0.0)
                _stand_lamp(plan, decor.TABLE_LAMP, lamp, 0.33)
    plan.hang(decor.PICTURE, 1.6, over=pose)


def _sitting_corner(plan: RoomPlan) -> None:
    generator = plan.generator
    pose = plan.family_against_wall(seating.SOFA, clearance=1.0)
    if pose is None:
        return
    high = plan.objects[-1].mesh.bounds()[1]
    for x in (-0.45, 0.45):
        if generator.random() < 0.7:
            plan.on_top(seating.PILLOW, pose, (x, 0.0), 0.45, generator.normal() * 0.4)
    plan.hang(decor.PICTURE, 1.55, over=pose)
    front = 0.42 + 0.55
    if plan.beside(tables.COFFEE_TABLE, pose, (generator.uniform(-0.15, 0.15), front), generator.normal() * 0.05):
        table = plan.objects[-1]
        for _ in range(2):
            spot = (generator.uniform(-0.25, 0.25), generator.uniform(-0.15, 0.15))
            plan.on_top(decor.CUP, table.scan_from_object, spot, float(table.mesh.bounds()[1][2]), 0.0)
    centre = pose @ [0, front, 0, 1]
    _rug(plan, float(centre[0]), float(centre[1]), float(np.arctan2(pose[1, 0], pose[0, 0])))
    for side in (-1, 1):
        plan.beside(
            seating.ARMCHAIR, pose, (side * (float(high[0]) + 0.45), front + 0.15), side * np.pi / 2, margin=0.05
        )


def _television(plan: RoomPlan) -> None:
    pose = plan.family_against_wall(storage.TV_STAND, clearance=0.6)
    if pose is not None:
        top = float(plan.objects[-1].mesh.bounds()[1][2])
        plan.on_top(decor.TELEVISION, pose, (0.0, 0.0), top, 0.0)


def _kitchen(plan: RoomPlan, width: float) -> None:
    generator, size = plan.generator, plan.size
    closed = {o.wall for o in plan.openings}
    walls = [w for w in range(4) if w not in closed] or list(range(4))
    width = min(width, min(size.wall_length(w) for w in walls) - 0.9)
    variant = draw_variant(generator, wetrooms.KITCHEN_RUN_VARIANTS, wetrooms.KITCHEN_RUN_EXTRA, plan.style.is_held_out)
    run = wetrooms.build_kitchen_run(plan.style, generator, width, variant, plan.cell)
    pose = plan.against_wall(run, walls, gap=0.0, clearance=0.6, tries=80)
    if pose is None:
        # The wall units keep the run off windows: try without them.
        pose = plan.against_wall([p for p in run if p[1].bounds()[1][2] < 1.1], gap=0.0, clearance=0.4, tries=80)
    if pose is not None:
        plan.on_top(decor.CUP, pose, (-width / 2 + 0.3, 0.05), 0.9, 0.0)
        plan.on_top(decor.CUP, pose, (width / 2 - 0.25, -0.1), 0.9, 0.0)
    plan.family_against_wall(wetrooms.REFRIGERATOR, clearance=0.5)


def _furnish_living_room(plan: RoomPlan) -> None:
    _sitting_corner(plan)
    _television(plan)
    _curtains(plan, 0.9)
    plan.family_against_wall(storage.BOOKSHELF)
    plan.family_against_wall(storage.CABINET)
    _table_with_chairs(plan, (plan.size.width * 0.7, plan.size.depth * 0.3))
    _floor_lamp(plan)
    plan.family_against_wall(decor.PLANT, clearance=0.0)
    plan.family_against_wall(seating.ARMCHAIR)
    plan.family_against_wall(tables.SIDE_TABLE, clearance=0.1)
    plan.family_against_wall(seating.OTTOMAN, clearance=0.0)
    _radiator(plan)
    _pictures(plan, 3)
    plan.hang(decor.MIRROR, 1.5)


def _furnish_bedroom(plan: RoomPlan) -> None:
    _sleeping_place(plan)
    _curtains(plan, 1.0)
    plan.family_against_wall(storage.WARDROBE, clearance=0.5)
    dresser = plan.family_against_wall(storage.DRESSER)
    if dresser is not None:
        plan.hang(decor.MIRROR, 1.55, over=dresser)
    if plan.generator.random() < 0.6:
        _workplace(plan)
    plan.family_against_wall(storage.BOOKSHELF)
    plan.family_against_wall(seating.ARMCHAIR)
    plan.family_against_wall(storage.CABINET)
    _rug(plan, plan.size.width / 2, plan.size.depth / 2, 0.0)
    plan.family_against_wall(decor.PLANT, clearance=0.0)
    _radiator(plan)
    _pictures(plan, 2)
    plan.hang(decor.MIRROR, 1.5)


def _furnish_kitchen(plan: RoomPlan) -> None:
    _kitchen(plan, plan.generator.uniform(2.0, 2.9))
    _curtains(plan, 0.5)
    plan.family_against_wall(wetrooms.STOVE, clearance=0.5)
    plan.family_against_wall(storage.CABINET)
    _table_with_chairs(plan, (plan.size.width * 0.5, plan.size.depth * 0.5))
    plan.family_against_wall(seating.STOOL, clearance=0.0)
    plan.family_against_wall(decor.PLANT, clearance=0.0)
    _radiator(plan)
    _pictures(plan, 3)


def _furnish_bathroom(plan: RoomPlan) -> None:
    generator = plan.generator
    pose = plan.family_against_wall(wetrooms.BATHTUB, clearance=0.5)
    if pose is not None:
        front = float(plan.objects[-1].mesh.bounds()[1][1])
        plan.on_top(wetrooms.SHOWER_CURTAIN, pose, (0.0, front + 0.07), 0.0, 0.0)
        plan.solid.append(plan.footprint(np.array([-0.8, front, 0.2]), np.array([0.8, front + 0.13, 2.0]), pose))
    variant = draw_variant(generator, wetrooms.VANITY_VARIANTS, wetrooms.VANITY_EXTRA, plan.style.is_held_out)
    vanity = plan.against_wall(wetrooms.build_vanity(plan.style, generator, variant, plan.cell), gap=0.0, tries=80)
    if vanity is not None:
        plan.hang(decor.MIRROR, 1.55, over=vanity)
    plan.family_against_wall(wetrooms.TOILET, clearance=0.4)
    plan.family_against_wall(storage.CABINET, clearance=0.3)
    _curtains(plan, 0.4)
    if pose is not None:
        plan.on_top(decor.FLOOR_MAT, pose, (0.0, 0.75), 0.0, 0.0)
    plan.family_against_wall(seating.STOOL, clearance=0.0)
    plan.hang(decor.TOWEL, 0.0)
    _radiator(plan)
    _pictures(plan, 1)


def _furnish_office(plan: RoomPlan) -> None:
    _workplace(plan)
    _workplace(plan)
    plan.family_against_wall(storage.BOOKSHELF)
    plan.family_against_wall(storage.CABINET)
    plan.hang(decor.WHITEBOARD, 1.45)
    _curtains(plan, 0.5)
    plan.family_against_wall(storage.BOOKSHELF)
    if plan.generator.random() < 0.5:
        plan.family_against_wall(seating.SOFA, clearance=0.5)
    plan.family_against_wall(seating.ARMCHAIR)
    plan.family_against_wall(tables.SIDE_TABLE, clearance=0.1)
    plan.family_against_wall(decor.PLANT, clearance=0.0)
    _floor_lamp(plan)
    _radiator(plan)
    _pictures(plan, 2)


def _furnish_studio(plan: RoomPlan) -> None:
    _kitchen(plan, plan.generator.uniform(1.8, 2.4))
    _sleeping_place(plan)
    _sitting_corner(plan)
    _curtains(plan, 0.9)
    _workplace(plan)
    _television(plan)
    plan.family_against_wall(storage.WARDROBE, clearance=0.4)
    plan.family_against_wall(storage.BOOKSHELF)
    _table_with_chairs(plan, (plan.size.width * 0.5, plan.size.depth * 0.5))
    _floor_lamp(plan)
    plan.family_against_wall(decor.PLANT, clearance=0.0)
    _radiator(plan)
    _pictures(plan, 3)
    plan.hang(decor.MIRROR, 1.5)


_FURNISH: dict[str, Callable[[RoomPlan], None]] = {
    "living_room": _furnish_living_room,
    "bedroom": _furnish_bedroom,
    "kitchen": _furnish_kitchen,
    "bathroom": _furnish_bathroom,
    "office": _furnish_office,
    "studio": _furnish_studio,
}
