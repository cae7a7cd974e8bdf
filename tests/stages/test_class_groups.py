"""ScanNet200's head, common and tail classes are scored apart."""

from __future__ import annotations

import numpy as np
import pytest

from pano3d.data.label_spaces import label_space
from pano3d.metrics.scene_scores import DatasetScores
from pano3d.stages.evaluate import group_scores


def scores(class_iou: np.ndarray) -> DatasetScores:
    nothing = np.full(len(class_iou), np.nan)
    return DatasetScores({}, nothing, class_iou, nothing, num_scenes=1, seed=0, resamples=1)


def test_a_group_is_the_mean_of_its_classes_that_occur() -> None:
    space = label_space("scannet200")
    assert {group: len(members) for group, members in space.groups.items()} == {"head": 66, "common": 68, "tail": 66}
    iou = np.full(200, np.nan)
    iou[list(space.groups["head"][:3])] = 0.2, 0.4, 0.9
    iou[list(space.groups["common"])] = 0.3
    found = group_scores(scores(iou), space)
    assert found == pytest.approx({"miou_head": 0.5, "miou_common": 0.3})  # no class of the tail occurs


def test_other_label_spaces_have_no_groups() -> None:
    assert group_scores(scores(np.full(20, 0.5)), label_space("scannet20")) == {}
