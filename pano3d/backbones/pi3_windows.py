"""Long sequences for Pi3: overlapping windows, each reconstructed alone, chained by a similarity on what they share."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pano3d.geometry.alignment import align_similarity, scale_of
from pano3d.types import BackboneOutput

ALIGNED_POINTS = 20_000


def window_spans(num_views: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """(first, behind last) of windows of `size` views that cover all views; neighbours share `overlap` or more."""
    spans = [(0, min(size, num_views))]
    while spans[-1][1] < num_views:
        stop = min(spans[-1][1] + size - overlap, num_views)
        spans.append((stop - size, stop))
    return spans


def join_windows(outputs: list[BackboneOutput], spans: list[tuple[int, int]]) -> BackboneOutput:
    """One reconstruction in the frame and scale of the first window.

    Every window is carried onto the views it shares with those before it: the similarity between the points that both
    are surest of (Umeyama on the surer half of the shared pixels). Where the shared points do not fix a
    rotation, one of the best is taken. Shared views keep the result of the earlier window.

    Args:
        outputs: of the windows, each over its own span of views, with poses.
        spans: as `window_spans` gives them.
    """
    joined = outputs[0]
    for output, (start, _) in zip(outputs[1:], spans[1:], strict=True):
        known = joined.points_world.shape[1]
        shared = known - start
        moved = _carry(output, _similarities(output, joined, start, shared))
        joined = _append(joined, moved, shared)
    return joined


def _similarities(output: BackboneOutput, joined: BackboneOutput, start: int, shared: int) -> Float[Tensor, "b 4 4"]:
    """Transforms from the new window's frame to the joined one, one per scene."""
    sure = torch.minimum(output.confidence[:, :shared], joined.confidence[:, start:])
    transforms = []
    for scene in range(len(sure)):
        weights = sure[scene].flatten()
        chosen = weights.topk((len(weights) + 1) // 2).indices
        chosen = chosen[:: max(1, len(chosen) // ALIGNED_POINTS)]
        source, target = (
            points[scene].reshape(-1, 3)[chosen].double().cpu().numpy()
            for points in (output.points_world[:, :shared], joined.points_world[:, start:])
        )
        transforms.append(align_similarity(source, target, allow_degenerate=True))
    return torch.from_numpy(np.stack(transforms))


def _carry(output: BackboneOutput, target_from_source: Float[Tensor, "b 4 4"]) -> BackboneOutput:
    assert output.world_from_camera is not None
    scale = torch.tensor([scale_of(t) for t in target_from_source.numpy()])
    points, poses = output.points_world, output.world_from_camera
    linear, offset = target_from_source[:, :3, :3].to(points), target_from_source[:, :3, 3].to(points)
    world = torch.einsum("bij,bvhwj->bvhwi", linear, points) + offset[:, None, None, None]
    moved = target_from_source.to(poses)[:, None] @ poses
    moved[:, :, :3, :3] /= scale.to(poses)[:, None, None, None]
    camera = output.points_camera * scale.to(points)[:, None, None, None, None]
    return dataclasses.replace(output, points_world=world, points_camera=camera, world_from_camera=moved)


def _append(joined: BackboneOutput, output: BackboneOutput, shared: int) -> BackboneOutput:
    def both(known: Tensor, new: Tensor) -> Tensor:
        return torch.cat((known, new[:, shared:]), dim=1)

    assert joined.world_from_camera is not None
    assert output.world_from_camera is not None
    points_world = both(joined.points_world, output.points_world)
    return dataclasses.replace(
        joined,
        encoder_tokens=both(joined.encoder_tokens, output.encoder_tokens),
        decoder_tokens=both(joined.decoder_tokens, output.decoder_tokens),
        points_world=points_world,
        points_camera=both(joined.points_camera, output.points_camera),
        confidence=both(joined.confidence, output.confidence),
        world_from_camera=both(joined.world_from_camera, output.world_from_camera),
        view_index=torch.arange(points_world.shape[1], device=points_world.device),
    )
