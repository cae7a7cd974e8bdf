"""MUSt3R on a live stream: one image in, its pointmap, confidence and pose out, at bounded cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pano3d.backbones.must3r import Must3r, check_views
from pano3d.backbones.must3r_decoder import GroupPass, ViewGroup
from pano3d.backbones.must3r_head import Pointmaps, activate
from pano3d.backbones.must3r_overlap import SeenMap, SeenPoints, seen_points
from pano3d.backbones.must3r_schedule import SlidingContext
from pano3d.geometry.cameras import recover_focals, register_views
from pano3d.types import ConfigError, Views


@dataclass(frozen=True)
class StreamingConfig:
    """When a frame becomes a keyframe, and how much is remembered.

    novelty_threshold: a frame is a keyframe when more than this of it is new (distance over depth, see `SeenMap`) ...
    percentile: ... at this percentile of its points ...
    minimum_confidence: ... counting points above this confidence (native scale, >= 1), which the frame's median must
        exceed too.
    subsample: every n-th pixel in both axes is looked at.
    local_context: recent frames that stay in memory beside the keyframes.
    maximum_keyframes: the most redundant keyframe is forgotten beyond this number; 0 = no bound.
    fixed_focal: all frames come from one camera: depth is rescaled by the running focal before the pose is recovered.
    """

    novelty_threshold: float = 0.1
    percentile: float = 85.0
    minimum_confidence: float = 1.2
    subsample: int = 2
    local_context: int = 0
    maximum_keyframes: int = 0
    fixed_focal: bool = False

    def __post_init__(self) -> None:
        if self.subsample < 1 or self.local_context < 0 or not 0 <= self.percentile <= 100:
            raise ConfigError(
                "configuring a stream: expected subsample >= 1, local_context >= 0 and percentile within 0..100, got "
                f"{self.subsample}, {self.local_context} and {self.percentile}"
            )
        if self.maximum_keyframes and self.maximum_keyframes < 2:
            raise ConfigError("configuring a stream: maximum_keyframes must be 0 (no bound) or at least 2")


@dataclass(frozen=True)
class StreamedView:
    """What one step of a stream says; the world frame is the first image's camera frame.

    number: of the image, from 0. novelty: see `SeenMap.novelty`.
    encoder_tokens, decoder_tokens: as in `BackboneOutput`.
    pose_ok, focal_ok: False where the pointmaps admit no answer; then the pose is the identity, the focal 1.
    """

    number: int
    points_world: Float[Tensor, "h w 3"]
    points_camera: Float[Tensor, "h w 3"]
    confidence: Float[Tensor, "h w"]
    encoder_tokens: Float[Tensor, "t c"]
    decoder_tokens: Float[Tensor, "t d"]
    world_from_camera: Float[Tensor, "4 4"]
    focal: float
    pose_ok: bool
    focal_ok: bool
    is_keyframe: bool
    novelty: float


@dataclass(frozen=True)
class _Judged:
    pose: Tensor
    pose_ok: bool
    focal: float
    focal_ok: bool
    seen: SeenPoints
    novelty: float
    is_keyframe: bool


class StreamingSession:
    """State of one stream. Images may differ in size; the first is the reference.

    The second image is decoded together with the first as a fresh initial pair; both stay. From then on an image stays
    in memory if it shows enough that no keyframe saw from a similar direction.
    """

    def __init__(self, model: Must3r, config: StreamingConfig) -> None:
        self.model = model.eval()
        self.config = config
        self._context = SlidingContext(model.decoder, config.local_context)
        self._map = SeenMap()
        self._poses: dict[int, NDArray[np.float64]] = {}
        self._first: ViewGroup | None = None
        self._focal_sum = 0.0
        self._focal_weight = 0.0

    @property
    def keyframes(self) -> list[int]:
        """Numbers of the images in memory for good."""
        return self._context.keyframes

    @property
    def memory_bytes(self) -> int:
        """Storage of the memory."""
        return 0 if self._context.memory is None else self._context.memory.num_bytes

    @torch.no_grad()
    def step(self, image: Float[Tensor, "3 h w"]) -> StreamedView:
        """Take the next image, RGB in [0, 1].

        Raises:
            DataError: sides that the patch size does not divide, or pixels that are not finite.
        """
        check_views(Views(image[None, None]), self.model.patch_size)
        view = self.model.encode(image[None, None])
        number = self._context.num_seen
        judged: dict[int, _Judged] = {}

        def is_keyframe(frame: int, one: GroupPass) -> bool:
            judged[frame] = self._judge(frame, self._maps(one))
            return judged[frame].is_keyframe

        numbers, views = [number], [view]
        if number == 0:
            self._first = view
        elif number == 1 and self._first is not None:
            self._context = SlidingContext(self.model.decoder, self.config.local_context)
            self._map, self._poses = SeenMap(), {}
            self._focal_sum = self._focal_weight = 0.0
            numbers, views = [0, 1], [self._first, view]
            self._first = None
        passes = self._context.insert(numbers, views, is_keyframe)
        for frame, one in zip(numbers, passes):
            if frame not in judged:  # the initial image or pair stays without being asked
                judged[frame] = self._judge(frame, self._maps(one))
            if frame in self._context.keyframes:
                self._map.add(frame, judged[frame].seen)
                self._poses[frame] = judged[frame].pose.double().cpu().numpy()
        self._bound_memory()
        maps, verdict = self._maps(passes[-1]), judged[number]
        return StreamedView(
            number=number,
            points_world=maps.points_world,
            points_camera=maps.points_camera,
            confidence=maps.confidence,
            encoder_tokens=view.tokens[0, 0],
            decoder_tokens=passes[-1].last[0, 0],
            world_from_camera=verdict.pose,
            focal=verdict.focal,
            pose_ok=verdict.pose_ok,
            focal_ok=verdict.focal_ok,
            is_keyframe=number in self._context.keyframes,
            novelty=verdict.novelty,
        )

    def _maps(self, one: GroupPass) -> Pointmaps:
        return activate(one.raw[0, 0], self.model.config.activation)

    def _judge(self, number: int, maps: Pointmaps) -> _Judged:
        focal, focal_ok = recover_focals(maps.points_camera)
        camera = maps.points_camera
        if focal_ok and self.config.fixed_focal:
            weight = float(maps.confidence.mean()) - 1.0
            self._focal_sum += weight * float(focal)
            self._focal_weight += weight
            running = self._focal_sum / self._focal_weight if self._focal_weight > 0 else float(focal)
            camera = camera * camera.new_tensor([1.0, 1.0, running / float(focal)])
            focal = focal.new_tensor(running)
        if number == 0:
            pose, pose_ok = torch.eye(4, dtype=camera.dtype, device=camera.device), True
        else:
            registered, ok = register_views(maps.points_world, camera, maps.confidence)
            pose, pose_ok = registered, bool(ok)
        seen = seen_points(
            maps.points_world.float().cpu().numpy(),
            maps.points_camera.float().cpu().numpy(),
            maps.confidence.float().cpu().numpy(),
            pose.double().cpu().numpy(),
            subsample=self.config.subsample,
            minimum_confidence=self.config.minimum_confidence,
        )
        novelty = self._map.novelty(seen, self.config.percentile)
        is_sure = float(maps.confidence.median()) > self.config.minimum_confidence
        is_keyframe = pose_ok and is_sure and novelty > self.config.novelty_threshold
        return _Judged(pose, pose_ok, float(focal), bool(focal_ok), seen, novelty, is_keyframe)

    def _bound_memory(self) -> None:
        while self.config.maximum_keyframes and len(self._context.keyframes) > self.config.maximum_keyframes:
            number = most_redundant(self._poses)
            self._context.drop_keyframe(number)
            self._map.drop(number)
            del self._poses[number]


def most_redundant(poses: dict[int, NDArray[np.float64]]) -> int:
    """The keyframe to forget: the later one of the two whose cameras are most alike; never the reference.

    Cameras differ by the distance of their centres, relative to the median over all pairs, plus the angle between
    their optical axes. CHOICE: the public code never forgets a keyframe, so its memory grows without bound.
    """
    numbers = sorted(poses)
    centres = np.stack([poses[number][:3, 3] for number in numbers])
    axes = np.stack([poses[number][:3, 2] for number in numbers])
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    pairs = np.triu_indices(len(numbers), k=1)
    scale = float(np.median(distance[pairs]))
    unlike = distance / max(scale, 1e-12) + np.arccos(np.clip(axes @ axes.T, -1, 1))
    closest = int(np.argmin(unlike[pairs]))
    return numbers[max(int(pairs[0][closest]), int(pairs[1][closest]))]
