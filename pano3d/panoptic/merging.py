"""Overlapping masks with classes -> at most one segment per pixel: the ways to merge, all views of a scene jointly.

Every way reads mask probabilities through a `MaskProbabilities`, one view at a time, so that the full-resolution masks
of a long scene never exist together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MaskProbabilities = Callable[[int, Tensor], Tensor]
"""(view, queries (n,)) -> probabilities (n, H, W) of these queries' masks in that view."""


@dataclass(frozen=True)
class MergedSegment:
    """id: in the map, from 1. query: that won it. score: of its class (stuff: of its first query)."""

    id: int
    query: int
    class_id: int
    score: float


@dataclass(frozen=True)
class MergedMasks:
    """segment_id: (V H W) 0 = void. confidence: (V H W) mask probability of the winner, `void_confidence` elsewhere."""

    segment_id: Int[Tensor, "v h w"]
    confidence: Float[Tensor, "v h w"]
    segments: list[MergedSegment]


@dataclass(frozen=True)
class ClassScores:
    """Best class of each query. keep: not "no object"."""

    class_id: Int[Tensor, " q"]
    score: Float[Tensor, " q"]
    keep: Bool[Tensor, " q"]


def class_scores(class_logits: Float[Tensor, "q k"], has_no_object: bool) -> ClassScores:
    """Softmax scores when the last column is "no object", sigmoid scores otherwise."""
    if has_no_object:
        score, class_id = class_logits.softmax(-1).max(-1)
        return ClassScores(class_id, score, class_id != class_logits.shape[-1] - 1)
    score, class_id = class_logits.sigmoid().max(-1)
    return ClassScores(class_id, score, torch.ones_like(class_id, dtype=torch.bool))


@dataclass(frozen=True)
class _Contest:
    """Who wins each pixel, and what each kept query got over all views.

    winner: (V H W) row of the query. prob: (V H W) its probability. own: pixels where it wins; overlap: where it wins
    and is above the threshold; whole: of its mask.
    """

    winner: Int[Tensor, "v h w"]
    prob: Float[Tensor, "v h w"]
    own: Int[Tensor, " n"]
    overlap: Int[Tensor, " n"]
    whole: Int[Tensor, " n"]


def _contest(
    probabilities: MaskProbabilities,
    num_views: int,
    queries: Tensor,
    weight: Tensor,
    mask_threshold: float,
    whole_threshold: float,
) -> _Contest:
    totals = [torch.zeros(len(queries), dtype=torch.long, device=queries.device) for _ in range(3)]
    winners, probs_of_winners = [], []
    for view in range(num_views):
        probs = probabilities(view, queries)
        winner = (probs * weight[:, None, None]).argmax(0)
        prob = probs.gather(0, winner[None])[0]
        winners.append(winner.int())  # kept for painting: half the size
        probs_of_winners.append(prob)
        above = prob >= mask_threshold
        totals[0] += torch.bincount(winner.flatten(), minlength=len(queries))
        totals[1] += torch.bincount(winner[above], minlength=len(queries))
        totals[2] += (probs >= whole_threshold).sum((1, 2))
    return _Contest(torch.stack(winners), torch.stack(probs_of_winners), *totals)


def merge_standard(
    scores: ClassScores,
    probabilities: MaskProbabilities,
    num_views: int,
    thing_classes: set[int],
    score_threshold: float,
    overlap_threshold: float,
    mask_threshold: float = 0.5,
) -> MergedMasks:
    """Mask2Former's merging: per pixel the best score * probability wins; a mask that lost too much to others goes.

    Stuff of a class already placed joins it. Areas count all views together.

    Source: Mask2Former 9b0651c, extended to views; its transformers port is not equivalent.
    """
    queries = (scores.keep & (scores.score > score_threshold)).nonzero()[:, 0]
    weight = scores.score[queries]
    if not len(queries):
        return nothing_merged(probabilities, num_views, queries, 0.0)
    contest = _contest(probabilities, num_views, queries, weight, mask_threshold, mask_threshold)
    accepted = (contest.own > 0) & (contest.whole > 0) & (contest.overlap > 0)
    accepted &= contest.own / contest.whole.clamp_min(1) >= overlap_threshold
    segments: list[MergedSegment] = []
    stuff: dict[int, int] = {}
    id_of_query = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for row in accepted.nonzero()[:, 0].tolist():
        query = int(queries[row])
        class_id = int(scores.class_id[query])
        is_thing = class_id in thing_classes
        if not is_thing and class_id in stuff:
            id_of_query[row] = stuff[class_id]
            continue
        segment = MergedSegment(len(segments) + 1, query, class_id, float(scores.score[query]))
        if not is_thing:
            stuff[class_id] = segment.id
        segments.append(segment)
        id_of_query[row] = segment.id
    return _paint(contest, id_of_query, segments, mask_threshold, 0.0)


def merge_passes(
    scores: ClassScores,
    probabilities: MaskProbabilities,
    num_views: int,
    passes: int,
    score_threshold: float,
    mask_threshold: float,
    overlap_threshold: float,
    void_confidence: float,
) -> MergedMasks:
    """PanSt3R's merging: every class a thing; with two passes the survivors of the first share out the pixels again.

    Source: PanSt3R 0253909, variants v1 (one pass) and v2 (two).
    """
    queries = (scores.keep & (scores.score > score_threshold)).nonzero()[:, 0]
    for _ in range(passes):
        if not len(queries):
            return nothing_merged(probabilities, num_views, queries, void_confidence)
        contest = _contest(probabilities, num_views, queries, scores.score[queries], mask_threshold, 0.5)
        survives = (contest.overlap > 0) & (contest.overlap / contest.whole.clamp_min(1) >= overlap_threshold)
        queries = queries[survives]
    kept = survives
    id_of_query = torch.where(kept, torch.cumsum(kept, 0), 0)
    segments = [
        MergedSegment(number + 1, query, int(scores.class_id[query]), float(scores.score[query]))
        for number, query in enumerate(queries.tolist())
    ]
    return _paint(contest, id_of_query, segments, mask_threshold, void_confidence)


def _paint(
    contest: _Contest,
    id_of_query: Tensor,
    segments: list[MergedSegment],
    mask_threshold: float,
    void_confidence: float,
) -> MergedMasks:
    segment_id = torch.where(contest.prob >= mask_threshold, id_of_query[contest.winner], 0)
    return MergedMasks(segment_id, torch.where(segment_id > 0, contest.prob, void_confidence), segments)


def nothing_merged(
    probabilities: MaskProbabilities, num_views: int, none: Tensor, void_confidence: float
) -> MergedMasks:
    """All void; `none` is an empty list of queries."""
    empty = torch.stack([probabilities(view, none).sum(0) for view in range(num_views)])
    return MergedMasks(torch.zeros_like(empty, dtype=torch.long), torch.full_like(empty, void_confidence), [])
