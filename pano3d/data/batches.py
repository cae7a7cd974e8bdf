"""Training batches: a pure function of (seed, step), so that a run interrupted anywhere goes on bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from pano3d.data.archive import Frame, SceneArchive
from pano3d.data.augmentation import (
    AugmentationConfig,
    augment_colors,
    flatten_segments,
    mirror_camera,
    recolor_segments,
)
from pano3d.data.frames import BYTES_PER_PIXEL, FrameCache
from pano3d.data.label_spaces import LabelSpace, label_space
from pano3d.data.patterns import pattern_segments
from pano3d.data.sampling import sample_connected_views
from pano3d.processes import allow_many_files, end_with_pool
from pano3d.types import VOID, Batch, ConfigError, DataError, GeometryTarget, PanopticTarget, Views


@dataclass(frozen=True)
class LoaderConfig:
    """How samples are drawn.

    image_width, image_height: what the network sees.
    images_per_batch: views times scenes of one step.
    views: choices for V, one drawn per step; each must divide images_per_batch.
    minimum_overlap: share of pixels that makes two views neighbours.
    minimum_segment_pixels: smaller segments of a sample become void.
    merge_stuff: one segment per stuff class.
    workers: loader processes, 0 = in the training process.
    cache_gib: decoded frames kept in memory by each process.
    """

    image_width: int
    image_height: int
    images_per_batch: int
    views: tuple[int, ...]
    augmentation: AugmentationConfig
    minimum_overlap: float = 0.2
    minimum_segment_pixels: int = 50
    merge_stuff: bool = True
    workers: int = 0
    cache_gib: float = 2.0

    def __post_init__(self) -> None:
        if self.images_per_batch < 1 or not self.views or any(v < 1 or self.images_per_batch % v for v in self.views):
            raise ConfigError(
                f"loader.views is {self.views}; expected positive divisors of loader.images_per_batch = "
                f"{self.images_per_batch}"
            )


class TrainingSteps(Dataset[Batch]):
    """Item `step` is the batch of that step, or of its scenes the share of process `rank` among `count`.

    vocabulary: the classes that are learnt; archives of other label spaces are read through the names they share with
        it. By default the label space of the first archive.
    """

    def __init__(
        self,
        paths: list[Path],
        config: LoaderConfig,
        seed: int,
        rank: int = 0,
        count: int = 1,
        vocabulary: LabelSpace | None = None,
    ):
        if not paths:
            raise DataError("training: no scene archives given; run the prepare stage or check the split's name")
        self._config, self._seed = config, seed
        self._rank, self._count = rank, count
        self._frames = FrameCache(
            paths, config.image_width, config.image_height, budget_bytes=int(config.cache_gib * 2**30)
        )
        self._vocabulary = vocabulary or label_space(self._frames.scene(0).label_space)

    @property
    def cache_bytes(self) -> int:
        """What the decoded frames will take in each process once all are cached, at most `cache_gib`."""
        frames = sum(len(self._frames.scene(index).frames) for index in range(len(self._frames)))
        pixels = self._config.image_width * self._config.image_height
        return min(int(self._config.cache_gib * 2**30), frames * pixels * BYTES_PER_PIXEL)

    def __getitem__(self, step: int) -> Batch:
        choices = self._config.views
        views = choices[int(self._generator(step, 0).integers(len(choices)))]
        scenes = self._config.images_per_batch // views
        positions = range(scenes * self._rank // self._count, scenes * (self._rank + 1) // self._count)
        return collate([self._sample(step, position, views) for position in positions])

    def _generator(self, step: int, stream: int) -> np.random.Generator:
        """Stream 0 draws what a step's scenes have in common, 1 + position each of them. numpy pads seeds with zeros:
        [seed, step] would be the stream of position 0, and the number of views would say which scene."""
        return np.random.default_rng([self._seed, step, stream])

    def _sample(self, step: int, position: int, views: int) -> Sample:
        generator = self._generator(step, 1 + position)
        scene = int(generator.integers(len(self._frames)))
        archive = self._frames.scene(scene)
        chosen = sample_connected_views(archive.overlap, views, generator, self._config.minimum_overlap)
        frames = [self._frames.frame(scene, int(view)) for view in chosen]
        return make_sample(archive, frames, self._config, generator, self._vocabulary)


@dataclass(frozen=True)
class Sample:
    """One scene of a batch, before stacking."""

    name: str
    images: NDArray[np.float32]
    depth: NDArray[np.float32]
    intrinsics: NDArray[np.float64]
    scan_from_camera: NDArray[np.float64]
    segment_index: NDArray[np.int64]
    class_id: NDArray[np.int64]
    is_thing: NDArray[np.bool_]
    class_allowed: NDArray[np.bool_]


def make_sample(
    archive: SceneArchive,
    frames: list[Frame],
    config: LoaderConfig,
    generator: np.random.Generator,
    vocabulary: LabelSpace,
) -> Sample:
    """Stack frames, augment colours, mirror with the chance given, number the sample's segments from 0.

    Raises:
        DataError: the archive's label space shares no class name with the vocabulary.
    """
    class_allowed = np.isin(vocabulary.names, label_space(archive.label_space).names)
    if not class_allowed.any():
        raise DataError(
            f"training on {archive.name}: its label space {archive.label_space} shares no class name with "
            f"{vocabulary.name}, the model's; prepare the scenes with another label space"
        )
    segment_id = np.stack([frame.segment_id for frame in frames])
    colors = np.stack([frame.color for frame in frames])
    if generator.random() < config.augmentation.flatten:
        colors = flatten_segments(colors, segment_id, share=float(generator.random()))
    if generator.random() < config.augmentation.recolor:
        colors = recolor_segments(colors, segment_id, generator)
    depth = np.stack([frame.depth_mm for frame in frames]).astype(np.float32) / 1000.0
    intrinsics = np.stack([frame.intrinsics for frame in frames])
    scan_from_camera = np.stack([frame.scan_from_camera for frame in frames])
    if generator.random() < config.augmentation.pattern:
        colors = pattern_segments(colors, segment_id, depth, intrinsics, scan_from_camera, generator)
    images = augment_colors(colors, config.augmentation, generator)
    if generator.random() < config.augmentation.mirror:
        images, depth, segment_id = images[:, :, ::-1], depth[:, :, ::-1], segment_id[:, :, ::-1]
        intrinsics, scan_from_camera = mirror_camera(intrinsics, scan_from_camera, config.image_width)
    segment_index, class_id, is_thing = number_segments(
        segment_id, archive, vocabulary, config.minimum_segment_pixels, config.merge_stuff
    )
    return Sample(
        name=archive.name,
        images=np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        depth=np.ascontiguousarray(depth),
        intrinsics=intrinsics,
        scan_from_camera=scan_from_camera,
        segment_index=segment_index,
        class_id=class_id,
        is_thing=is_thing,
        class_allowed=class_allowed,
    )


def number_segments(
    segment_id: NDArray[np.uint16],
    archive: SceneArchive,
    labels: LabelSpace,
    minimum_pixels: int,
    merge_stuff: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Ids of an archive to indices 0..M-1 of the segments that the given views show; VOID elsewhere.

    Args:
        segment_id: (V, H, W), 0 = void.
        labels: the classes to number by; segments of a class it does not name become void.

    Returns:
        segment_index (V, H, W), class_id (M,), is_thing (M,).
    """
    class_of = {name: index for index, name in enumerate(labels.names)}
    target = np.full(65536, VOID, np.int64)
    stuff: dict[int, int] = {}
    keys: list[tuple[int, bool]] = []
    for segment in archive.segments:
        class_id = class_of.get(segment.class_name) if segment.class_name is not None else None
        if class_id is None:
            continue
        if merge_stuff and not segment.is_thing and class_id in stuff:
            target[segment.id] = stuff[class_id]
            continue
        target[segment.id] = len(keys)
        if not segment.is_thing:
            stuff[class_id] = len(keys)
        keys.append((class_id, segment.is_thing))
    index = target[segment_id]
    counts = np.bincount(index[index != VOID], minlength=len(keys))
    kept = np.flatnonzero(counts >= max(minimum_pixels, 1))
    renumber = np.full(len(keys) + 1, VOID, np.int64)  # the last entry answers for VOID = -1
    renumber[kept] = np.arange(len(kept))
    class_ids = np.array([keys[k][0] for k in kept], np.int64)
    return renumber[index], class_ids, np.array([keys[k][1] for k in kept], bool)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of equal shape into one batch."""

    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))

    class_allowed = stack("class_allowed")
    return Batch(
        views=Views(images=stack("images")),
        geometry=GeometryTarget(
            depth=stack("depth"),
            intrinsics=stack("intrinsics").float(),
            scan_from_camera=stack("scan_from_camera").float(),
        ),
        panoptic=PanopticTarget(
            segment_index=stack("segment_index"),
            class_id=[torch.from_numpy(sample.class_id) for sample in samples],
            is_thing=[torch.from_numpy(sample.is_thing) for sample in samples],
            class_allowed=None if class_allowed.all() else class_allowed,
        ),
        scenes=[sample.name for sample in samples],
    )


def training_batches(
    steps: TrainingSteps, start: int, stop: int, workers: int, pin_memory: bool = False
) -> Iterator[Batch]:
    """Batches of steps start..stop-1 in order, prefetched by `workers` processes.

    pin_memory: where a GPU can fetch them from while it computes.
    """
    if workers:
        allow_many_files()
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # The workers import torch: forking a process that already runs OpenMP threads can hang.
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=_start_worker if workers else None,
        pin_memory=pin_memory,
    )
    return iter(loader)


def _start_worker(number: int) -> None:
    """None outlives the training: PyTorch's own watch looks at the server that forked them, which lives on."""
    end_with_pool()
