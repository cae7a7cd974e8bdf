"""A step's scenes, shared out: the losses of the slices add up to the loss of the whole batch.

Every loss is a ratio: a sum over pixels, pairs or queries, over their number. A slice alone would divide by its own
number, so its ratio is multiplied by (its number / the number of the whole step). The numbers follow from the targets,
so they are known before the first forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pano3d.losses.point_sampling import draw_points
from pano3d.training.processes import Processes
from pano3d.types import VOID, Batch, ConfigError, GeometryTarget, PanopticTarget, Views


@dataclass(frozen=True)
class StepTotals:
    """Numbers of a step over all its scenes, in all processes.

    scenes: of the step.
    scenes_with_depth: those with a pixel that counts.
    pixels: those that count in each view, over the scenes.
    segments: that any view shows.
    matched: segments that find a query.
    most_segments: of one scene, listed.
    """

    scenes: int
    scenes_with_depth: float
    pixels: Float[Tensor, " v"]
    segments: float
    matched: float
    most_segments: int


@dataclass(frozen=True)
class Slice:
    """Some consecutive scenes of a step, from scene `first` on."""

    batch: Batch
    first: int
    totals: StepTotals

    def points(self, generator: torch.Generator, device: torch.device) -> SlicedPoints:
        return SlicedPoints(generator, device, self.first, self.totals)


class SlicedPoints:
    """Random points of the whole step's batch, of which the scenes of a slice are handed out (`PointSource`)."""

    def __init__(self, generator: torch.Generator, device: torch.device, first: int, totals: StepTotals) -> None:
        self._generator, self._device, self._first, self._totals = generator, device, first, totals

    def matching(self, layers: int, shape: tuple[int, int, int]) -> Float[Tensor, "1 b v p 2"]:
        return self._draw((1, self._totals.scenes, *shape[1:]))[:, self._first : self._first + shape[0]]

    def candidates(
        self, layer: int, shape: tuple[int, int, int, int], query: Int[Tensor, "b m"]
    ) -> Float[Tensor, "b m v p 2"]:
        whole = self._draw((self._totals.scenes, self._totals.most_segments, *shape[2:]))
        return whole[self._first : self._first + shape[0], : shape[1]]

    def tail(
        self, layer: int, shape: tuple[int, int, int, int], query: Int[Tensor, "b m"]
    ) -> Float[Tensor, "b m v p 2"]:
        return self.candidates(layer, shape, query)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return draw_points(shape, self._generator, self._device)


def require_equal_shares(images_per_batch: int, views: tuple[int, ...], shares: int) -> None:
    """Every step's scenes must divide among `shares` = processes * accumulate.

    Raises:
        ConfigError: some number of views leaves a number of scenes that does not.
    """
    for number in views:
        scenes = images_per_batch // number
        if scenes % shares:
            raise ConfigError(
                f"training: a step of {images_per_batch} images in samples of {number} views has {scenes} scenes, "
                f"which {shares} shares (processes times training.accumulate) do not divide; change "
                "loader.images_per_batch, loader.views, training.accumulate or the number of processes"
            )


def slices(
    batch: Batch, counted: Bool[Tensor, "b v h w"], accumulate: int, queries: int, processes: Processes
) -> Iterator[Slice]:
    """This process's scenes of a step in `accumulate` equal parts; every process must ask at the same time."""
    totals = step_totals(batch, counted, queries, processes)
    own = batch.views.images.shape[0]
    size = own // accumulate
    for start in range(0, own, size):
        yield Slice(scenes_of(batch, start, start + size), processes.rank * own + start, totals)


def step_totals(batch: Batch, counted: Bool[Tensor, "b v h w"], queries: int, processes: Processes) -> StepTotals:
    """Numbers of a step from the targets of each process's scenes.

    Args:
        counted: pixels that the geometry loss averages over.
        queries: of the mask decoder: no more segments than that are matched.
    """
    segments, matched, most = 0, 0, 0
    for index, classes in zip(batch.panoptic.segment_index, batch.panoptic.class_id, strict=True):
        seen = int(index.unique().ne(VOID).sum())
        segments, matched, most = segments + seen, matched + min(seen, queries), max(most, len(classes))
    with_depth = counted.flatten(1).any(1).sum()
    # In float64: a step may have more pixels than float32 counts.
    numbers = torch.tensor([len(counted), float(with_depth), segments, matched], dtype=torch.float64)
    pixels = counted.sum((0, 2, 3)).to(numbers)
    total = processes.sum(torch.cat([numbers, pixels]).to(processes.device)).cpu()
    largest = processes.max(torch.tensor(float(most), device=processes.device))
    return StepTotals(
        scenes=int(total[0]),
        scenes_with_depth=float(total[1]),
        pixels=total[4:],
        segments=float(total[2]),
        matched=float(total[3]),
        most_segments=int(largest),
    )


def scenes_of(batch: Batch, start: int, stop: int) -> Batch:
    """Scenes start..stop-1 of a batch."""
    geometry, panoptic = batch.geometry, batch.panoptic
    return Batch(
        Views(batch.views.images[start:stop], batch.views.reference),
        GeometryTarget(
            geometry.depth[start:stop], geometry.intrinsics[start:stop], geometry.scan_from_camera[start:stop]
        ),
        PanopticTarget(
            panoptic.segment_index[start:stop],
            panoptic.class_id[start:stop],
            panoptic.is_thing[start:stop],
            None if panoptic.class_allowed is None else panoptic.class_allowed[start:stop],
        ),
        batch.scenes[start:stop],
    )
