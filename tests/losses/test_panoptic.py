"""The set-prediction loss: against a plain twin, its edges, its gradients, its symmetries."""

from dataclasses import replace

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from pano3d.losses.panoptic import PanopticCriterion, PanopticLossConfig
from pano3d.losses.point_sampling import UniformPoints
from pano3d.types import VOID, ConfigError, MaskOutput, PanopticTarget, TrainingError

CONFIG = PanopticLossConfig(points=64)
K = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predictions(
    scenes: int = 2, views: int = 3, queries: int = 8, layers: int = 3, columns: int = K + 1, seed: int = 1
) -> MaskOutput:
    g = generator(seed)
    features = torch.randn(scenes, views, 6, 8, 12, generator=g, requires_grad=True)
    return MaskOutput(
        [torch.randn(scenes, queries, columns, generator=g, requires_grad=True) for _ in range(layers)],
        [torch.randn(scenes, queries, 6, generator=g, requires_grad=True) for _ in range(layers)],
        features,
    )


def truth(scenes: int = 2, images: int = 3, segments: int = 4, void: float = 0.2, seed: int = 2) -> PanopticTarget:
    g = generator(seed)
    blocks = torch.randint(0, segments, (scenes, images, 4, 6), generator=g)
    blocks[torch.rand(blocks.shape, generator=g) < void] = VOID
    index = blocks.repeat_interleave(4, -1).repeat_interleave(4, -2)
    classes = [torch.randint(0, K, (segments,), generator=g) for _ in range(scenes)]
    return PanopticTarget(index, classes, [torch.ones(segments, dtype=torch.bool)] * scenes)


def loss(output: MaskOutput, target: PanopticTarget, config: PanopticLossConfig = CONFIG) -> dict[str, Tensor]:
    return PanopticCriterion(config)(output, target, torch.arange(target.segment_index.shape[1]), generator())


def plain_loss(output: MaskOutput, target: PanopticTarget, config: PanopticLossConfig) -> Tensor:
    """The same loss with every logit of every query on the grid, masks per segment, and loops."""
    scenes, views = output.mask_features.shape[:2]
    points = UniformPoints(generator(), torch.device("cpu")).matching(1, (scenes, views, config.points))[0]
    total = torch.zeros(())
    count = sum(
        len(target.segment_index[b].unique()) - bool((target.segment_index[b] == VOID).any()) for b in range(scenes)
    )
    for class_logits, embeddings in zip(output.class_logits, output.mask_embeddings):
        wanted = torch.full(class_logits.shape[:2], K)
        for b in range(scenes):
            logits, labels, weights = [], [], []
            for v in range(views):
                grid = (2 * points[b, v] - 1)[None, :, None]
                full = torch.einsum("qd,dhw->qhw", embeddings[b], output.mask_features[b, v])
                logits.append(functional.grid_sample(full[None], grid, align_corners=False)[0, ..., 0])
                image = target.segment_index[b, v]
                masks = torch.stack([image == m for m in range(-1, len(target.class_id[b]))]).float()
                sampled = functional.grid_sample(masks[None], grid, align_corners=False)[0, ..., 0]
                weights.append(1 - sampled[0] / sampled.sum(0))
                labels.append(sampled[1:] / weights[-1].clamp_min(1e-6))
            z, t, w = torch.stack(logits, 1), torch.stack(labels, 1), torch.stack(weights)
            seen = [m for m in range(t.shape[0]) if bool((target.segment_index[b] == m).any())]
            bce, dice, cost = {}, {}, torch.zeros(len(z), len(seen))
            for q in range(len(z)):
                for column, m in enumerate(seen):
                    raw = functional.binary_cross_entropy_with_logits(z[q], t[m], reduction="none")
                    bce[q, m] = (raw * w).sum() / w.sum()
                    p = z[q].sigmoid() * w
                    pooled = 1 - (2 * (p * t[m]).sum() + 1) / (p.sum() + (t[m] * w).sum() + 1)
                    per_view = 1 - (2 * (p * t[m]).sum(1) + 1) / (p.sum(1) + (t[m] * w).sum(1) + 1)
                    dice[q, m] = per_view.mean()
                    prob = class_logits[b, q].softmax(-1)[target.class_id[b][m]]
                    cost[q, column] = (
                        -config.class_weight * prob + config.bce_weight * bce[q, m] + config.dice_weight * pooled
                    )
            rows, columns = linear_sum_assignment(cost.detach().numpy())
            for q, column in zip(rows.tolist(), columns.tolist()):
                m = seen[column]
                total = total + (config.bce_weight * bce[q, m] + config.dice_weight * dice[q, m]) / count
                wanted[b, q] = target.class_id[b][m]
        weight = torch.ones(K + 1)
        weight[-1] = config.no_object_weight
        entropy = functional.cross_entropy(class_logits.flatten(0, 1), wanted.flatten(), weight=weight)
        total = total + config.class_weight * entropy
    return total


