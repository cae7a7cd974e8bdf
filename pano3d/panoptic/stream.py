"""Segments of a long capture, frame by frame, with ids that stay.

Keyframes decode queries; every further frame costs only dot products with the queries found so far. A frame that they
do not explain becomes a keyframe: all keyframes are decoded again, segments that are found again keep their id, and
what is new gets one. (The public code never finds an object that no keyframe shows.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from pano3d.panoptic.mask_decoder import resample_features
from pano3d.panoptic.merging import class_scores, merge_standard
from pano3d.panoptic.scene import StandardMerging, require_finite
from pano3d.types import ConfigError, DataError, MaskOutput, Segment


@runtime_checkable
class Decoder(Protocol):
    """A `MaskDecoder` in `.eval()` mode."""

    def __call__(self, tokens: Tensor, token_grid: tuple[int, int], mask_features: Tensor) -> MaskOutput: ...


@dataclass(frozen=True)
class StreamConfig:
    """When a frame asks for new queries, and how many frames are remembered.

    unexplained: share of a frame's pixels below every mask threshold above which the frame becomes a keyframe.
    same_object: least mask IoU over the keyframes for a query to be the continuation of an earlier one.
    rest: after decoding found nothing new, it is not tried again before that many frames later.
    maximum_keyframes: the oldest keyframe is forgotten beyond this number, what it showed is not; 0 = no bound.
    """

    unexplained: float = 0.2
    same_object: float = 0.5
    rest: int = 10
    maximum_keyframes: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.unexplained <= 1 and 0 <= self.same_object <= 1):
            raise ConfigError(
                "stream: unexplained and same_object must be shares from 0 to 1, got "
                f"{self.unexplained} and {self.same_object}"
            )
        if self.rest < 0:
            raise ConfigError(f"stream: rest must be 0 or more frames, got {self.rest}")
        if self.maximum_keyframes < 2 and self.maximum_keyframes != 0:
            raise ConfigError(
                f"stream: maximum_keyframes must be 0 (no bound) or at least 2, got {self.maximum_keyframes}"
            )


@dataclass(frozen=True)
class FrameSegments:
    """segment_id: (H W) 0 = void. probability: (H W) of the winner, 0 where void. is_keyframe: queries were decoded."""

    segment_id: Int[Tensor, "h w"]
    probability: Float[Tensor, "h w"]
    is_keyframe: bool


@dataclass(frozen=True)
class _Tracked:
    """A query that found something; stuff of one class shares an id."""

    id: int
    class_id: int
    score: float
    embedding: Float[Tensor, " d"]


class SegmentStream:
    """Start with the first frames, then add the others one at a time.

    merging: when a query counts.
    """

    def __init__(
        self,
        decoder: Decoder,
        class_names: Sequence[str],
        is_thing: Sequence[bool],
        merging: StandardMerging,
        config: StreamConfig,
    ) -> None:
        self._decoder, self._merging, self._config = decoder, merging, config
        self._class_names, self._is_thing = tuple(class_names), tuple(is_thing)
        self._grid = (0, 0)
        # Of each keyframe: its tokens, and its mask features at the token grid, all that decoding reads.
        self._tokens: list[Tensor] = []
        self._features: list[Tensor] = []
        self._tracked: list[_Tracked] = []
        self._resting = 0

    @property
    def memory_bytes(self) -> int:
        """Storage of the keyframes."""
        return sum(each.numel() * each.element_size() for each in (*self._tokens, *self._features))

    @property
    def segments(self) -> list[Segment]:
        """What was found so far, by id; a segment of several queries has the best score."""
        found: dict[int, Segment] = {}
        for query in sorted(self._tracked, key=lambda tracked: (tracked.id, -tracked.score)):
            name, thing = self._class_names[query.class_id], self._is_thing[query.class_id]
            found.setdefault(query.id, Segment(query.id, query.class_id, name, thing, query.score))
        return list(found.values())

    @torch.no_grad()
    def start(
        self,
        tokens: Float[Tensor, "v t d"],
        token_grid: tuple[int, int],
        mask_features: Float[Tensor, "v dm hm wm"],
        size: tuple[int, int],
    ) -> list[FrameSegments]:
        """Segments of the first frames at image size (H, W), all of them keyframes; earlier ones, if any, are kept."""
        self._grid = token_grid
        for view_tokens, view_features in zip(tokens, mask_features):
            self._keep(view_tokens, view_features)
        self._decode()
        self._forget_oldest()
        return [replace(self._segment(each, size), is_keyframe=True) for each in mask_features]

    @torch.no_grad()
    def add(
        self, tokens: Float[Tensor, "t d"], mask_features: Float[Tensor, "dm hm wm"], size: tuple[int, int]
    ) -> FrameSegments:
        """Segments of one more frame at image size (H, W).

        Raises:
            DataError: no keyframe came first.
        """
        if not self._tokens:
            raise DataError("segmenting a frame: no keyframe was given; call start() with the first frames")
        frame = self._segment(mask_features, size)
        self._resting = max(self._resting - 1, 0)
        if self._resting or float((frame.segment_id == 0).float().mean()) <= self._config.unexplained:
            return frame
        known = len(self._tracked)
        self._keep(tokens, mask_features)
        self._decode()
        if len(self._tracked) > known:
            self._forget_oldest()
        else:  # a frame without anything new would only make the next decoding dearer
            self._tokens.pop()
            self._features.pop()
            self._resting = self._config.rest
        return replace(self._segment(mask_features, size), is_keyframe=True)

    def _keep(self, tokens: Tensor, mask_features: Tensor) -> None:
        self._tokens.append(tokens)
        small = resample_features(mask_features[None, None], self._grid)[0]
        self._features.append(small.T.unflatten(1, self._grid))

    def _forget_oldest(self) -> None:
        maximum = self._config.maximum_keyframes or len(self._tokens)
        del self._tokens[:-maximum], self._features[:-maximum]

    def _segment(self, mask_features: Tensor, size: tuple[int, int]) -> FrameSegments:
        if not self._tracked:
            void = torch.zeros(size, dtype=torch.long, device=mask_features.device)
            return FrameSegments(void, void.float(), is_keyframe=False)
        logits = torch.einsum("qd,dhw->qhw", self._embeddings(), mask_features)
        probs = functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0].sigmoid()
        score = probs.new_tensor([query.score for query in self._tracked])
        winner = (probs * score[:, None, None]).argmax(0)
        probability = probs.gather(0, winner[None])[0]
        ids = torch.tensor([query.id for query in self._tracked], device=probs.device)
        explained = probability >= self._merging.mask_threshold
        return FrameSegments(
            torch.where(explained, ids[winner], 0), torch.where(explained, probability, 0.0), is_keyframe=False
        )

    def _decode(self) -> None:
        features = torch.stack(self._features)
        output = self._decoder(torch.stack(self._tokens)[None], self._grid, features[None])
        found = self._accepted(output, features)
        if not found:
            return
        before = self._masks(self._tracked, features)
        after = self._masks(found, features)
        continued = self._continuations(before, after)
        explained = before.any(0) if len(before) else torch.zeros_like(after[0])
        for position, query in enumerate(found):
            if position in continued:
                old = continued[position]
                kept = self._tracked[old]
                # The embedding follows the newest decoding; id and class stay what the stream has already told.
                self._tracked[old] = replace(query, id=kept.id, class_id=kept.class_id)
            elif (after[position] & ~explained).sum() * 2 > after[position].sum():
                self._tracked.append(replace(query, id=self._new_id(query.class_id)))

    def _accepted(self, output: MaskOutput, features: Tensor) -> list[_Tracked]:
        merging = self._merging
        require_finite(output)
        classes = class_scores(output.class_logits[-1][0], output.class_logits[-1].shape[-1] > len(self._class_names))
        embeddings = output.mask_embeddings[-1][0]
        merged = merge_standard(
            classes,
            lambda view, queries: torch.einsum("qd,dhw->qhw", embeddings[queries], features[view]).sigmoid(),
            len(features),
            set(range(len(self._class_names))),  # pieces of stuff keep their own queries here
            merging.score_threshold,
            merging.overlap_threshold,
            merging.mask_threshold,
        )
        return [_Tracked(0, s.class_id, s.score, embeddings[s.query]) for s in merged.segments]

    def _continuations(self, before: Tensor, after: Tensor) -> dict[int, int]:
        """Position of a new query -> the tracked one it continues, by mask IoU over all keyframes."""
        if not len(before):
            return {}
        shared = after.float() @ before.float().T
        union = after.sum(1)[:, None] + before.sum(1)[None] - shared
        iou = (shared / union.clamp_min(1)).cpu().numpy()
        pairs = zip(*linear_sum_assignment(-iou))
        return {int(new): int(old) for new, old in pairs if iou[new, old] >= self._config.same_object}

    def _masks(self, queries: list[_Tracked], features: Tensor) -> Tensor:
        """(Q, V h w) bool at the token grid."""
        if not queries:
            return torch.zeros(0, features[:, 0].numel(), dtype=torch.bool, device=features.device)
        embeddings = torch.stack([query.embedding for query in queries])
        probs = torch.einsum("qd,vdhw->qvhw", embeddings, features).sigmoid()
        return (probs >= self._merging.mask_threshold).flatten(1)

    def _embeddings(self) -> Tensor:
        return torch.stack([query.embedding for query in self._tracked])

    def _new_id(self, class_id: int) -> int:
        if not self._is_thing[class_id]:
            for query in self._tracked:
                if query.class_id == class_id:
                    return query.id
        return max((query.id for query in self._tracked), default=0) + 1
