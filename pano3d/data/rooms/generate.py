"""One generated room from (seed, split, index) to the content of its scene archive."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pano3d.data.archive import Frame, SceneContent, SceneSegment, Surface
from pano3d.data.rooms.cameras import Camera, camera_rays, walk
from pano3d.data.rooms.config import QUALITIES, SPLITS, RoomsConfig
from pano3d.data.rooms.layout import ROOM_KINDS, plan_room
from pano3d.data.rooms.lighting import bake, draw_weather
from pano3d.data.rooms.materials import KINDS
from pano3d.data.rooms.plan import RoomPlan
from pano3d.data.rooms.scene import Hits, assemble, ray_scenes
from pano3d.data.rooms.sensor import sense_depth, to_millimetres
from pano3d.data.rooms.shading import Shader, Surfel
from pano3d.data.rooms.surface import measure_overlap, sample_surface
from pano3d.types import ConfigError

FloatArray = NDArray[np.floating]

DATASET = "rooms"
LABEL_SPACE = "scannet20"
LICENSE = "Apache-2.0"
GENERATOR_VERSION = 3

# ScanNet-20 names of NYU40 classes; the rest of NYU40 is void there.
_SCANNET20 = {name: name for name in (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "desk", "curtain", "shower curtain", "toilet", "sink", "bathtub", "otherfurniture",
)} | {"refridgerator": "refrigerator"}  # fmt: skip
_STUFF = ("wall", "floor", "ceiling")
_SHADOW_BELOW = np.float32(0.35)
_TARGET_LUMINANCE = 0.42
_RAYS_AT_ONCE = 65_000  # fewer cost more calls; the arrays of many more leave the processor's caches


def scene_names(config: RoomsConfig, split: str) -> list[str]:
    """Names of the rooms of a split, in order of their index."""
    return [_scene_name(split, index) for index in range(config.scenes.of(split))]


def _generators(seed: int, split: str, index: int) -> dict[str, Generator]:
    """Independent streams, so that a new piece of furniture does not move the light or the surface points."""
    if split not in SPLITS:
        raise ConfigError(f"generated rooms have the splits {', '.join(SPLITS)}; got {split!r}")
    sequence = np.random.SeedSequence([seed, SPLITS.index(split), index])
    names = ("plan", "light", "camera", "sensor", "surface")
    return {name: np.random.default_rng(child) for name, child in zip(names, sequence.spawn(len(names)), strict=True)}


def generate_scene(config: RoomsConfig, seed: int, split: str, index: int) -> SceneContent:
    """Build, light and photograph one room.

    Args:
        config: sizes and quality.
        seed: of the dataset.
        split: "train", "validation" or "test"; the last two use shapes and textures that training never shows.
        index: of the room within the split.

    Returns:
        The archive's content, a function of the arguments alone: depth and ids are bit-identical in every process.

    Raises:
        ConfigError: unknown split.
    """
    streams = _generators(seed, split, index)
    quality = QUALITIES[config.quality]
    kind = ROOM_KINDS[index % len(ROOM_KINDS)]
    plan = plan_room(kind, streams["plan"], split != "train", quality.cell)
    geometry = assemble(plan)
    full, opaque = ray_scenes(geometry)
    weather = draw_weather(plan, streams["light"])
    light = bake(plan, geometry, opaque, weather, quality, streams["light"])
    shader = Shader(geometry, full, opaque, light, weather, quality)
    cameras = walk(plan, geometry, full, streams["camera"], config.frames.of(split), config.width, config.height)
    photographer = Photographer(shader, streams["sensor"])
    frames = photographer.take_all(cameras)
    depths = photographer.exact_depths
    xyz, owner = sample_surface(
        geometry, photographer.seen_triangles(), cameras, depths, config.surface_spacing, streams["surface"]
    )
    return SceneContent(
        name=_scene_name(split, index),
        dataset=DATASET,
        label_space=LABEL_SPACE,
        frames=frames,
        segments=_segments(plan),
        surface=Surface(xyz, (owner + 1).astype(np.uint16)),
        overlap=measure_overlap(cameras, depths),
        license=LICENSE,
        provenance={
            "generator": "pano3d.data.rooms",
            "generator_version": GENERATOR_VERSION,
            "seed": seed,
            "split": split,
            "index": index,
            "room": kind,
            "quality": config.quality,
        },
    )


def _scene_name(split: str, index: int) -> str:
    return f"{split}-{index:04d}"


def _segments(plan: RoomPlan) -> list[SceneSegment]:
    """Segment id = position in the plan + 1."""
    return [
        SceneSegment(
            position + 1, _SCANNET20.get(placed.source_class), placed.source_class, placed.source_class not in _STUFF
        )
        for position, placed in enumerate(plan.objects)
    ]


def _steps(cameras: list[Camera], shifts: NDArray[np.float64], pixels: NDArray[np.int64]) -> FloatArray:
    """(S N 3) change of the ray directions of `pixels` (N,), rows over all cameras, by shifts (S 2) in pixels."""
    first = cameras[0]
    poses = np.stack([camera.scan_from_camera for camera in cameras])
    across, down = poses[:, :3, 0] / first.intrinsics[0, 0], poses[:, :3, 1] / first.intrinsics[1, 1]
    steps = shifts[:, :1, None] * across + shifts[:, 1:, None] * down
    return steps.astype(np.float32).take(pixels // (first.height * first.width), axis=1)


def pixels_alike(
    pixels: NDArray[np.int32],
    samples: NDArray[np.int32],
    edge: NDArray[np.int64],
    shifts: NDArray[np.float64],
    shape: tuple[int, int, int],
) -> NDArray[np.int64]:
    """(S*N,) for samples beside the centres of the pixels `edge` (N,), off by `shifts` (S 2), the pixel nearby of
    the same look, -1 where there is none. A surface is then shaded once per pixel and only its outline is finer.

    Args:
        pixels, samples: looks of all pixel centres, and of the S*N samples.
        shape: (V, H, W) of the pixels.
    """
    _, height, width = shape
    down, right = edge // width % height, edge % width
    found = np.full((len(shifts), len(edge)), -1)
    for row, (shift, look) in enumerate(zip(shifts, samples.reshape(len(shifts), -1), strict=True)):
        # Over the edge of the picture there is only the pixel itself.
        x = np.clip(right + (1 if shift[0] > 0 else -1), 0, width - 1) - right
        y = (np.clip(down + (1 if shift[1] > 0 else -1), 0, height - 1) - down) * width
        for near in (edge + x + y, edge + y, edge + x, edge):
            found[row] = np.where(pixels.take(near) == look, near, found[row])
    return found.ravel()


class Photographer:
    """Takes the frames of one room in order; exposure follows the scene smoothly."""

    def __init__(self, shader: Shader, generator: Generator):
        self._shader = shader
        self._generator = generator
        self._exposure = 0.0
        self._number = 0
        geometry = shader.geometry
        up = geometry.face_normal > 0.3
        # Per triangle, what must differ between pixels for an edge: object, material, face direction.
        look = geometry.object_index * 4096 + geometry.material * 8 + up[:, 0] + 2 * up[:, 1] + 4 * up[:, 2]
        self._look = look.astype(np.int32)
        self._seen: list[NDArray[np.int32]] = []
        self.exact_depths: list[FloatArray] = []

    def seen_triangles(self) -> NDArray[np.int64]:
        """Sorted rows of triangles that a pixel centre met."""
        seen = np.unique(np.concatenate(self._seen))
        return seen[seen >= 0].astype(np.int64)

    def take_all(self, cameras: list[Camera]) -> list[Frame]:
        """Photos, depths, ids and masks of one walk.

        Several poses are traced as one set of rays: a small frame costs more calls than arithmetic.
        """
        pixels = cameras[0].height * cameras[0].width
        step = max(1, _RAYS_AT_ONCE // pixels)
        groups = (cameras[first : first + step] for first in range(0, len(cameras), step))
        return [frame for group in groups for frame in self._take_group(group)]

    def _take_group(self, cameras: list[Camera]) -> list[Frame]:
        """Frames of neighbouring poses; `_number` counts them over the groups."""
        shader, geometry = self._shader, self._shader.geometry
        shape = (len(cameras), cameras[0].height, cameras[0].width)
        origins, directions = camera_rays(cameras)
        hits = shader.full.cast(origins, directions)
        self._seen.append(np.unique(hits.triangle))
        exact = hits.t.reshape(shape)
        self.exact_depths += list(exact)
        rows = shader.rows_of(hits)
        surfel = shader.surfels(origins, directions, hits, rows)
        linear = self._linear_color(cameras, origins, directions, hits, surfel).reshape(*shape, 3)
        shadow = np.zeros(len(hits.t), bool)
        shadow[rows] = surfel.exposedness < _SHADOW_BELOW
        is_hit = hits.triangle >= 0
        material = np.where(is_hit, geometry.material.take(hits.triangle, mode="clip"), 0)
        kind = np.where(is_hit, geometry.columns.kind.take(material), 0)
        is_pane, is_mirror = kind == KINDS.index("glass"), kind == KINDS.index("mirror")
        ambiguous = is_hit & geometry.columns.is_ambiguous.take(material)
        behind = self._behind(origins, directions, hits, is_pane, is_mirror).reshape(shape)
        is_dark_gloss = (ambiguous & ~is_pane & ~is_mirror).reshape(shape)
        facing = self._facing(directions, hits).reshape(shape)
        segment = np.where(is_hit, geometry.object_index.take(hits.triangle, mode="clip") + 1, 0)
        segment = segment.astype(np.uint16).reshape(shape)
        is_pane, is_mirror = is_pane.reshape(shape), is_mirror.reshape(shape)
        ambiguous, shadow = ambiguous.reshape(shape), shadow.reshape(shape)
        frames = []
        for k, camera in enumerate(cameras):
            depth = sense_depth(
                exact[k], behind[k], is_pane[k], is_mirror[k], is_dark_gloss[k], facing[k], self._generator
            )
            frames.append(
                Frame(
                    name=f"{self._number:06d}",
                    color=self._develop(linear[k]),
                    depth_mm=depth,
                    segment_id=segment[k],
                    intrinsics=camera.intrinsics,
                    scan_from_camera=camera.scan_from_camera,
                    depth_exact_mm=to_millimetres(exact[k]),
                    ambiguous=ambiguous[k],
                    shadow=shadow[k],
                )
            )
            self._number += 1
        return frames

    def _linear_color(
        self, cameras: list[Camera], origins: FloatArray, directions: FloatArray, hits: Hits, surfel: Surfel
    ) -> FloatArray:
        """Mean radiance per pixel: one ray for all, more where neighbours differ."""
        shader, quality = self._shader, self._shader.quality
        spread = float(1 / cameras[0].intrinsics[0, 0])
        color = shader.radiance(origins, directions, hits, spread, 1, surfel=surfel)
        edge = self._edges(hits, len(cameras), cameras[0].height, cameras[0].width)
        color = np.minimum(color, np.float32(6))
        # Points of a rotated grid round the centre, which has been taken.
        angles = 2 * np.pi * (np.arange(quality.edge_samples) + 0.15) / max(1, quality.edge_samples)
        shifts = 0.36 * np.stack([np.cos(angles), np.sin(angles)], 1)
        for sample, (right, down) in enumerate(shifts[: quality.inner_samples]):
            start, towards = camera_rays(cameras, (right, down))
            more = shader.radiance(start, towards, shader.full.cast(start, towards), spread, 101 + 17 * sample)
            color += np.minimum(more, np.float32(6))
        on_edge = shifts[quality.inner_samples :]
        if len(on_edge) and len(edge):
            towards = (directions[edge] + _steps(cameras, on_edge, edge)).reshape(-1, 3)
            start = np.tile(origins[edge], (len(on_edge), 1))
            met = shader.full.cast(start, towards)
            near = np.full(len(towards), -1)
            if not quality.inner_samples:
                shape = (len(cameras), cameras[0].height, cameras[0].width)
                near = pixels_alike(self._looks(hits), self._looks(met), edge, on_edge, shape)
            more, alone = color[near], np.flatnonzero(near < 0)
            rest = Hits(met.t[alone], met.triangle[alone], met.u[alone], met.v[alone])
            more[alone] = shader.radiance(start[alone], towards[alone], rest, spread, 101)
            color[edge] += np.minimum(more, np.float32(6)).reshape(len(on_edge), -1, 3).sum(0)
        weight = np.full(len(color), 1 + quality.inner_samples, np.float32)
        weight[edge] += len(on_edge)
        return color / weight[:, None]

    def _looks(self, hits: Hits) -> NDArray[np.int32]:
        """(N,) what must differ between two pixels for an edge; -1 for a miss."""
        return np.where(hits.triangle < 0, np.int32(-1), self._look.take(hits.triangle, mode="clip"))

    def _edges(self, hits: Hits, count: int, height: int, width: int) -> NDArray[np.int64]:
        """Pixels whose neighbour shows another object, material or face direction."""
        grid = self._looks(hits).reshape(count, height, width)
        edge = np.zeros(grid.shape, bool)
        across, down = grid[:, :, 1:] != grid[:, :, :-1], grid[:, 1:] != grid[:, :-1]
        edge[:, :, 1:] |= across
        edge[:, :, :-1] |= across
        edge[:, 1:] |= down
        edge[:, :-1] |= down
        return np.flatnonzero(edge)

    def _develop(self, linear: FloatArray) -> NDArray[np.uint8]:
        """Exposure, a film-like shoulder and the sRGB-like curve."""
        luminance = linear[..., 0] * 0.3 + linear[..., 1] * 0.59 + linear[..., 2] * 0.11
        key = _TARGET_LUMINANCE / float(np.exp(np.log(np.maximum(luminance, 0.01)).mean()))
        self._exposure = key if self._exposure == 0 else 0.7 * self._exposure + 0.3 * key
        shown = 1 - np.exp(-linear * np.float32(self._exposure))
        return np.rint(255 * np.power(np.clip(shown, 0, 1), np.float32(1 / 2.2))).astype(np.uint8)

    def _facing(self, directions: FloatArray, hits: Hits) -> FloatArray:
        normal = self._shader.geometry.face_normal.take(hits.triangle, axis=0, mode="clip")
        x, y, z = directions.T
        dot = x * normal[:, 0] + y * normal[:, 1] + z * normal[:, 2]
        return np.abs(dot) / np.sqrt(x * x + y * y + z * z)

    def _behind(
        self,
        origins: FloatArray,
        directions: FloatArray,
        hits: Hits,
        is_pane: NDArray[np.bool_],
        is_mirror: NDArray[np.bool_],
    ) -> FloatArray:
        """Depth of what a sensor may meet through a pane or in a mirror, inf where nothing."""
        behind = np.full(len(hits.t), np.inf, np.float32)
        panes = np.flatnonzero(is_pane)
        if len(panes):
            behind[panes] = self._shader.opaque.cast(origins[panes], directions[panes]).t
        mirrors = np.flatnonzero(is_mirror)
        if len(mirrors):
            normal = self._shader.geometry.face_normal[hits.triangle[mirrors]]
            towards = directions[mirrors]
            dot = towards[:, 0] * normal[:, 0] + towards[:, 1] * normal[:, 1] + towards[:, 2] * normal[:, 2]
            bounced = (towards - 2 * dot[:, None] * normal).astype(np.float32)
            start = (origins[mirrors] + hits.t[mirrors, None] * towards + bounced * np.float32(0.003)).astype(
                np.float32
            )
            behind[mirrors] = hits.t[mirrors] + self._shader.opaque.cast(start, bounced).t
        return behind
