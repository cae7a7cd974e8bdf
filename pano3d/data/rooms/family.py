"""A family of furniture: one class, one builder, several variants of which the last is kept for validation and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from pano3d.data.rooms.materials import Style
from pano3d.data.rooms.primitives import ObjectMesh

Builder = Callable[[ObjectMesh, Style, Generator, int], None]


@dataclass(frozen=True)
class Family:
    """source_class: NYU40 name. variants: how many shapes the builder knows."""

    name: str
    source_class: str
    build: Builder
    variants: int = 3

    def draw_variant(self, generator: Generator, is_held_out: bool) -> int:
        """Training scenes never draw the last variant; held-out scenes draw it half of the time."""
        is_reserved = bool(generator.random() < 0.5)
        usual = int(generator.integers(max(1, self.variants - 1)))
        return self.variants - 1 if is_held_out and is_reserved else usual


def build_family(family: Family, style: Style, generator: Generator, cell: float) -> ObjectMesh:
    """A fresh piece of the family in its own frame."""
    mesh = ObjectMesh(cell)
    family.build(mesh, style, generator, family.draw_variant(generator, style.is_held_out))
    return mesh
