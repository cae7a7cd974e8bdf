"""Masks and geometry -> one `PanopticScene`: every pixel has a class, a segment, a score and a 3D point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pano3d.panoptic.merging import (
    ClassScores,
    MaskProbabilities,
    MergedMasks,
    MergedSegment,
    class_scores,
    merge_passes,
    merge_standard,
)
from pano3d.panoptic.qubo import AnnealingConfig, merge_qubo
from pano3d.types import VOID, BackboneOutput, ConfigError, DataError, MaskOutput, PanopticScene, Segment, WeightsError


@dataclass(frozen=True)
class StandardMerging:
    """Mask2Former's rule; the defaults are its own."""

    kind: Literal["standard"] = "standard"
    score_threshold: float = 0.8
    overlap_threshold: float = 0.8
    mask_threshold: float = 0.5

    def __post_init__(self) -> None:
        _require_shares(self.score_threshold, self.overlap_threshold, self.mask_threshold)


@dataclass(frozen=True)
class PassMerging:
    """PanSt3R's rule; the defaults are those of its second variant (one pass, 0.5 and 0.8: the first)."""

    kind: Literal["two_pass"] = "two_pass"
    passes: int = 2
    score_threshold: float = 0.1
    overlap_threshold: float = 0.5
    mask_threshold: float = 0.25

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise ConfigError(f"merging.passes: expected at least 1, got {self.passes}")
        _require_shares(self.score_threshold, self.overlap_threshold, self.mask_threshold)


def _require_shares(score: float, overlap: float, mask: float) -> None:
    if not all(0 <= value <= 1 for value in (score, overlap, mask)):
        raise ConfigError(
            "merging: score_threshold, overlap_threshold and mask_threshold must be shares from 0 to 1, got "
            f"{score}, {overlap} and {mask}"
        )


@dataclass(frozen=True)
class QuboMerging:
    """PanSt3R's choice of masks by annealing. `seed` makes it repeatable."""

    kind: Literal["qubo"] = "qubo"
    seed: int = 0
    penalty: float = 1.0
    drop_below: float = 0.01
    annealing: AnnealingConfig = field(default_factory=AnnealingConfig)


@dataclass(frozen=True)
class SceneConfig:
    """How masks become segments.

    merging: the rule.
    minimum_pixels: segments with fewer pixels over all views are left out.
    """

    merging: StandardMerging | PassMerging | QuboMerging = field(default_factory=StandardMerging)
    minimum_pixels: int = 50


def assemble_scene(
    masks: MaskOutput,
    output: BackboneOutput,
    colors: UInt8[np.ndarray, "v h w 3"],
    world_from_camera: Float[np.ndarray, "v 4 4"],
    intrinsics: Float[np.ndarray, "v 3 3"],
    class_names: Sequence[str],
    is_thing: Sequence[bool],
    config: SceneConfig,
) -> PanopticScene:
    """Merge the last layer's masks of one room and put them beside its geometry.

    Args:
        masks, output: of a batch with one scene, over the same views.
        colors: the images the network saw.
        world_from_camera, intrinsics: cameras of the views.
        class_names, is_thing: the label space, K entries each.

    Raises:
        DataError: several scenes, or sizes that do not belong together.
    """
    if masks.mask_features.shape[0] != 1 or masks.mask_features.shape[1] != len(colors):
        raise DataError(
            f"assembling a scene: expected masks of one scene with {len(colors)} views, got "
            f"{masks.mask_features.shape[0]} scenes with {masks.mask_features.shape[1]}; assemble scenes one by one"
        )
    merged, scores = merge_masks(masks, colors.shape[1:3], len(class_names), is_thing, config)
    segment_id = merged.segment_id.cpu().numpy().astype(np.int32)
    class_of_id = np.full(len(merged.segments) + 1, VOID, dtype=np.int32)
    class_of_id[1:] = [segment.class_id for segment in merged.segments]
    return PanopticScene(
        points_world=_array(output.points_world),
        depth=_array(output.points_camera[..., 2]),
        confidence=_array(output.confidence),
        confidence_kind=output.confidence_kind,
        segment_id=segment_id,
        class_id=class_of_id[segment_id],
        segment_score=merged.confidence.cpu().numpy().astype(np.float32),
        world_from_camera=np.asarray(world_from_camera, dtype=np.float64),
        intrinsics=np.asarray(intrinsics, dtype=np.float64),
        colors=colors,
        segments=[
            Segment(s.id, s.class_id, class_names[s.class_id], bool(is_thing[s.class_id]), score)
            for s, score in zip(merged.segments, scores)
        ],
        class_names=tuple(class_names),
    )


def keep_classes(scene: PanopticScene, names: Sequence[str]) -> PanopticScene:
    """The scene with the segments of these classes only; the others' pixels become void.

    Raises:
        DataError: the label space has no such class.
    """
    unknown = [name for name in names if name not in scene.class_names]
    if unknown:
        raise DataError(f"keeping classes: {', '.join(unknown)} unknown; choose among {', '.join(scene.class_names)}")
    kept = [segment for segment in scene.segments if segment.class_name in names]
    is_kept = np.isin(scene.segment_id, [segment.id for segment in kept])
    return replace(
        scene,
        segment_id=np.where(is_kept, scene.segment_id, 0).astype(np.int32),
        class_id=np.where(is_kept, scene.class_id, VOID).astype(np.int32),
        segment_score=np.where(is_kept, scene.segment_score, 0).astype(np.float32),
        segments=kept,
    )


