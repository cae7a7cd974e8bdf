"""Matching and loss, forward and backward, against a twin that keeps every head's mask logits and samples those.

    python -m benchmarks.panoptic_loss [--device cuda] [--views 8] [--segments 40] [--repeats 2]

The twin is the public way: logits (layers, Q, V, hm, wm) from one product per head, matching at shared points, the loss
at points of each pair's own. Ours with points per pair is measured too. Then the share of matching and loss in a
training step of the whole panoptic half. That both agree is tests/losses/test_panoptic.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.cases import Case, Growth, Work, require_close
from benchmarks.measure import cost_of, report
from pano3d.losses.matching import MaskCostSums, assign_queries, class_cost
from pano3d.losses.panoptic import PanopticCriterion, PanopticLossConfig
from pano3d.losses.point_sampling import UniformPoints, sample_at_points, sample_own_segment, sample_segments
from pano3d.losses.segmentation_terms import mask_losses, softmax_class_loss
from pano3d.panoptic.mask_decoder import MaskDecoder, MaskDecoderConfig
from pano3d.types import MaskOutput, PanopticTarget

GRID = (24, 32)
HEADS, QUERIES, WIDTH, CLASSES = 7, 200, 256, 20


def prepare(way: str, stride: int, views: int, segments: int, points: int, device: str) -> Callable[[], object]:
    """Predictions that require gradients, a target, then the measured call."""
    torch.manual_seed(0)
    up = 16 // stride
    output = MaskOutput(
        [torch.randn(1, QUERIES, CLASSES + 1, device=device, requires_grad=True) for _ in range(HEADS)],
        [torch.randn(1, QUERIES, WIDTH, device=device, requires_grad=True) for _ in range(HEADS)],
        torch.randn(1, views, WIDTH, up * GRID[0], up * GRID[1], device=device, requires_grad=True),
    )
    target = make_target(views, segments, device)
    config = PanopticLossConfig(points=points, share_points=way != "per pair")
    if way == "plain":
        return partial(_plain_step, output, target, config)
    return partial(_step, PanopticCriterion(config), output, target)


def make_target(views: int, segments: int, device: str) -> PanopticTarget:
    """Blocks of segments, a tenth of the pixels unlabelled."""
    blocks = torch.randint(0, segments, (1, views, 12, 16), device=device)
    blocks[torch.rand(blocks.shape, device=device) < 0.1] = -1
    index = blocks.repeat_interleave(32, -1).repeat_interleave(32, -2)
    things = torch.ones(segments, dtype=torch.bool, device=device)
    return PanopticTarget(index, [torch.randint(0, CLASSES, (segments,), device=device)], [things])


def prepare_both(stride: int, views: int, segments: int, points: int, device: str) -> Work:
    """The loss as it trains, and the twin, on the same predictions."""
    shared, plain = (prepare(way, stride, views, segments, points, device) for way in ("shared", "plain"))

    def check(ours: Tensor, theirs: Tensor) -> None:
        # Two estimates of one loss, at points drawn for all pairs and for each: the fewest points that are measured
        # leave 3 % between them, a term that is missing more than 10.
        require_close("loss", ours, theirs, 0.05)

    return Work(shared, check, plain)


def prepare_growth(over: str, number: int, device: str) -> Callable[[], object]:
    """Matching and loss at stride 4 of `number` views, or of 2 views with `number` true segments."""
    views, segments = (number, 20) if over == "views" else (2, number)
    return prepare("shared", 4, views, segments, 1024, device)


def cases(full: bool) -> list[Case | Growth]:
    views, points = (8, 4096) if full else (2, 1024)
    counts = {"views": (1, 2, 5, 10, 20, 50), "segments": (10, 20, 40, 80, 160)}
    if not full:
        counts = {"views": (1, 2, 4)}
    return [
        Case(f"matching and loss {views} views stride 4", partial(prepare_both, 4, views, 40, points)),
        *(Growth("matching and loss", over, sizes, partial(prepare_growth, over)) for over, sizes in counts.items()),
    ]


def _step(criterion: PanopticCriterion, output: MaskOutput, target: PanopticTarget) -> Tensor:
    views = torch.arange(target.segment_index.shape[1])
    total = criterion(output, target, views, torch.Generator().manual_seed(0))["total"]
    total.backward()
    return total.detach()


def _plain_step(output: MaskOutput, target: PanopticTarget, config: PanopticLossConfig) -> Tensor:
    heads = [torch.einsum("bqd,bvdhw->bqvhw", e, output.mask_features)[0] for e in output.mask_embeddings]
    total = sum(
        (_plain_head(logits, classes, target, config) for logits, classes in zip(heads, output.class_logits)),
        torch.zeros((), device=heads[0].device),
    )
    total.backward()
    return total.detach()


def _plain_head(logits: Tensor, classes: Tensor, target: PanopticTarget, config: PanopticLossConfig) -> Tensor:
    device, views, points = logits.device, logits.shape[1], config.points
    source = UniformPoints(torch.Generator().manual_seed(0), device)
    class_id, index = target.class_id[0], target.segment_index[0]
    with torch.no_grad():
        at = source.matching(1, (1, views, points))[0, 0]
        sampled = sample_at_points(logits.transpose(0, 1), at)
        labels, weight = sample_segments(index, at, len(class_id), ignore_void=True)
        sums = MaskCostSums()
        for view in range(views):
            sums.add(sampled[view], labels[view], weight[view])
        bce, dice = sums.bce_and_dice()
        cost = config.class_weight * class_cost(classes, class_id[None])[0]
        cost = cost + config.bce_weight * bce + config.dice_weight * dice
        fine = torch.ones(1, 1, dtype=torch.bool, device=device)
        query = assign_queries(cost[None, None], torch.ones(1, len(class_id), dtype=torch.bool, device=device), fine)
    query = query[0, 0]
    own = source.candidates(0, (1, len(class_id), views, points), query[None])[0].flatten(0, 1)
    rows = index[None].expand(len(class_id), -1, -1, -1).flatten(0, 1)
    segment = torch.arange(len(class_id), device=device).repeat_interleave(views)
    labels, weight = sample_own_segment(rows, own, segment, ignore_void=True)
    values = sample_at_points(logits[query].flatten(0, 1)[:, None], own)[:, 0]
    shape = (len(class_id), views, points)
    bce, dice = mask_losses(values.view(shape), labels.view(shape), weight.view(shape))
    wanted = torch.full((1, 1, QUERIES), CLASSES, device=device)
    wanted[0, 0, query] = class_id
    allowed = torch.ones(1, CLASSES, dtype=torch.bool, device=device)
    class_loss = softmax_class_loss(classes[None], wanted, allowed, config.no_object_weight)[0]
    masks = config.bce_weight * bce.mean() + config.dice_weight * dice.mean()
    return masks + config.class_weight * class_loss


def share_in_step(views: int, segments: int, points: int, device: str) -> float:
    """Share of matching and loss, with their backward, in a training step of the mask decoder (stride 4)."""
    torch.manual_seed(0)
    config = MaskDecoderConfig(256, 9, 8, 2048, QUERIES, token_width=256, mask_width=WIDTH)
    network = MaskDecoder(config, CLASSES).to(device).train()
    tokens = torch.randn(1, views, GRID[0] * GRID[1], 256, device=device, requires_grad=True)
    features = torch.randn(1, views, WIDTH, 4 * GRID[0], 4 * GRID[1], device=device, requires_grad=True)
    criterion = PanopticCriterion(PanopticLossConfig(points=points))
    target = make_target(views, segments, device)

    def clock() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    shares = []
    for _ in range(3):
        start = clock()
        output = network(tokens, GRID, features)
        cut = replace(
            output,
            class_logits=[x.detach().requires_grad_() for x in output.class_logits],
            mask_embeddings=[x.detach().requires_grad_() for x in output.mask_embeddings],
        )
        decoded = clock()
        _step(criterion, cut, target)
        lost = clock()
        torch.autograd.backward(
            [*output.class_logits, *output.mask_embeddings],
            [x.grad for x in (*cut.class_logits, *cut.mask_embeddings)],
        )
        end = clock()
        shares.append((lost - decoded) / (end - start))
    return min(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--segments", type=int, default=40)
    parser.add_argument("--points", type=int, default=4096, help="per view")
    parser.add_argument("--strides", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--repeats", type=int, default=2)
    chosen = parser.parse_args()
    for stride in chosen.strides:
        costs = {
            way: cost_of(
                partial(prepare, way, stride, chosen.views, chosen.segments, chosen.points),
                chosen.device,
                chosen.repeats,
            )
            for way in ("shared", "per pair", "plain")
        }
        for way in ("shared", "per pair"):
            report(f"{chosen.views} views, stride {stride}, points {way}", costs[way], costs["plain"])
    share = share_in_step(chosen.views, chosen.segments, chosen.points, chosen.device)
    print(f"share of matching and loss in a training step of the mask decoder: {100 * share:.0f} %")


if __name__ == "__main__":
    main()
