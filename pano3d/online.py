"""Photos one by one: each gets its points, pose and segments at once, with ids that stay, at bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_streaming import StreamedView, StreamingConfig, StreamingSession
from pano3d.panoptic.scene import StandardMerging
from pano3d.panoptic.stream import SegmentStream, StreamConfig
from pano3d.reconstruction import Reconstructor
from pano3d.types import VOID, BackboneOutput, ConfigError, PanopticScene, Segment


@dataclass(frozen=True)
class OnlineConfig:
    """geometry, segments: when a frame is remembered, and how many are. The defaults keep memory bounded."""

    geometry: StreamingConfig = field(default_factory=lambda: StreamingConfig(maximum_keyframes=24))
    segments: StreamConfig = field(default_factory=lambda: StreamConfig(maximum_keyframes=24))


@dataclass(frozen=True)
class OnlineFrame:
    """What is known about one frame when it has been seen; frame `world` is the first camera's.

    points_world: (H W 3). depth, confidence: (H W). segment_id: (H W), 0 void. segment_score: (H W).
    world_from_camera: (4 4); the identity where `is_located` is False. intrinsics: (3 3), pixels; where
    `has_focal` is False the frame does not tell its focal length and has that of the last one that did.
    """

    colors: UInt8[np.ndarray, "h w 3"]
    points_world: Float[np.ndarray, "h w 3"]
    depth: Float[np.ndarray, "h w"]
    confidence: Float[np.ndarray, "h w"]
    segment_id: Int[np.ndarray, "h w"]
    segment_score: Float[np.ndarray, "h w"]
    world_from_camera: Float[np.ndarray, "4 4"]
    intrinsics: Float[np.ndarray, "3 3"]
    is_located: bool
    has_focal: bool
    is_keyframe: bool


class OnlineReconstructor:
    """State of one capture. Only MUSt3R has the memory this needs.

    Raises:
        ConfigError: the model's backbone is another one, its merging is not standard, or its precision is reduced.
    """

    def __init__(self, reconstructor: Reconstructor, config: OnlineConfig) -> None:
        backbone = reconstructor.model.backbone
        if not isinstance(backbone, Must3r):
            raise ConfigError(
                f"reconstructing online: needs a MUSt3R model, got {type(backbone).__name__}; use --backbone must3r, "
                "or reconstruct offline"
            )
        if reconstructor.precision != "float32":
            raise ConfigError("reconstructing online: poses are solved for at every step; leave --precision at float32")
        merging = reconstructor.scene_config.merging
        if not isinstance(merging, StandardMerging):
            raise ConfigError(
                f"reconstructing online: frames can only be merged by the standard rule, got {merging.kind}; leave "
                "--merging at standard, or reconstruct offline"
            )
        self._reconstructor = reconstructor
        self._geometry = StreamingSession(backbone, config.geometry)
        labels = reconstructor.labels
        decoder = reconstructor.model.mask_decoder
        self._focal: float | None = None
        self._segments = SegmentStream(decoder, labels.names, labels.is_thing, merging, config.segments)

    @property
    def segments(self) -> list[Segment]:
        """Everything found so far, by id."""
        return self._segments.segments

    @property
    def memory_bytes(self) -> int:
        """What is remembered of earlier frames."""
        return self._geometry.memory_bytes + self._segments.memory_bytes

    @torch.no_grad()
    def step(self, image: UInt8[np.ndarray, "h w 3"]) -> OnlineFrame:
        """Take the next frame.

        Raises:
            DataError: a size the network cannot take.
        """
        reconstructor, size = self._reconstructor, image.shape[:2]
        pixels = reconstructor.views(image[None]).images[0, 0]
        view = self._geometry.step(pixels)
        patch = reconstructor.model.backbone.patch_size
        output = _as_output(view, (size[0] // patch, size[1] // patch))
        tokens, features = reconstructor.model.fusion(output)
        image_size = (size[0], size[1])
        if view.number == 0:
            found = self._segments.start(tokens[0], output.token_grid, features[0], image_size)[0]
        else:
            found = self._segments.add(tokens[0, 0], features[0, 0], image_size)
        if view.focal_ok:
            self._focal = view.focal
        # Before any frame told its own: a horizontal field of view of 60 degrees, as `recover_cameras` assumes.
        focal = size[1] / 2 / math.tan(math.pi / 6) if self._focal is None else self._focal
        return OnlineFrame(
            colors=image,
            points_world=_array(view.points_world),
            depth=_array(view.points_camera[..., 2]),
            confidence=_array(view.confidence),
            segment_id=found.segment_id.cpu().numpy().astype(np.int32),
            segment_score=_array(found.probability),
            world_from_camera=view.world_from_camera.double().cpu().numpy(),
            intrinsics=np.array([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1]]),
            is_located=view.pose_ok,
            has_focal=view.focal_ok,
            is_keyframe=view.is_keyframe or found.is_keyframe,
        )

    def scene(self, frames: Sequence[OnlineFrame]) -> PanopticScene:
        """Frames of this capture as one scene; segments of which they show too few pixels are left out."""
        segment_id = np.stack([frame.segment_id for frame in frames])
        minimum = max(self._reconstructor.scene_config.minimum_pixels, 1)
        segments = [segment for segment in self.segments if (segment_id == segment.id).sum() >= minimum]
        segment_id = np.where(np.isin(segment_id, [segment.id for segment in segments]), segment_id, 0)
        segment_score = np.stack([frame.segment_score for frame in frames])
        class_of = np.full(max([0, *(segment.id for segment in segments)]) + 1, VOID, np.int32)
        for segment in segments:
            class_of[segment.id] = segment.class_id
        return PanopticScene(
            points_world=np.stack([frame.points_world for frame in frames]),
            depth=np.stack([frame.depth for frame in frames]),
            confidence=np.stack([frame.confidence for frame in frames]),
            confidence_kind="confidence",
            segment_id=segment_id,
            class_id=class_of[segment_id],
            segment_score=np.where(segment_id > 0, segment_score, 0),
            world_from_camera=np.stack([frame.world_from_camera for frame in frames]),
            intrinsics=np.stack([frame.intrinsics for frame in frames]),
            colors=np.stack([frame.colors for frame in frames]),
            segments=segments,
            class_names=self._reconstructor.labels.names,
        )


def camera_remarks(frames: Sequence[OnlineFrame]) -> list[str]:
    """Which cameras of these frames are not known."""
    remarks = []
    lost = sum(not frame.is_located for frame in frames)
    if lost:
        remarks.append(f"{lost} of {len(frames)} views are not located: their cameras are put where the first one is")
    guessed = sum(not frame.has_focal for frame in frames)
    if guessed:
        remarks.append(
            f"{guessed} of {len(frames)} views do not tell their focal length: that of an earlier view is taken, or a "
            "field of view of 60 degrees"
        )
    return remarks


def _as_output(view: StreamedView, token_grid: tuple[int, int]) -> BackboneOutput:
    """A streamed view as the fusion takes it: one scene with one view."""
    return BackboneOutput(
        encoder_tokens=view.encoder_tokens[None, None],
        decoder_tokens=view.decoder_tokens[None, None],
        token_grid=token_grid,
        points_world=view.points_world[None, None],
        points_camera=view.points_camera[None, None],
        confidence=view.confidence[None, None],
        confidence_kind="confidence",
        world_from_camera=None,
        view_index=torch.zeros(1, dtype=torch.long, device=view.confidence.device),
    )


def _array(values: torch.Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()
