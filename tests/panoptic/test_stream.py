"""Streaming with a decoder that finds every object its keyframes show, in an order that changes from call to call."""

import pytest
import torch
from torch import Tensor

from pano3d.panoptic.mask_decoder import MaskDecoder, MaskDecoderConfig
from pano3d.panoptic.scene import StandardMerging
from pano3d.panoptic.stream import SegmentStream, StreamConfig
from pano3d.types import ConfigError, DataError, MaskOutput, WeightsError

NAMES, IS_THING = ("wall", "chair"), (False, True)
OBJECTS = 6  # objects 0 and 5 are wall, the others are chairs
GRID = (2, 4)


class FindsWhatItSees:
    """Tokens are one-hot numbers of the object seen there. Class and mask of a query are those of its object."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, tokens: Tensor, token_grid: tuple[int, int], mask_features: Tensor) -> MaskOutput:
        self.calls.append(tokens.shape[1])
        seen = tokens[0].flatten(0, 1).sum(0).nonzero()[:, 0]
        seen = seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(len(self.calls)))]
        classes = torch.full((1, len(seen), len(NAMES) + 1), -9.0)
        classes[0, range(len(seen)), (seen % 5 > 0).long()] = 9.0
        return MaskOutput([classes], [torch.eye(OBJECTS)[seen][None]], mask_features)


def frame(cells: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Tokens (T, 6) and mask features (6, 8, 16) of a frame whose token cells show these objects."""
    objects = torch.tensor(cells)
    tokens = torch.nn.functional.one_hot(objects.flatten(), OBJECTS).float()
    features = torch.stack([objects == number for number in range(OBJECTS)]).float() * 16 - 8
    return tokens, features.repeat_interleave(4, -1).repeat_interleave(4, -2)


FIRST = frame([[0, 0, 1, 1], [0, 2, 2, 0]])
KNOWN = frame([[1, 1, 0, 0], [0, 0, 0, 2]])
NEW = frame([[3, 3, 3, 0], [3, 3, 2, 0]])
BLANK = frame([[0, 0, 0, 0], [0, 0, 0, 0]])[0], torch.full((OBJECTS, 8, 16), -8.0)
SIZE = (32, 64)


def stream(config: StreamConfig | None = None) -> tuple[SegmentStream, FindsWhatItSees]:
    decoder = FindsWhatItSees()
    fed = SegmentStream(decoder, NAMES, IS_THING, StandardMerging(), config or StreamConfig())
    fed.start(FIRST[0][None], GRID, FIRST[1][None], SIZE)
    return fed, decoder


def ids_by_object(fed: SegmentStream, shown: tuple[Tensor, Tensor]) -> dict[int, int]:
    """Object -> the id at the middle of its first cell."""
    result = fed.add(*shown, SIZE)
    cells = result.segment_id[8::16, 8::16].flatten().tolist()
    return dict(zip(shown[0].argmax(-1).tolist(), cells))


def test_known_objects_cost_dot_products_only() -> None:
    fed, decoder = stream()
    first = ids_by_object(fed, FIRST)
    assert sorted(first.values()) == [1, 2, 3]
    assert ids_by_object(fed, KNOWN) == first
    assert decoder.calls == [1]
    assert not fed.add(*KNOWN, SIZE).is_keyframe


def test_the_first_frames_are_segmented_as_they_are_decoded() -> None:
    decoder = FindsWhatItSees()
    fed = SegmentStream(decoder, NAMES, IS_THING, StandardMerging(), StreamConfig())
    shown = [FIRST, NEW]
    tokens, features = (torch.stack(parts) for parts in zip(*shown))
    started = fed.start(tokens, GRID, features, SIZE)
    assert decoder.calls == [2]
    assert all(one.is_keyframe for one in started)
    for one, again in zip(started, shown, strict=True):
        torch.testing.assert_close(one.segment_id, fed.add(*again, SIZE).segment_id)


def test_object_first_seen_after_the_keyframes_gets_an_id_and_the_others_keep_theirs() -> None:
    fed, decoder = stream()
    first = ids_by_object(fed, FIRST)
    result = fed.add(*NEW, SIZE)
    assert result.is_keyframe
    assert decoder.calls == [1, 2]  # decoded again over both keyframes
    later = ids_by_object(fed, NEW)
    assert later == {3: 4, 0: first[0], 2: first[2]}
    assert ids_by_object(fed, FIRST) == first
    assert ids_by_object(fed, KNOWN) == first
    assert decoder.calls == [1, 2]
    assert [(s.id, s.class_name) for s in fed.segments if s.id == 4] == [(4, "chair")]
    assert len(fed.segments) == 4


