"""Annotated images of several views -> the segments of one scene; which classes a dataset can judge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pano3d.types import VOID, DataError


def segments_over_views(
    instance_ids: Int[Tensor, "v h w"], class_ids: Int[Tensor, "v h w"], unlabelled: int = 0
) -> tuple[Int[Tensor, "v h w"], Int[Tensor, " m"]]:
    """One segment per instance id that occurs in any view, sorted by id.

    Returns:
        segment_index: index of each pixel's segment, VOID where unlabelled; class of each segment.

    Raises:
        DataError: the pixels of one id carry two classes.
    """
    ids, index = torch.unique(instance_ids, return_inverse=True)
    lowest = torch.full_like(ids, torch.iinfo(torch.int64).max).scatter_reduce_(
        0, index.flatten(), class_ids.flatten(), "amin"
    )
    highest = torch.full_like(ids, -1).scatter_reduce_(0, index.flatten(), class_ids.flatten(), "amax")
    labelled = ids != unlabelled
    mixed = ids[labelled & (lowest != highest)]
    if len(mixed):
        raise DataError(
            f"collecting segments over views: segment {int(mixed[0])} carries several classes; expected one class per "
            "segment in all views, prepare the scene again"
        )
    position = torch.cumsum(labelled, 0) - 1
    position[~labelled] = VOID
    return position[index], highest[labelled]


def vocabulary_positions(dataset_classes: Sequence[str], vocabulary: Sequence[str]) -> Int[Tensor, " k"]:
    """Where each class of a dataset stands in the vocabulary of all datasets.

    Raises:
        DataError: a class is missing from the vocabulary.
    """
    missing = [name for name in dataset_classes if name not in vocabulary]
    if missing:
        raise DataError(
            f"placing dataset classes in the vocabulary: {', '.join(missing)} missing; add them to the vocabulary or "
            "map them to names it has"
        )
    return torch.tensor([list(vocabulary).index(name) for name in dataset_classes], dtype=torch.long)


def allowed_classes(dataset_classes: Sequence[str], vocabulary: Sequence[str]) -> Bool[Tensor, " k"]:
    """True for the vocabulary's classes that the dataset annotates: the class loss of its scenes sees only these."""
    allowed = torch.zeros(len(vocabulary), dtype=torch.bool)
    allowed[vocabulary_positions(dataset_classes, vocabulary)] = True
    return allowed
