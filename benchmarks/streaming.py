"""A capture of 200 frames, one by one, with full memory: seconds per frame, and whether later frames cost more.

The backbone alone, and the whole online reconstruction with segments. Every frame is kept, which is the worst case.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from benchmarks.backbones import chosen_backbone
from benchmarks.cases import ON_CPU, Case, Work, require, require_close
from pano3d import load
from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_head import activate
from pano3d.backbones.must3r_schedule import online_memory
from pano3d.backbones.must3r_streaming import StreamingConfig, StreamingSession
from pano3d.model import Must3rChoice
from pano3d.online import OnlineConfig, OnlineFrame, OnlineReconstructor

ROOT = Path(__file__).parents[1]
FRAMES, KEYFRAMES, RECENT = 200, 24, 2


def cases(full: bool) -> list[Case]:
    backbone = Case("stream must3r_tiny_coarse 128x96", prepare_backbone, unit="frame", calls=FRAMES)
    whole = Case("online must3r_tiny 128x96", prepare_online, unit="frame", calls=FRAMES, devices=ON_CPU)
    return [backbone, whole] if full else [backbone]


def prepare_backbone(device: str) -> Work:
    """Random weights and a session whose memory is full; each call takes the next frame."""
    torch.manual_seed(0)
    choice = chosen_backbone("must3r_tiny_coarse")
    assert isinstance(choice, Must3rChoice)
    model = Must3r(choice.network).eval().to(device)
    session = StreamingSession(
        model, StreamingConfig(-1.0, minimum_confidence=1.0, local_context=RECENT, maximum_keyframes=KEYFRAMES)
    )
    frames = torch.rand(FRAMES, 3, choice.image_height, choice.image_width).to(device)
    upcoming = cycle(range(len(frames)))
    for _ in range(KEYFRAMES + RECENT + 1):
        session.step(frames[next(upcoming)])
    held = session.memory_bytes

    def check(_: object, __: object) -> None:
        _check_schedule(model, frames[:6])
        require(session.memory_bytes <= held, f"the memory grew from {held} to {session.memory_bytes} bytes")

    return Work(lambda: session.step(frames[next(upcoming)]), check)


def _check_schedule(model: Must3r, frames: torch.Tensor) -> None:
    """A stream that keeps nothing says what the online schedule says about the same frames."""
    session = StreamingSession(model, StreamingConfig(1e9, minimum_confidence=1.0, local_context=RECENT))
    streamed = [session.step(frame) for frame in frames]
    with torch.no_grad():
        views = [model.encode(frame[None, None]) for frame in frames]
        passes, _ = online_memory(model.decoder, views, lambda *_: False, local_context=RECENT)
    for number in range(1, len(frames)):
        expected = activate(passes[number].raw[0, 0], model.config.activation).points_world
        require_close(f"points of frame {number}", streamed[number].points_world, expected, 1e-3)


def prepare_online(device: str) -> Work:
    """The released model on noise; segments are followed too."""
    reconstructor = load(ROOT / "weights/must3r_tiny_joint", device)
    geometry = StreamingConfig(-1.0, minimum_confidence=1.0, local_context=RECENT, maximum_keyframes=KEYFRAMES)
    session = OnlineReconstructor(reconstructor, OnlineConfig(geometry=geometry))
    size = (reconstructor.image_height, reconstructor.image_width, 3)
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, *size), np.uint8)
    upcoming = cycle(range(len(frames)))
    for _ in range(KEYFRAMES + RECENT + 1):
        session.step(frames[next(upcoming)])
    held = session.memory_bytes

    def check(frame: OnlineFrame, _: None) -> None:
        require(bool(np.isfinite(frame.points_world).all()), "points that are not finite")
        require(session.memory_bytes <= 1.1 * held, f"memory grew from {held} to {session.memory_bytes} bytes")

    return Work(lambda: session.step(frames[next(upcoming)]), check)