def test_every_object_has_one_id_over_a_whole_walk() -> None:
    """Objects come, go and come back; two of them are shown only after the keyframes."""
    fed, decoder = stream(StreamConfig(unexplained=0.1))
    generator = torch.Generator().manual_seed(5)
    shown: dict[int, set[int]] = {}
    for step in range(24):
        known = 3 if step < 8 else 4 if step < 16 else 5
        cells = torch.randint(0, known, (2, 4), generator=generator)
        if step in (8, 16):
            cells[0] = known - 1  # the new one comes into sight
        for thing, found in ids_by_object(fed, frame(cells.tolist())).items():
            shown.setdefault(thing, set()).add(found)
    assert sorted(shown) == [0, 1, 2, 3, 4]
    assert all(len(ids) == 1 and 0 not in ids for ids in shown.values())
    assert len(set.union(*shown.values())) == 5
    assert decoder.calls == [1, 2, 3]  # once at the start, once for each newcomer


def test_answers_that_are_not_finite_stop_the_stream() -> None:
    fed, _ = stream()

    def broken(tokens: Tensor, token_grid: tuple[int, int], mask_features: Tensor) -> MaskOutput:
        return MaskOutput([torch.full((1, 2, 3), float("nan"))], [torch.zeros(1, 2, OBJECTS)], mask_features)

    fed._decoder = broken
    with pytest.raises(WeightsError, match="NaN"):
        fed.add(*NEW, SIZE)


def test_without_re_decoding_the_new_object_stays_void() -> None:
    fed, decoder = stream(StreamConfig(unexplained=1.0))
    result = fed.add(*NEW, SIZE)
    assert decoder.calls == [1]
    assert (result.segment_id[:, :32] == 0).float().mean() > 0.8
    assert (result.probability[result.segment_id == 0] == 0).all()


def test_pieces_of_stuff_share_an_id() -> None:
    fed, _ = stream()
    wall = next(segment.id for segment in fed.segments if not segment.is_thing)
    another_wall = frame([[5, 5, 5, 5], [5, 5, 5, 4]])
    assert fed.add(*another_wall, SIZE).is_keyframe
    assert ids_by_object(fed, another_wall) == {5: wall, 4: 4}
    assert len(fed.segments) == 4


def test_a_frame_without_anything_new_is_not_decoded_again_and_again() -> None:
    fed, decoder = stream(StreamConfig(rest=3))
    for _ in range(7):
        fed.add(*BLANK, SIZE)
    assert decoder.calls == [1, 2, 2, 2]  # frames 0, 3 and 6
    assert fed.add(*KNOWN, SIZE).segment_id.unique().tolist() == [1, 2, 3]


def test_a_full_store_loses_a_keyframe_only_to_a_frame_that_shows_something_new() -> None:
    fed, decoder = stream(StreamConfig(rest=0, maximum_keyframes=2))
    fed.add(*NEW, SIZE)
    for _ in range(3):
        fed.add(*BLANK, SIZE)
    assert decoder.calls == [1, 2, 3, 3, 3]  # the two keyframes are still there each time
    held = fed.memory_bytes
    assert ids_by_object(fed, frame([[4, 4, 4, 4], [4, 4, 4, 0]]))[4] == 5
    assert fed.memory_bytes == held  # the oldest one went
    assert decoder.calls == [1, 2, 3, 3, 3, 3]


def test_a_real_decoder_fits() -> None:
    torch.manual_seed(0)
    config = MaskDecoderConfig(16, 2, 4, 24, 5, token_width=6, mask_width=6)
    everything = StandardMerging(score_threshold=0.0)
    fed = SegmentStream(MaskDecoder(config, 2).eval(), NAMES, IS_THING, everything, StreamConfig())
    with pytest.raises(DataError, match="start"):
        fed.add(*NEW, SIZE)
    fed.start(FIRST[0][None], GRID, FIRST[1][None], SIZE)
    assert fed.add(*NEW, SIZE).segment_id.shape == SIZE


def test_impossible_thresholds_are_refused() -> None:
    with pytest.raises(ConfigError, match="share"):
        StreamConfig(unexplained=1.2)


@pytest.mark.parametrize("maximum", [1, -1])
def test_impossible_bounds_are_refused(maximum: int) -> None:
    with pytest.raises(ConfigError, match=f"0 .no bound. or at least 2, got {maximum}"):
        StreamConfig(maximum_keyframes=maximum)
    with pytest.raises(ConfigError, match="rest must be 0 or more frames, got -1"):
        StreamConfig(rest=-1)
