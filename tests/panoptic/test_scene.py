"""From masks to a scene: by hand, and against doing everything at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from pano3d.panoptic.merging import class_scores, merge_standard
from pano3d.panoptic.scene import (
    PassMerging,
    QuboMerging,
    SceneConfig,
    StandardMerging,
    assemble_scene,
    mask_probabilities,
    merge_masks,
)
from pano3d.types import VOID, ConfigError, DataError, MaskOutput, PanopticScene, WeightsError
from tests.panoptic.scenes import IS_THING, NAMES, backbone_output, painted_masks

# Two views of 4x6 cells: wall above, floor below, two chairs; query 4 is a second piece of wall, query 5 nothing.
MAPS = np.array(
    [
        [[0, 0, 0, 4, 4, 4], [0, 2, 2, 4, 4, 4], [1, 2, 2, 1, 3, 3], [1, 1, 1, 1, 3, 3]],
        [[0, 0, 0, 0, 0, 0], [0, 2, 2, 0, 0, 0], [1, 2, 2, 1, 1, 1], [5, 5, 5, 5, 5, 5]],
    ]
)
CLASSES = [0, 1, 2, 2, 0, 3]


ALL_SIZES = SceneConfig(minimum_pixels=0)


def assemble(masks: MaskOutput, config: SceneConfig = ALL_SIZES) -> PanopticScene:
    output = backbone_output(2, 16, 24)
    colors = np.zeros((2, 16, 24, 3), np.uint8)
    eyes = np.tile(np.eye(4), (2, 1, 1))
    return assemble_scene(masks, output, colors, eyes, eyes[:, :3, :3], NAMES, IS_THING, config)


@pytest.mark.parametrize("merging", [StandardMerging(), PassMerging(), QuboMerging()], ids=lambda m: m.kind)
def test_every_merging_finds_the_painted_scene(merging: StandardMerging | PassMerging | QuboMerging) -> None:
    masks = painted_masks(MAPS, CLASSES)
    scene = assemble(masks, SceneConfig(merging, minimum_pixels=0))
    assert [(s.class_name, s.is_thing) for s in scene.segments] == [
        ("wall", False),
        ("floor", False),
        ("chair", True),
        ("chair", True),
    ]
    assert [s.id for s in scene.segments] == [1, 2, 3, 4]
    centre = scene.segment_id[:, 2::4, 2::4]  # a pixel inside each mask cell
    expected = np.array([1, 2, 3, 4, 1, 0])[MAPS]  # both pieces of wall are one segment
    if merging.kind == "qubo":  # leaves no holes: the row of "nothing" goes to whoever is nearest
        np.testing.assert_array_equal(centre[0], expected[0])
    else:
        np.testing.assert_array_equal(centre, expected)
        assert (scene.class_id[scene.segment_id == 0] == VOID).all()
        assert (scene.segment_score[scene.segment_id == 0] == 0).all()
        assert all(0.7 < s.score <= 1 for s in scene.segments)
    np.testing.assert_array_equal(scene.class_id[scene.segment_id == 4], 2)


def test_geometry_and_cameras_pass_through() -> None:
    output = backbone_output(2, 16, 24)
    scene = assemble(painted_masks(MAPS, CLASSES))
    np.testing.assert_array_equal(scene.points_world, output.points_world[0].numpy())
    np.testing.assert_array_equal(scene.depth, output.points_camera[0, ..., 2].numpy())
    np.testing.assert_array_equal(scene.confidence, output.confidence[0].numpy())
    assert scene.confidence_kind == "confidence"
    assert scene.world_from_camera.dtype == np.float64


def test_small_segments_leave_no_trace() -> None:
    masks = painted_masks(MAPS, CLASSES)
    whole = assemble(masks)
    sizes = [int((whole.segment_id == s.id).sum()) for s in whole.segments]
    scene = assemble(masks, SceneConfig(minimum_pixels=sizes[3] + 1))  # the chair seen in one view only
    assert len(scene.segments) == 3
    assert set(np.unique(scene.segment_id)) == {0, 1, 2, 3}
    gone = (whole.segment_id == 4) & (scene.segment_id == 0)
    assert gone.sum() == sizes[3]
    assert (scene.segment_score[gone] == 0).all()
    assert len(assemble(masks, SceneConfig(minimum_pixels=sizes[3])).segments) == 4


def test_nothing_found_is_an_empty_scene() -> None:
    for merging in (StandardMerging(), PassMerging(), QuboMerging()):
        scene = assemble(painted_masks(MAPS, [3] * 6), SceneConfig(merging))
        assert scene.segments == []
        assert (scene.segment_id == 0).all()
        assert (scene.class_id == VOID).all()


def test_one_view_is_a_scene() -> None:
    masks = painted_masks(MAPS[:1], CLASSES)
    merged, scores = merge_masks(masks, (16, 24), len(NAMES), IS_THING, ALL_SIZES)
    assert merged.segment_id.shape == (1, 16, 24)
    assert [segment.class_id for segment in merged.segments] == [0, 1, 2, 2]
    assert len(scores) == 4


@pytest.mark.parametrize("part", ["class_logits", "mask_embeddings"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_no_empty_scene(part: str, value: float) -> None:
    masks = painted_masks(MAPS, CLASSES)
    broken = getattr(masks, part)[-1].clone()
    broken[0, 2, 1] = value
    for merging in (StandardMerging(), PassMerging(), QuboMerging()):
        with pytest.raises(WeightsError, match="NaN or infinity"):
            assemble(replace(masks, **{part: [broken]}), SceneConfig(merging))


def test_view_by_view_equals_all_logits_at_once() -> None:
    g = torch.Generator().manual_seed(3)
    masks = MaskOutput(
        [torch.randn(1, 9, 4, generator=g) * 4],
        [torch.randn(1, 9, 5, generator=g)],
        torch.randn(1, 3, 5, 8, 12, generator=g) * 2,
    )
    merging = StandardMerging(score_threshold=0.3, overlap_threshold=0.3)
    merged, _ = merge_masks(masks, (32, 48), 3, IS_THING, SceneConfig(merging, minimum_pixels=0))
    logits = torch.einsum("qd,vdhw->qvhw", masks.mask_embeddings[0][0], masks.mask_features[0])
    full = functional.interpolate(logits, size=(32, 48), mode="bilinear", align_corners=False).sigmoid()
    plain = merge_standard(class_scores(masks.class_logits[0][0], True), lambda v, q: full[q, v], 3, {2}, 0.3, 0.3, 0.5)
    assert len(plain.segments) > 1
    torch.testing.assert_close(merged.segment_id, plain.segment_id)
    probabilities = mask_probabilities(masks, (32, 48), upsample_logits=True)
    torch.testing.assert_close(probabilities(1, torch.arange(9)), full[:, 1])


def test_score_is_class_times_mean_mask_probability() -> None:
    masks = painted_masks(np.zeros((1, 4, 6), int), [2])
    output = backbone_output(1, 16, 24)
    eye = np.eye(4)[None]
    colors = np.zeros((1, 16, 24, 3), np.uint8)
    scene = assemble_scene(masks, output, colors, eye, eye[:, :3, :3], NAMES, IS_THING, SceneConfig())
    # class logits 12 against -12 three times; mask logits 8 everywhere
    expected = 1 / (1 + 3 * np.exp(-24)) * (1 / (1 + np.exp(-8)))
    assert scene.segments[0].score == pytest.approx(expected, rel=1e-5)


def test_annealing_repeats_with_its_seed() -> None:
    g = torch.Generator().manual_seed(4)
    masks = MaskOutput(
        [torch.randn(1, 30, 3, generator=g)],
        [torch.randn(1, 30, 4, generator=g)],
        torch.randn(1, 2, 4, 6, 8, generator=g),
    )
    config = SceneConfig(QuboMerging(seed=5))
    first, _ = merge_masks(masks, (12, 16), 3, IS_THING, config)
    again, _ = merge_masks(masks, (12, 16), 3, IS_THING, config)
    assert first.segments == again.segments
    torch.testing.assert_close(first.segment_id, again.segment_id)


def test_wrong_sizes_are_named() -> None:
    masks = painted_masks(MAPS, CLASSES)
    with pytest.raises(DataError, match="one scene with 2 views"):
        assemble(replace(masks, mask_features=masks.mask_features[:, :1]))
    with pytest.raises(DataError, match="judges 7 columns"):
        assemble(replace(masks, class_logits=[torch.zeros(1, 6, 7)]))


@pytest.mark.parametrize("rule", [StandardMerging, PassMerging])
def test_thresholds_that_are_no_shares_are_refused(rule: type[StandardMerging | PassMerging]) -> None:
    with pytest.raises(ConfigError, match=r"shares from 0 to 1, got 1\.2, "):
        rule(score_threshold=1.2)
