"""A family of furniture: one class, one builder, several shapes of which one is kept for validation and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import ObjectMesh

Builder = Callable[[ObjectMesh, Style, Generator, int], None]

_STRETCH = (0.87, 1.18)


@dataclass(frozen=True)
class Family:
    """source_class: NYU40 name. variants: shapes of held-out rooms, the last of which is theirs alone; extra: shapes
    numbered after them, of training rooms alone, so that more of them leave the held-out rooms as they were.
    is_stretched_up: whether training rooms may change its height (not where things lie on it at a fixed one).
    """

    name: str
    source_class: str
    build: Builder
    variants: int = 3
    extra: int = 0
    is_stretched_up: bool = True


def draw_variant(generator: Generator, variants: int, extra: int, is_held_out: bool) -> int:
    """Number of a shape: training rooms never draw `variants - 1`, held-out rooms draw it half of the time."""
    if is_held_out:
        is_reserved = bool(generator.random() < 0.5)
        usual = int(generator.integers(max(1, variants - 1)))
        return variants - 1 if is_reserved else usual
    drawn = int(generator.integers(variants - 1 + extra))
    return drawn if drawn < variants - 1 else drawn + 1


def build_family(family: Family, style: Style, generator: Generator, cell: float) -> ObjectMesh:
    """A fresh piece of the family in its own frame; in training rooms longer, deeper or higher than built."""
    mesh = ObjectMesh(cell)
    variant = draw_variant(generator, family.variants, family.extra, style.is_held_out)
    family.build(mesh, style, generator, variant)
    if not style.is_held_out:
        x, y, z = (float(v) for v in generator.uniform(*_STRETCH, 3))
        mesh.stretch(x, y, z if family.is_stretched_up else 1.0)
    return mesh
