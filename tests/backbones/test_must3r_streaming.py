"""The stream: keyframes by novelty, bounded memory, and the same predictions as the online schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.must3r_head import activate
from pano3d.backbones.must3r_memory import Memory
from pano3d.backbones.must3r_overlap import SeenMap, SeenPoints, seen_points
from pano3d.backbones.must3r_schedule import SlidingContext, online_memory
from pano3d.backbones.must3r_streaming import StreamingConfig, StreamingSession, most_redundant
from pano3d.types import ConfigError, DataError

SIZES = Must3rConfig(
    encoder_width=32, encoder_depth=1, encoder_heads=2, decoder_width=24, decoder_depth=2, decoder_heads=2
)
ALWAYS = StreamingConfig(novelty_threshold=-1.0, minimum_confidence=1.0)
NEVER = StreamingConfig(novelty_threshold=1e9, minimum_confidence=1.0)


def network() -> Must3r:
    torch.manual_seed(0)
    return Must3r(SIZES).eval()


def frames(number: int, height: int = 32, width: int = 48) -> Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("local_context", [0, 2])
def test_stream_predicts_what_the_online_schedule_does(local_context: int) -> None:
    model, images = network(), frames(6)
    session = StreamingSession(model, replace(NEVER, local_context=local_context))
    seen = [session.step(image) for image in images]
    with torch.no_grad():
        views = [model.encode(image[None, None]) for image in images]
        passes, memory = online_memory(model.decoder, views, lambda *_: False, local_context=local_context)
    for number in range(1, 6):
        expected = activate(passes[number].raw[0, 0], "norm_exp").points_world
        torch.testing.assert_close(seen[number].points_world, expected, rtol=1e-5, atol=1e-5)
    assert session.keyframes == [0, 1] == memory.labels.unique().tolist()
    assert [view.is_keyframe for view in seen] == [True, True, False, False, False, False]
    torch.testing.assert_close(seen[0].world_from_camera, torch.eye(4))
    assert all(view.world_from_camera.isfinite().all() for view in seen)


def test_memory_grows_with_keyframes_and_stays_within_its_bound() -> None:
    session = StreamingSession(network(), ALWAYS)
    sizes = []
    for image in frames(6):
        assert session.step(image).is_keyframe
        sizes.append(session.memory_bytes)
    assert sizes == [sizes[0] * n for n in range(1, 7)]
    bounded = StreamingSession(network(), replace(ALWAYS, maximum_keyframes=3, local_context=1))
    for image in frames(6):
        bounded.step(image)
        assert len(bounded.keyframes) <= 3
        assert bounded.memory_bytes <= 4 * sizes[0]
    assert 0 in bounded.keyframes


def test_passers_by_leave_nothing_behind() -> None:
    session = StreamingSession(network(), NEVER)
    sizes = [session.memory_bytes for image in frames(5) if session.step(image)]
    assert sizes[1:] == [sizes[1]] * 4


def test_unsure_frames_are_never_keyframes() -> None:
    session = StreamingSession(network(), replace(ALWAYS, minimum_confidence=1e6))
    for image in frames(4):
        view = session.step(image)
    assert session.keyframes == [0, 1]
    assert view.novelty == 0.0


def test_images_of_several_sizes_in_one_stream() -> None:
    session = StreamingSession(network(), ALWAYS)
    shapes = [session.step(frames(1, *size)[0]).confidence.shape for size in ((32, 48), (48, 32), (32, 48))]
    assert [tuple(shape) for shape in shapes] == [(32, 48), (48, 32), (32, 48)]


def test_bad_images_are_refused_and_do_not_spoil_the_stream() -> None:
    session = StreamingSession(network(), ALWAYS)
    images = frames(3)
    session.step(images[0])
    with pytest.raises(DataError, match="not finite"):
        session.step(images[1] * float("nan"))
    with pytest.raises(DataError, match="multiples"):
        session.step(images[1][:, :20])
    assert session.step(images[1]).number == 1
    assert session.step(images[2]).number == 2


def test_fixed_focal_averages_the_frames() -> None:
    session = StreamingSession(network(), replace(NEVER, fixed_focal=True))
    free = StreamingSession(network(), NEVER)
    fixed = [session.step(image) for image in frames(4)]
    loose = [free.step(image) for image in frames(4)]
    known = [(a.focal, b) for a, b in zip(fixed, loose) if b.focal_ok]
    for focal, _ in known:
        assert min(b.focal for _, b in known) - 1e-3 <= focal <= max(b.focal for _, b in known) + 1e-3


def test_bad_configurations_are_refused() -> None:
    for wrong in ({"subsample": 0}, {"local_context": -1}, {"percentile": 101.0}, {"maximum_keyframes": 1}):
        with pytest.raises(ConfigError):
            replace(ALWAYS, **wrong)  # type: ignore[arg-type]


def wall(shift: float = 0.0) -> NDArray[np.float32]:
    """A 4x4 wall at depth 2."""
    rows, columns = np.meshgrid(np.arange(4.0), np.arange(4.0), indexing="ij")
    return np.stack((columns + shift + 0.5, rows + 0.5, np.full((4, 4), 2.0)), axis=-1).astype(np.float32)


def look(points: NDArray[np.float32], position: tuple[float, float, float] = (0, 0, 0)) -> SeenPoints:
    pose = np.eye(4)
    pose[:3, 3] = position
    confidence = np.full((4, 4), 2.0, dtype=np.float32)
    camera = (points - np.asarray(position)).astype(np.float32)
    return seen_points(points, camera, confidence, pose, subsample=1, minimum_confidence=1.5)


def test_novelty_by_hand() -> None:
    known = SeenMap()
    assert known.novelty(look(wall()), 50.0) > 1e5  # nothing seen yet
    known.add(0, look(wall()))
    assert known.novelty(look(wall()), 100.0) == 0.0
    # Half a column to the right: every point lies 0.5 from its neighbour, at depth 2.
    assert known.novelty(look(wall(0.5)), 50.0) == pytest.approx(0.25)
    # The same wall from behind: known points, but from a new direction.
    behind = SeenPoints(look(wall()).points_world, look(wall()).direction_bin + 4, look(wall()).depth)
    assert known.novelty(behind, 50.0) > 1e5
    known.drop(0)
    assert known.novelty(look(wall()), 50.0) > 1e5


def test_doubtful_and_subsampled_points_do_not_count() -> None:
    confidence = np.full((4, 4), 1.0, dtype=np.float32)
    confidence[2, 2] = confidence[1, 1] = 3.0
    seen = seen_points(wall(), wall(), confidence, np.eye(4), subsample=2, minimum_confidence=1.5)
    assert seen.points_world.tolist() == [[2.5, 2.5, 2.0]]


def test_the_later_of_the_most_alike_cameras_is_forgotten() -> None:
    poses = {number: np.eye(4) for number in (0, 3, 5, 8)}
    for number, x in ((3, 1.0), (5, 4.0), (8, 4.2)):
        poses[number][0, 3] = x
    assert most_redundant(poses) == 8
    poses[8][:3, :3] = np.diag([-1.0, 1, -1])  # looks back
    assert most_redundant(poses) == 3


def test_forgotten_views_leave_their_number_unused() -> None:
    memory = Memory([torch.zeros(1, 0, 2)], torch.zeros(0, dtype=torch.long), 0)
    for value in (1.0, 2.0):
        memory = memory.append([torch.full((1, 2, 2), value)], [2])
    assert memory.without(0).labels.tolist() == [1, 1]
    assert memory.without(1).append([torch.zeros(1, 1, 2)], [1]).labels.tolist() == [0, 0, 2]
    overwritten = memory.overwrite(1, [torch.full((1, 2, 2), 9.0)])
    assert overwritten.values[0][0, :, 0].tolist() == [1, 1, 9, 9]
    assert memory.values[0][0, :, 0].tolist() == [1, 1, 2, 2]


def test_dropping_a_keyframe_keeps_the_reference() -> None:
    model = network()
    context = SlidingContext(model.decoder, 0)
    with torch.no_grad():
        views = [model.encode(image[None, None]) for image in frames(3)]
        context.insert([0, 1], views[:2], lambda *_: True)
        context.insert([2], views[2:], lambda *_: True)
    context.drop_keyframe(0)
    context.drop_keyframe(1)
    assert context.keyframes == [0, 2]
    assert context.memory is not None
    assert context.memory.labels.unique().tolist() == [0, 2]
