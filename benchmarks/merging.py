"""Masks to one segment per pixel: probabilities one view at a time, against all of them held together.

Images of 512x384, 200 queries that all take part. The twin needs memory for every view, and gains nothing by it: each
probability is taken once in either way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from benchmarks.cases import Case, Growth, Work, require, require_same
from pano3d.panoptic.merging import MergedMasks, class_scores, merge_standard
from pano3d.panoptic.scene import SceneConfig, StandardMerging, join_stuff, mask_probabilities, merge_masks, tidy
from pano3d.types import MaskOutput

IMAGE, GRID, CLASSES = (384, 512), (96, 128), 20
RULE = StandardMerging(score_threshold=0.0, overlap_threshold=0.3)


def cases(full: bool) -> list[Case | Growth]:
    views = 8 if full else 2
    counts = {"views": (1, 2, 5, 10, 20, 50), "queries": (25, 50, 100, 200)}
    if not full:
        counts = {"views": (1, 2, 4)}
    return [
        Case(f"merging {views}x512x384 200 queries", partial(prepare, views), unit="view"),
        *(Growth("merging", over, sizes, partial(prepare_growth, over)) for over, sizes in counts.items()),
    ]


def make_masks(views: int, queries: int, device: str) -> MaskOutput:
    """Queries that each want a smooth blob of their own."""
    torch.manual_seed(0)
    features = torch.nn.functional.avg_pool2d(torch.randn(views, 64, *GRID, device=device), 9, 1, 4)[None]
    classes = torch.randn(1, queries, CLASSES + 1, device=device)
    classes[..., -1] = -10  # none says "no object"
    return MaskOutput([classes], [20 * torch.randn(1, queries, 64, device=device)], features)


def prepare(views: int, device: str) -> Work:
    masks = make_masks(views, 200, device)
    things = [index >= 2 for index in range(CLASSES)]
    whole = SceneConfig(RULE)

    def check(ours: tuple[MergedMasks, list[float]], plain: MergedMasks) -> None:
        require(len(ours[0].segments) > 1, f"merging left {len(ours[0].segments)} segments; expected several")
        require_same("segment ids", ours[0].segment_id.cpu(), plain.segment_id.cpu())

    return Work(
        torch.no_grad()(partial(merge_masks, masks, IMAGE, CLASSES, things, whole)),
        check,
        torch.no_grad()(partial(merge_at_once, masks, things, whole)),
        units=views,
    )


def prepare_growth(over: str, number: int, device: str) -> Callable[[], object]:
    views, queries = (number, 50) if over == "views" else (1, number)
    things = [index >= 2 for index in range(CLASSES)]
    masks = make_masks(views, queries, device)
    return torch.no_grad()(partial(merge_masks, masks, IMAGE, CLASSES, things, SceneConfig(RULE)))


def merge_at_once(masks: MaskOutput, is_thing: list[bool], config: SceneConfig) -> MergedMasks:
    """The twin: probabilities (V Q H W) of all views first."""
    source = mask_probabilities(masks, IMAGE, upsample_logits=True)
    views, everyone = masks.mask_features.shape[1], torch.arange(masks.class_logits[-1].shape[1])
    every = [source(view, everyone) for view in range(views)]
    merged = merge_standard(
        class_scores(masks.class_logits[-1][0], has_no_object=True),
        lambda view, queries: every[view][queries],
        views,
        {index for index, thing in enumerate(is_thing) if thing},
        RULE.score_threshold,
        RULE.overlap_threshold,
        RULE.mask_threshold,
    )
    return tidy(join_stuff(replace(merged), is_thing), config.minimum_pixels)