def merge_masks(
    masks: MaskOutput, size: tuple[int, ...], num_classes: int, is_thing: Sequence[bool], config: SceneConfig
) -> tuple[MergedMasks, list[float]]:
    """Segments of one scene at image size, stuff joined, small ones left out, ids from 1 without gaps; their scores.

    The confidence is 0 outside segments. A score is the class score times the mean mask probability.

    Raises:
        DataError: the label space is not the network's.
        WeightsError: the queries answer NaN or infinity.
    """
    columns = masks.class_logits[-1].shape[-1]
    if columns not in (num_classes, num_classes + 1):
        raise DataError(
            f"assembling a scene: the network judges {columns} columns, the label space has {num_classes} classes; use "
            "the label space the weights were trained with"
        )
    require_finite(masks)
    classes = class_scores(masks.class_logits[-1][0].float(), has_no_object=columns == num_classes + 1)
    merging = config.merging
    probabilities = mask_probabilities(masks, size, upsample_logits=merging.kind == "standard")
    merged = _merge(classes, probabilities, masks.mask_features.shape[1], is_thing, merging)
    merged = tidy(join_stuff(merged, is_thing), config.minimum_pixels)
    return merged, segment_scores(merged)


def require_finite(masks: MaskOutput) -> None:
    """Refuse answers that would silently become an empty scene.

    Raises:
        WeightsError: class logits or mask embeddings of the last layer are NaN or infinite.
    """
    for part in (masks.class_logits[-1], masks.mask_embeddings[-1]):
        if not bool(part.isfinite().all()):
            raise WeightsError(
                "segmenting: the queries answer NaN or infinity; the weights are damaged or their training diverged: "
                "use another model, or float32 if this was bfloat16"
            )


def mask_probabilities(masks: MaskOutput, size: tuple[int, ...], upsample_logits: bool) -> MaskProbabilities:
    """Probabilities of the last layer's masks at image size, computed for one view and the wanted queries on demand.

    upsample_logits: Mask2Former's order; PanSt3R upsamples the probabilities.
    """
    embeddings = masks.mask_embeddings[-1][0].float()
    features = masks.mask_features[0]

    def probabilities(view: int, queries: Tensor) -> Tensor:
        if not len(queries):
            return features.new_zeros((0, *size), dtype=torch.float32)
        logits = torch.einsum("qd,dhw->qhw", embeddings[queries], features[view].float())[None]
        small = logits if upsample_logits else logits.sigmoid()
        large = functional.interpolate(small, size=size, mode="bilinear", align_corners=False)[0]
        return large.sigmoid() if upsample_logits else large

    return probabilities


def _merge(
    classes: ClassScores,
    probabilities: MaskProbabilities,
    num_views: int,
    is_thing: Sequence[bool],
    merging: StandardMerging | PassMerging | QuboMerging,
) -> MergedMasks:
    if merging.kind == "standard":
        things = {class_id for class_id, thing in enumerate(is_thing) if thing}
        return merge_standard(
            classes,
            probabilities,
            num_views,
            things,
            merging.score_threshold,
            merging.overlap_threshold,
            merging.mask_threshold,
        )
    if merging.kind == "two_pass":
        return merge_passes(
            classes,
            probabilities,
            num_views,
            merging.passes,
            merging.score_threshold,
            merging.mask_threshold,
            merging.overlap_threshold,
            void_confidence=0.0,
        )
    return merge_qubo(
        classes,
        probabilities,
        num_views,
        merging.seed,
        merging.annealing,
        merging.penalty,
        merging.drop_below,
        void_confidence=0.0,
    )


def join_stuff(merged: MergedMasks, is_thing: Sequence[bool]) -> MergedMasks:
    """One segment per stuff class: later ones take the id of the first and leave the list."""
    first: dict[int, int] = {}
    target = list(range(len(merged.segments) + 1))
    kept = []
    for segment in merged.segments:
        if is_thing[segment.class_id] or segment.class_id not in first:
            kept.append(segment)
            first.setdefault(segment.class_id, segment.id)
        else:
            target[segment.id] = first[segment.class_id]
    return replace(merged, segment_id=_relabel(merged.segment_id, target), segments=kept)


def tidy(merged: MergedMasks, minimum_pixels: int) -> MergedMasks:
    """Drop segments without pixels or with too few over all views; ids from 1 without gaps."""
    highest = max((segment.id for segment in merged.segments), default=0)
    pixels = torch.bincount(merged.segment_id.flatten(), minlength=highest + 1).tolist()
    kept = [segment for segment in merged.segments if pixels[segment.id] >= max(minimum_pixels, 1)]
    target = [0] * (highest + 1)
    for number, segment in enumerate(kept):
        target[segment.id] = number + 1
    segment_id = _relabel(merged.segment_id, target)
    segments = [replace(segment, id=target[segment.id]) for segment in kept]
    return MergedMasks(segment_id, torch.where(segment_id > 0, merged.confidence, 0.0), segments)


def segment_scores(merged: MergedMasks) -> list[float]:
    """Class score times mean mask probability over the segment's pixels, in the order of the segments."""
    flat = merged.segment_id.flatten()
    length = len(merged.segments) + 1
    pixels = torch.bincount(flat, minlength=length).clamp_min(1)
    mean = torch.bincount(flat, weights=merged.confidence.flatten().double(), minlength=length) / pixels
    return [_score(segment, float(mean[segment.id])) for segment in merged.segments]


def _score(segment: MergedSegment, mean_probability: float) -> float:
    return min(max(segment.score * mean_probability, 0.0), 1.0)


def _relabel(segment_id: Int[Tensor, "v h w"], target: list[int]) -> Int[Tensor, "v h w"]:
    return torch.tensor(target, dtype=torch.long, device=segment_id.device)[segment_id]


def _array(values: Tensor) -> NDArray[np.float32]:
    return values[0].detach().float().cpu().numpy()
