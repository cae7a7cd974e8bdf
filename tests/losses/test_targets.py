"""Segments over views, and the vocabulary of several datasets."""

import pytest
import torch

from pano3d.losses.targets import allowed_classes, segments_over_views, vocabulary_positions
from pano3d.types import VOID, DataError


def test_segments_by_hand() -> None:
    instances = torch.tensor([[[0, 7, 7]], [[3, 7, 0]]])
    classes = torch.tensor([[[0, 2, 2]], [[5, 2, 9]]])  # classes under id 0 do not matter
    index, class_id = segments_over_views(instances, classes)
    assert index.tolist() == [[[VOID, 1, 1]], [[0, 1, VOID]]]
    assert class_id.tolist() == [5, 2]


def test_nothing_labelled() -> None:
    index, class_id = segments_over_views(torch.zeros(1, 2, 2, dtype=torch.long), torch.ones(1, 2, 2, dtype=torch.long))
    assert (index == VOID).all()
    assert len(class_id) == 0


def test_segment_with_two_classes_is_named() -> None:
    with pytest.raises(DataError, match="segment 7 carries several classes"):
        segments_over_views(torch.tensor([[[7, 7]]]), torch.tensor([[[1, 2]]]))


def test_vocabulary() -> None:
    vocabulary = ["lamp", "table", "floor"]
    assert vocabulary_positions(["floor", "lamp"], vocabulary).tolist() == [2, 0]
    assert allowed_classes(["floor", "lamp"], vocabulary).tolist() == [True, False, True]
    with pytest.raises(DataError, match="sofa missing"):
        vocabulary_positions(["sofa"], vocabulary)
