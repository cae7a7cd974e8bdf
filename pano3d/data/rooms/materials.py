"""Materials and the style of one room: which woods, cloths, paints and floors go together.

Palettes and texture families in the `RESERVED` lists appear only in validation and test scenes; what `TRAINING` lists
and `Style.vary` add appears only in training scenes, so that more of it leaves the held-out rooms as they were.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Color = tuple[float, float, float]

KINDS = (
    "plain", "paint", "wood", "planks", "tiles", "fabric", "stripes", "plaid", "marble", "rug", "picture", "screen",
    "spine", "leaf", "dots", "zigzag", "checker", "brick", "waves", "blotches", "lattice", "terrazzo", "basket",
    "hexagons", "glass", "mirror",
)  # fmt: skip
_KIND_INDEX = {kind: index for index, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Material:
    """A solid texture in the object's own frame.

    color, second: linear RGB albedo. scale: pattern period in metres. size: extent (x, z or y) of the pattern for
    rugs, pictures and screens. gloss: reflectance at normal incidence. emission: radiance that a lamp shows.
    """

    kind: str
    color: Color
    second: Color = (0.0, 0.0, 0.0)
    scale: float = 0.1
    size: tuple[float, float] = (1.0, 1.0)
    axis: int = 0
    seed: int = 0
    gloss: float = 0.0
    emission: float = 0.0
    is_ambiguous: bool = False


@dataclass
class MaterialTable:
    """All materials of a scene; equal ones share an index."""

    materials: list[Material] = field(default_factory=list)
    _index: dict[Material, int] = field(default_factory=dict)

    def add(self, material: Material) -> int:
        if material not in self._index:
            self._index[material] = len(self.materials)
            self.materials.append(material)
        return self._index[material]

    def columns(self) -> MaterialColumns:
        """The table as arrays, one row per material."""
        rows = self.materials
        color = np.array([m.color for m in rows], np.float32)
        second = np.array([m.second for m in rows], np.float32)
        blend = np.array([_SECOND_SHARE.get(m.kind, 0.0) for m in rows], np.float32)[:, None]
        return MaterialColumns(
            kind=np.array([_KIND_INDEX[m.kind] for m in rows], np.int32),
            color=color,
            second=second,
            mean=color * (1 - blend) + second * blend,
            scale=np.array([m.scale for m in rows], np.float32),
            size=np.array([m.size for m in rows], np.float32),
            axis=np.array([m.axis for m in rows], np.int32),
            seed=np.array([m.seed for m in rows], np.int32),
            gloss=np.array([m.gloss for m in rows], np.float32),
            emission=np.array([m.emission for m in rows], np.float32),
            is_ambiguous=np.array([m.is_ambiguous for m in rows], bool),
        )


_SECOND_SHARE = {"wood": 0.4, "planks": 0.4, "tiles": 0.1, "stripes": 0.5, "plaid": 0.4, "marble": 0.2, "rug": 0.4,
                 "picture": 0.5, "dots": 0.3, "zigzag": 0.5, "checker": 0.5, "brick": 0.15,
                 "waves": 0.5, "blotches": 0.5, "lattice": 0.15, "terrazzo": 0.35, "basket": 0.5,
                 "hexagons": 0.1}  # fmt: skip


@dataclass(frozen=True)
class MaterialColumns:
    """`MaterialTable` as arrays over materials; `mean` is the albedo that indirect light sees."""

    kind: NDArray[np.int32]
    color: NDArray[np.float32]
    second: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    size: NDArray[np.float32]
    axis: NDArray[np.int32]
    seed: NDArray[np.int32]
    gloss: NDArray[np.float32]
    emission: NDArray[np.float32]
    is_ambiguous: NDArray[np.bool_]


@dataclass(frozen=True)
class Palette:
    """sRGB colours of a room: walls, accent wall, two cloths, wood light and dark, lacquer."""

    wall: str
    accent: str
    cloth: str
    cloth_second: str
    wood: str
    wood_dark: str
    lacquer: str


PALETTES = (
    Palette("#e9e2d3", "#a8b8a0", "#5d7a8c", "#e8dcc6", "#b98a57", "#8a5f36", "#f2efe9"),
    Palette("#dfe6ea", "#6f8fa8", "#33506b", "#d9c7a3", "#c9a476", "#9c764b", "#ffffff"),
    Palette("#f0ead8", "#c98f5f", "#a14f38", "#efe1c4", "#8f5e38", "#5c3a22", "#d9cdb8"),
    Palette("#e4e4e0", "#8d8f8c", "#6d6f73", "#c9b037", "#7b5a3e", "#4d3726", "#3c4248"),
    Palette("#efe3de", "#c48a8f", "#8c5563", "#e9d6cf", "#d4b48c", "#a98258", "#f4ece6"),
    Palette("#e6ead9", "#7d9160", "#596f42", "#dfd6b4", "#a67b4b", "#7a5731", "#e9e7d8"),
    Palette("#ece8e1", "#b7a894", "#7a6a5b", "#b9cbd0", "#caa27a", "#6b4c34", "#6d8a8a"),
    Palette("#dde3df", "#4f7a78", "#c9793f", "#e4ddce", "#9a6c42", "#6e4a2c", "#e8e8e4"),
)
RESERVED_PALETTES = (
    Palette("#e7e0ee", "#7f6fa3", "#5a4a86", "#dccfe6", "#bd9468", "#7f5b3a", "#eceaf2"),
    Palette("#f3e9c9", "#d8a93a", "#2f6d7a", "#f0dca0", "#a8774a", "#55351f", "#f6f1df"),
    Palette("#d9e4e6", "#3f5f5f", "#b5524a", "#d2dfd9", "#c4a584", "#7d6046", "#2f4550"),
)
RESERVED_SHARE = 0.35
"""How often a held-out room draws from a reserved list, per choice: new looks, but not a world of its own."""
CLOTHS = ("fabric", "fabric", "stripes", "plaid")
RESERVED_CLOTHS = ("zigzag", "dots")
TRAINING_CLOTHS = (*CLOTHS, "plain", "waves", "blotches", "lattice", "terrazzo")
FLOORS = ("planks", "planks", "fabric", "tiles")
RESERVED_FLOORS = ("checker", "planks")
TRAINING_FLOORS = (*FLOORS, "basket", "hexagons", "terrazzo", "marble", "wood", "paint")
WALLS = ("paint", "paint", "paint", "stripes")
RESERVED_WALLS = ("brick", "dots", "paint")
TRAINING_WALLS = (*WALLS, "waves", "blotches", "lattice", "planks", "hexagons", "tiles", "terrazzo", "plaid")
TRAINING_PICTURES = ("picture", "picture", "picture", "blotches", "waves", "terrazzo", "plaid", "spine")
TRAINING_RUGS = ("rug", "rug", "fabric", "stripes", "plaid", "blotches", "waves", "lattice")
_NEW_SHARE = 0.5
"""How often a training room, or a piece in it, takes colours and cloth of its own instead of the usual ones."""


def linear(text: str, factor: float = 1.0) -> Color:
    """Linear RGB albedo of a `#rrggbb` sRGB colour."""
    values = [(int(text[i : i + 2], 16) / 255) ** 2.2 * factor for i in (1, 3, 5)]
    return (values[0], values[1], values[2])


def mix(first: Color, second: Color, share: float) -> Color:
    a, b, c = ((1 - share) * x + share * y for x, y in zip(first, second, strict=True))
    return (a, b, c)


def _rgb(hue: float, saturation: float, value: float) -> str:
    return "#" + "".join(f"{round(255 * v):02x}" for v in colorsys.hsv_to_rgb(hue % 1, saturation, value))


def draw_palette(generator: Generator) -> Palette:
    """Any walls and cloths, woods from pale birch to wenge or painted, lacquer pale, dark or bright."""
    hues, depths, lights = generator.random(4), generator.random(4) ** 1.5, generator.uniform(size=6)
    wood_hue, wood_depth = generator.uniform(0.04, 0.11), generator.uniform(0.25, 0.65)
    if generator.random() < 0.15:
        wood_depth *= 0.2
    wood_light = float(lights[4]) ** 0.7
    lacquer = (0.03, 0.95) if generator.random() < 0.5 else (0.6 * float(depths[3]), 0.2 + 0.7 * float(lights[3]))
    return Palette(
        wall=_rgb(hues[0], 0.25 * depths[0], 0.75 + 0.22 * lights[0]),
        accent=_rgb(hues[1], 0.75 * depths[1], 0.3 + 0.6 * lights[1]),
        cloth=_rgb(hues[2], 0.7 * depths[2], 0.15 + 0.75 * lights[2]),
        cloth_second=_rgb(hues[2] + hues[3], 0.6 * depths[0], 0.25 + 0.7 * lights[5]),
        wood=_rgb(wood_hue, wood_depth, 0.3 + 0.6 * wood_light),
        wood_dark=_rgb(wood_hue, wood_depth, (0.3 + 0.6 * wood_light) * generator.uniform(0.5, 0.85)),
        lacquer=_rgb(hues[3], *lacquer),
    )


class Style:
    """The materials of one room, drawn once, and a door to add more."""

    def __init__(self, generator: Generator, is_held_out: bool):
        self.table = MaterialTable()
        self.is_held_out = is_held_out
        self._generator = generator
        palettes = RESERVED_PALETTES if is_held_out and generator.random() < RESERVED_SHARE else PALETTES
        self.palette = palettes[int(generator.integers(len(palettes)))]
        if self._is_new():
            self.palette = draw_palette(generator)
        p = self.palette
        seed = int(generator.integers(1 << 16))
        grain = self.vary(0.12, 0.05, 0.3)
        grey, dark = self.vary(0.42, 0.1, 0.7), self.vary(1.0, 0.5, 4.0)
        self.wood = self.table.add(
            Material("wood", linear(p.wood), linear(p.wood_dark), grain, axis=0, seed=seed, gloss=0.02)
        )
        self.wood_upright = self.table.add(
            Material("wood", linear(p.wood), linear(p.wood_dark), grain, axis=2, seed=seed, gloss=0.02)
        )
        self.wood_dark = self.table.add(
            Material("wood", linear(p.wood_dark), linear(p.wood_dark, 0.6), 0.1, axis=0, seed=seed + 1, gloss=0.02)
        )
        self.lacquer = self.table.add(Material("paint", linear(p.lacquer), seed=seed, gloss=0.03))
        self.white = self.table.add(Material("paint", (0.78, 0.77, 0.74), gloss=0.02))
        self.ceiling = self.table.add(Material("paint", (0.83, 0.83, 0.81), seed=seed))
        self.ceramic = self.table.add(Material("plain", (0.82, 0.82, 0.8), gloss=0.05))
        self.metal = self.table.add(Material("plain", (grey, grey, grey + 0.01), gloss=0.25))
        self.black = self.table.add(Material("plain", (0.03 * dark, 0.03 * dark, 0.032 * dark), gloss=0.04))
        self.glass = self.table.add(Material("glass", (0.9, 0.95, 0.93), gloss=0.05, is_ambiguous=True))
        self.mirror = self.table.add(Material("mirror", (0.9, 0.9, 0.9), gloss=0.92, is_ambiguous=True))
        self.leaf = self.table.add(Material("leaf", linear("#4c7a3a"), linear("#2f5a2a"), 0.05, seed=seed))
        self.soil = self.table.add(Material("paint", (0.08, 0.05, 0.03)))
        self.cloth = self.draw_cloth(p.cloth, p.cloth_second)
        self.cloth_second = self.draw_cloth(p.cloth_second, p.cloth)
        self.linen = self.table.add(Material("fabric", (0.75, 0.73, 0.7), (0.65, 0.63, 0.6), 0.06, seed=seed))

    def add(self, material: Material) -> int:
        return self.table.add(material)

    def vary(self, usual: float, low: float, high: float) -> float:
        """A measure that training rooms draw anew and held-out rooms keep."""
        return usual if self.is_held_out else float(self._generator.uniform(low, high))

    def _is_new(self) -> bool:
        return not self.is_held_out and bool(self._generator.random() < _NEW_SHARE)

    def recover(self, cloth: int) -> int:
        """The cloth of one piece: in training rooms often its own."""
        if not self._is_new():
            return cloth
        own = draw_palette(self._generator)
        return self.draw_cloth(own.cloth, own.cloth_second)

    def repaint(self, body: int) -> int:
        """The wood or lacquer of one piece: in training rooms often its own."""
        if not self._is_new():
            return body
        own = draw_palette(self._generator)
        seed = int(self._generator.integers(1 << 16))
        if self._generator.random() < 0.4:
            return self.add(Material("paint", linear(own.lacquer), seed=seed, gloss=0.03))
        scale, axis = float(self._generator.uniform(0.05, 0.3)), int(self._generator.integers(3))
        return self.add(
            Material("wood", linear(own.wood), linear(own.wood_dark), scale, axis=axis, seed=seed, gloss=0.02)
        )

    def _pick(self, usual: tuple[str, ...], reserved: tuple[str, ...], training: tuple[str, ...]) -> str:
        kinds = training
        if self.is_held_out:
            kinds = reserved if self._generator.random() < RESERVED_SHARE else usual
        return kinds[int(self._generator.integers(len(kinds)))]

    def draw_cloth(self, first: str, second: str) -> int:
        kind = self._pick(CLOTHS, RESERVED_CLOTHS, TRAINING_CLOTHS)
        scale = {"fabric": 0.05, "stripes": 0.12, "plaid": 0.2, "zigzag": 0.16}.get(kind, 0.14) * self.vary(
            1.0, 0.6, 2.0
        )
        seed = int(self._generator.integers(1 << 16))
        share = 0.75 if kind == "fabric" else self.vary(0.25, 0.0, 0.5)
        color = linear(first)
        return self.table.add(Material(kind, color, mix(linear(second), color, share), scale, seed=seed))

    def draw_plain_color(self) -> int:
        """A saturated paint, for books, cups and toys."""
        hue, depth = self._generator.random(), self._generator.uniform(0.25, 1.0)
        angle = 2 * np.pi * (hue + np.array([0.0, 1 / 3, 2 / 3]))
        # Mostly reds, blues and browns, rarely neon.
        rgb = depth * np.clip(0.26 + self._generator.uniform(0.03, 0.2) * np.cos(angle), 0.02, 0.8) * [1.1, 0.95, 0.85]
        return self.table.add(Material("spine", (float(rgb[0]), float(rgb[1]), float(rgb[2])), (0.6, 0.55, 0.4), 0.08))

    def draw_floor(self, is_wet: bool) -> int:
        kind = self._pick(FLOORS, RESERVED_FLOORS, TRAINING_FLOORS)
        if is_wet and kind in ("fabric", "planks", "basket", "wood"):
            kind = "checker" if self.is_held_out else "tiles"
        seed = int(self._generator.integers(1 << 16))
        p = draw_palette(self._generator) if self._is_new() else self.palette
        if kind in ("planks", "basket", "wood"):
            scale = {"basket": 0.4}.get(kind, 0.16) * self.vary(1.0, 0.6, 1.6)
            return self.add(Material(kind, linear(p.wood), linear(p.wood_dark), scale, seed=seed, gloss=0.04))
        if kind == "fabric":
            grey = mix(linear(p.cloth_second, 0.7), (0.25, 0.24, 0.22), 0.6)
            return self.add(Material("fabric", grey, mix(grey, (0.1, 0.1, 0.1), 0.25), 0.08, seed=seed))
        light = mix(linear(p.wall), (0.5, 0.48, 0.45), float(self._generator.uniform(0.2, 0.7)))
        if kind == "checker":
            return self.add(
                Material("checker", light, mix(linear(p.accent), (0.1, 0.1, 0.1), 0.4), 0.35, seed=seed, gloss=0.05)
            )
        if kind in ("terrazzo", "marble", "paint"):
            second = mix(linear(p.accent), light, 0.4)
            return self.add(Material(kind, light, second, self.vary(0.2, 0.08, 0.4), seed=seed, gloss=0.05))
        scale = 0.35 * self.vary(1.0, 0.5, 1.7)
        return self.add(Material(kind, light, (0.3, 0.29, 0.27), scale, seed=seed, gloss=0.05))

    def draw_wall(self, is_accent: bool) -> int:
        p = self.palette
        base = linear(p.accent if is_accent else p.wall, 0.92)
        kind = self._pick(WALLS, RESERVED_WALLS, TRAINING_WALLS) if is_accent else "paint"
        seed = int(self._generator.integers(1 << 16))
        scale = {"stripes": 0.3, "dots": 0.35, "brick": 0.22}.get(kind, 0.1 if self.is_held_out else 0.28)
        scale *= self.vary(1.0, 0.5, 1.8)
        second = (0.55, 0.52, 0.48) if kind == "brick" else linear(p.wall, 0.92)
        return self.add(Material(kind, base, second, scale, seed=seed))

    def draw_wall_tiles(self) -> int:
        light = mix(
            linear(self.palette.wall), linear(self.palette.accent), float(self._generator.choice([0.0, 0.3, 0.8]))
        )
        seed = int(self._generator.integers(1 << 16))
        kind = "hexagons" if self._is_new() else "tiles"
        scale = 0.2 * self.vary(1.0, 0.5, 2.0)
        return self.add(Material(kind, light, (0.6, 0.6, 0.58), scale, seed=seed, gloss=0.05))

    def draw_stone(self) -> int:
        seed = int(self._generator.integers(1 << 16))
        dark = self._generator.random() < 0.4
        color: Color = (0.09, 0.09, 0.1) if dark else (0.62, 0.6, 0.57)
        kind = "marble"
        if self._is_new():
            own = draw_palette(self._generator)
            color = linear(own.accent if dark else own.wall)
            kind = ("marble", "terrazzo", "paint")[int(self._generator.integers(3))]
        return self.add(Material(kind, color, (0.35, 0.34, 0.33), self.vary(0.25, 0.1, 0.4), seed=seed, gloss=0.05))

    def draw_picture(self, width: float, height: float) -> int:
        rgb = self._generator.uniform(0.08, 0.7, (2, 3))
        rgb = 0.45 * rgb + 0.55 * rgb.mean(1, keepdims=True)
        seed = int(self._generator.integers(1 << 16))
        first, second = ((float(c[0]), float(c[1]), float(c[2])) for c in rgb)
        kind, scale = "picture", 0.1
        if not self.is_held_out:
            kind = TRAINING_PICTURES[int(self._generator.integers(len(TRAINING_PICTURES)))]
            scale = float(self._generator.uniform(0.05, 0.25))
        return self.add(Material(kind, first, second, scale, (width, height), seed=seed))

    def draw_screen(self, width: float, height: float, is_on: bool) -> int:
        seed = int(self._generator.integers(1 << 16))
        if is_on:
            return self.add(
                Material(
                    "screen",
                    (0.5, 0.6, 0.75),
                    (0.1, 0.12, 0.18),
                    0.03,
                    (width, height),
                    seed=seed,
                    gloss=0.04,
                    emission=0.5,
                )
            )
        return self.add(Material("plain", (0.012, 0.012, 0.014), gloss=0.07, is_ambiguous=True))

    def draw_rug(self, width: float, depth: float) -> int:
        seed = int(self._generator.integers(1 << 16))
        p, kind, scale = self.palette, "rug", 0.2
        if not self.is_held_out:
            kind = TRAINING_RUGS[int(self._generator.integers(len(TRAINING_RUGS)))]
            scale = float(self._generator.uniform(0.1, 0.4))
        if self._is_new():
            p = draw_palette(self._generator)
        return self.add(
            Material(kind, linear(p.cloth, 0.8), linear(p.cloth_second, 0.8), scale, (width, depth), seed=seed)
        )

    def draw_lampshade(self, radiance: float) -> int:
        color = (0.8, 0.74, 0.62)
        if self._is_new():
            color = mix(linear(draw_palette(self._generator).cloth_second), color, 0.4)
        return self.add(Material("plain", color, emission=radiance))