def test_equals_the_plain_loss_and_its_gradient() -> None:
    output, target = predictions(), truth()
    leaves = [output.mask_features, *output.mask_embeddings, *output.class_logits]
    lean = loss(output, target)["total"]
    plain = plain_loss(output, target, CONFIG)
    torch.testing.assert_close(lean, plain, rtol=1e-5, atol=1e-5)
    gradients = zip(torch.autograd.grad(lean, leaves), torch.autograd.grad(plain, leaves))
    for ours, theirs in gradients:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_total_is_the_weighted_sum_of_its_parts() -> None:
    parts = loss(predictions(), truth())
    torch.testing.assert_close(parts["total"], 2 * parts["class"] + 2 * parts["dice"] + 5 * parts["bce"])
    assert parts["segments"] == parts["matched"] == 8
    assert parts["unmatched_targets"] == 0


def test_order_of_queries_and_of_segments_does_not_matter() -> None:
    output, target = predictions(), truth()
    order = torch.randperm(8, generator=generator(5))
    shuffled = replace(
        output,
        class_logits=[x[:, order] for x in output.class_logits],
        mask_embeddings=[x[:, order] for x in output.mask_embeddings],
    )
    renamed = torch.tensor([2, 0, 3, 1])  # segment m becomes renamed[m]
    index = torch.where(target.segment_index == VOID, VOID, renamed[target.segment_index.clamp_min(0)])
    moved = replace(target, segment_index=index, class_id=[c[renamed.argsort()] for c in target.class_id])
    expected = loss(output, target)["total"]
    torch.testing.assert_close(loss(shuffled, target)["total"], expected)
    torch.testing.assert_close(loss(output, moved)["total"], expected)


def test_perfect_masks_cost_nothing() -> None:
    target = truth(scenes=1, void=0.0)
    index = target.segment_index
    features = torch.stack([index == m for m in range(4)], 2).float() * 60 - 30
    queries = torch.eye(4)[None]
    classes = functional.one_hot(target.class_id[0], K + 1)[None].float() * 50
    output = MaskOutput([classes], [queries], features)
    parts = loss(output, target, replace(CONFIG, void="ignore", points=512))
    assert parts["class"] < 1e-6
    # Points between two segments keep a soft truth, hence not exactly zero.
    assert parts["bce"] < 10 * 0.5
    assert parts["dice"] < loss(predictions(1, layers=1), target)["dice"] / 4


def test_pixels_under_void_change_nothing() -> None:
    output, target = predictions(), truth(void=0.0)
    hidden = target.segment_index.clone()
    hidden[:, 1] = VOID  # view 1 unlabelled in both scenes
    target = replace(target, segment_index=hidden)
    changed = output.mask_features.detach().clone()
    changed[:, 1] = torch.randn(changed[:, 1].shape, generator=generator(9)) * 5
    moved = replace(output, mask_features=changed)
    torch.testing.assert_close(loss(moved, target)["total"], loss(output, target)["total"])
    background = replace(CONFIG, void="background")
    assert (loss(moved, target, background)["total"] - loss(output, target, background)["total"]).abs() > 1e-3


def test_view_seen_twice_is_matched_once() -> None:
    target = truth(images=2)
    output = predictions(views=4)
    parts = PanopticCriterion(CONFIG)(output, target, torch.tensor([0, 1, 0, 1]), generator())
    assert parts["segments"] == 8
    doubled = replace(target, segment_index=target.segment_index.repeat(1, 2, 1, 1))
    torch.testing.assert_close(parts["total"], loss(output, doubled)["total"])


def test_pooled_dice_differs_and_sees_views_as_one_mask() -> None:
    output, target = predictions(layers=1), truth()
    pooled = loss(output, target, replace(CONFIG, dice="pooled"))["dice"]
    assert (pooled - loss(output, target)["dice"]).abs() > 1e-3
    one = predictions(views=1, layers=1), truth(images=1)
    torch.testing.assert_close(loss(*one, replace(CONFIG, dice="pooled"))["dice"], loss(*one)["dice"])


def test_points_per_pair_agree_with_shared_points_on_average() -> None:
    output, target = predictions(layers=1), truth()
    shared = loss(output, target, replace(CONFIG, points=20_000))["bce"]
    own = loss(output, target, replace(CONFIG, points=20_000, share_points=False))["bce"]
    torch.testing.assert_close(shared, own, rtol=0.02, atol=0.0)


def test_importance_sampling_prefers_uncertain_points() -> None:
    output, target = predictions(layers=1), truth()
    config = replace(CONFIG, share_points=False, points=400)
    importance = replace(config, oversample=3.0, importance=0.75)
    assert loss(output, target, importance)["bce"] < loss(output, target, config)["bce"]


