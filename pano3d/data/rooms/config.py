"""What a user may choose about the generated rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pano3d.types import ConfigError

SPLITS = ("train", "validation", "test")
QualityName = Literal["fast", "default", "fine"]


@dataclass(frozen=True)
class Quality:
    """Where the time goes.

    cell: longest edge of a flat face, metres (light is kept per vertex). gather_rays: per vertex. light_samples: per
    window and lamp. edge_samples: extra rays through a pixel on a silhouette; inner_samples through the others
    (at 0 a surface is shaded once per pixel, and what an edge ray meets takes its colour from the pixel beside).
    sun_samples: shadow rays per shaded point. has_reflections: glossy floors and tops mirror the room.
    """

    cell: float
    gather_rays: int
    light_samples: int
    edge_samples: int
    inner_samples: int
    sun_samples: int
    has_reflections: bool


QUALITIES: dict[str, Quality] = {
    "fast": Quality(0.35, 6, 3, 2, 0, 1, False),
    "default": Quality(0.18, 24, 6, 3, 1, 3, True),
    "fine": Quality(0.1, 48, 12, 6, 2, 4, True),
}


@dataclass(frozen=True)
class SplitSizes:
    """One number per split."""

    train: int
    validation: int
    test: int

    def of(self, split: str) -> int:
        if split not in SPLITS:
            raise ConfigError(f"generated rooms have the splits {', '.join(SPLITS)}; got {split!r}")
        return int(getattr(self, split))


@dataclass(frozen=True)
class RoomsConfig:
    """scenes: rooms per split; frames: photos per room; width, height: pixels; surface_spacing: metres between
    evaluation points."""

    scenes: SplitSizes
    frames: SplitSizes
    width: int
    height: int
    quality: QualityName
    surface_spacing: float

    def __post_init__(self) -> None:
        for split in SPLITS:
            if self.scenes.of(split) < 0 or self.frames.of(split) < 1:
                raise ConfigError(f"rooms: split {split} needs scenes >= 0 and frames >= 1")
        if self.width < 16 or self.height < 16:
            raise ConfigError(f"rooms: images of {self.width}x{self.height} are too small; take 16 pixels or more")
        if not 0.005 <= self.surface_spacing <= 1:
            raise ConfigError(f"rooms: surface_spacing {self.surface_spacing} m; take 0.005 to 1")
