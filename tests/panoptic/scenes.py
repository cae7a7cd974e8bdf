"""Small hand-made outputs for the tests of this room."""

import numpy as np
import torch

from pano3d.types import BackboneOutput, MaskOutput

NAMES = ("wall", "floor", "chair")
IS_THING = (False, False, True)


def backbone_output(
    views: int, height: int, width: int, grid: tuple[int, int] = (2, 3), seed: int = 0
) -> BackboneOutput:
    g = torch.Generator().manual_seed(seed)
    tokens = grid[0] * grid[1]
    return BackboneOutput(
        torch.randn(1, views, tokens, 10, generator=g),
        torch.randn(1, views, tokens, 8, generator=g),
        grid,
        torch.randn(1, views, height, width, 3, generator=g),
        torch.randn(1, views, height, width, 3, generator=g),
        1 + torch.rand(1, views, height, width, generator=g),
        "confidence",
        None,
        torch.arange(views),
    )


def painted_masks(maps: np.ndarray, classes: list[int], class_logit: float = 12.0) -> MaskOutput:
    """One query per number of `maps` (V hm wm), sure of its pixels and of its class (of NAMES; 3 = no object)."""
    queries = len(classes)
    features = torch.stack([torch.from_numpy(maps == q) for q in range(queries)], 1).float()[None] * 16 - 8
    logits = torch.full((1, queries, len(NAMES) + 1), -class_logit)
    logits[0, range(queries), classes] = class_logit
    return MaskOutput([logits], [torch.eye(queries)[None]], features)