@pytest.mark.parametrize("share_points", [True, False])
@pytest.mark.parametrize("case", ["no segment", "all void", "one view", "one pixel view"])
def test_edges_are_finite_and_reach_every_input(case: str, share_points: bool) -> None:
    target, views = truth(), 3
    if case == "no segment":
        none = torch.zeros(0, dtype=torch.long)
        target = PanopticTarget(torch.full((2, 3, 16, 24), VOID), [none, none], [none.bool(), none.bool()])
    if case == "all void":
        target = replace(target, segment_index=torch.full_like(target.segment_index, VOID))
    if case == "one view":
        target, views = truth(images=1), 1
    if case == "one pixel view":
        target, views = replace(target, segment_index=target.segment_index[:, :1, :1, :1]), 1
    output = predictions(views=views)
    parts = loss(output, target, replace(CONFIG, share_points=share_points))
    assert all(value.isfinite() for value in parts.values())
    parts["total"].backward()
    for leaf in (output.mask_features, *output.mask_embeddings, *output.class_logits):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    if case in ("no segment", "all void"):
        assert parts["segments"] == parts["bce"] == parts["dice"] == 0
        assert parts["class"] > 0


def test_more_segments_than_queries_leaves_some_unmatched() -> None:
    parts = loss(predictions(queries=3), truth(segments=5))
    assert parts["segments"] == 10
    assert parts["matched"] == 6
    assert parts["unmatched_targets"] == 4
    assert parts["total"].isfinite()


def test_segment_that_no_view_shows_is_no_target() -> None:
    target = truth()
    extra = [torch.cat([classes, torch.tensor([1])]) for classes in target.class_id]
    listed = replace(target, class_id=extra, is_thing=[torch.ones(5, dtype=torch.bool)] * 2)
    output = predictions()
    torch.testing.assert_close(loss(output, listed)["total"], loss(output, target)["total"])
    assert loss(output, listed)["segments"] == 8


@pytest.mark.parametrize("where", ["class_logits", "mask_embeddings", "mask_features"])
def test_predictions_that_are_not_finite_stop_training(where: str) -> None:
    output = predictions()
    field = getattr(output, where)
    broken = (field if isinstance(field, Tensor) else field[1]).detach().clone()
    broken[1, 0] = float("nan")
    changed = broken if isinstance(field, Tensor) else [field[0], broken, field[2]]
    with pytest.raises(TrainingError, match="scene 1 predicts NaN"):
        loss(replace(output, **{where: changed}), truth())


def test_broken_predictions_stop_training_without_segments_too() -> None:
    output, target = predictions(), truth()
    none = torch.zeros(0, dtype=torch.long)
    empty = PanopticTarget(torch.full_like(target.segment_index, VOID), [none, none], [none.bool(), none.bool()])
    broken = [x.detach().clone() for x in output.mask_embeddings]
    broken[1][0, 2, 3] = float("inf")
    with pytest.raises(TrainingError, match="layer 1, scene 0"):
        loss(replace(output, mask_embeddings=broken), empty)


def test_classes_of_other_datasets_do_not_count() -> None:
    output, target = predictions(), truth()
    target = replace(target, class_id=[classes % 3 for classes in target.class_id])
    allowed = torch.tensor([[True, True, True, False, False]] * 2)
    for mode, columns in (("softmax", K + 1), ("sigmoid", K)):
        output = predictions(columns=columns)
        moved = [x.detach().clone() for x in output.class_logits]
        for x in moved:
            x[..., 3:5] += 7  # only the classes this dataset does not know
        config = replace(
            CONFIG, class_mode=mode, class_weight=0.0
        )  # matching sees all classes, as the public code does
        criterion = PanopticCriterion(config)
        masked = replace(target, class_allowed=allowed)
        changed = replace(output, class_logits=moved)
        first, second = (criterion(each, masked, torch.arange(3), generator())["class"] for each in (output, changed))
        torch.testing.assert_close(second, first)
        assert criterion(changed, target, torch.arange(3), generator())["class"] > first + 1e-3


def test_unmatched_queries_weigh_little() -> None:
    output, target = predictions(layers=1), truth()
    light = loss(output, target, replace(CONFIG, no_object_weight=0.0))["class"]
    cost_free = output.class_logits[0]
    assert cost_free.shape[-1] == K + 1
    torch.testing.assert_close(
        loss(output, target, replace(CONFIG, no_object_weight=1e-7))["class"], light, rtol=1e-3, atol=1e-4
    )


def test_same_generator_same_loss() -> None:
    output, target = predictions(), truth()
    assert loss(output, target)["total"] == loss(output, target)["total"]
    other = PanopticCriterion(CONFIG)(output, target, torch.arange(3), generator(7))["total"]
    assert other != loss(output, target)["total"]


@pytest.mark.parametrize(
    "wrong",
    [{"points": 0}, {"importance": 0.75}, {"class_weight": -1.0}, {"oversample": 0.5, "share_points": False}],
)
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        PanopticLossConfig(**wrong)
