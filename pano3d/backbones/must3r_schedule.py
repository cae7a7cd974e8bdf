"""Walking MUSt3R through ordered views: offline with refinement sweeps, online with a sliding local context.

Views are `ViewGroup`s of one view each, of any image sizes; their order is the caller's and the first is the reference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from pano3d.backbones.must3r_decoder import GroupPass, Must3rDecoder, ViewGroup
from pano3d.backbones.must3r_memory import Memory

IsKeyframe = Callable[[int, GroupPass], bool]
"""Whether the view with this number, given its prediction, stays in memory for good."""


def chunk_sizes(num_views: int, first: int = 2) -> list[int]:
    """`first` views together, then one by one."""
    return [min(first, num_views), *([1] * max(num_views - first, 0))]


def update_views(
    decoder: Must3rDecoder, views: Sequence[ViewGroup], memory: Memory | None, *, predict: bool = True
) -> tuple[list[GroupPass], Memory]:
    """One update call on single views of any sizes; one pass per view, in order (none without `predict`)."""
    merged = merge_groups(views)
    passes, memory = decoder.update(merged, memory, predict=predict)
    return [one for group_pass in passes for one in split_pass(group_pass)], memory


def render_views(decoder: Must3rDecoder, views: Sequence[ViewGroup], memory: Memory, chunk: int = 0) -> list[GroupPass]:
    """Render single views of any sizes against a frozen memory, `chunk` at a time (0 = all); one pass per view."""
    passes: list[GroupPass] = []
    for start in range(0, len(views), chunk or max(len(views), 1)):
        merged = merge_groups(views[start : start + (chunk or len(views))])
        passes += [one for group_pass in decoder.render(merged, memory) for one in split_pass(group_pass)]
    return passes


def offline_memory(
    decoder: Must3rDecoder, views: Sequence[ViewGroup], *, refinements: int = 0, chunks: Sequence[int] | None = None
) -> tuple[list[GroupPass], Memory]:
    """Memory of all views, and the prediction each view got when it was inserted (in the last sweep).

    A refinement sweep decodes every view again with the whole memory, its own old tokens included, and puts its new
    tokens in place of the old; the reference keeps its first ones.
    """
    memory: Memory | None = None
    passes: list[GroupPass] = []
    spans = list(_spans(chunks or chunk_sizes(len(views))))
    for start, stop in spans:
        inserted, memory = update_views(decoder, views[start:stop], memory)
        passes += inserted
    assert memory is not None
    for _ in range(refinements):
        for start, stop in spans:
            passes[start:stop], grown = update_views(decoder, views[start:stop], memory)
            for offset, view in enumerate(range(start, stop)):
                memory = _refresh(memory, view, grown, memory.num_views + offset)
    return passes, memory


@dataclass
class SlidingContext:
    """Online memory: keyframes stay, other views are forgotten when they leave a window of recent ones.

    size: views in the window. memory: what is remembered now. num_seen: distinct views so far.
    """

    decoder: Must3rDecoder
    size: int
    memory: Memory | None = None
    num_seen: int = 0

    def __post_init__(self) -> None:
        self._window: deque[int] = deque()
        self._keyframes: set[int] = set()

    @property
    def keyframes(self) -> list[int]:
        """Numbers of the views that stay."""
        return sorted(self._keyframes)

    def insert(self, numbers: Sequence[int], views: Sequence[ViewGroup], is_keyframe: IsKeyframe) -> list[GroupPass]:
        """Decode views together and remember them; the first call's views are keyframes whatever `is_keyframe` says.

        A number that was seen before replaces its earlier tokens (keyframes; never the reference's) or returns.
        """
        is_first_call = self.memory is None
        if self.memory is not None and self.size == 0 and len(numbers) == 1 and numbers[0] not in self._keyframes:
            # With nothing else in the call, rendering gives the update's prediction and spares a passer-by's entries.
            passes = render_views(self.decoder, views, self.memory)
            if not is_keyframe(numbers[0], passes[0]):
                self._count(numbers, self.memory)
                return passes
            self._keyframes.add(numbers[0])
            _, grown = update_views(self.decoder, views, self.memory, predict=False)
            self._count(numbers, grown.relabel(grown.num_views - 1, numbers[0]))
            return passes
        passes, grown = update_views(self.decoder, views, self.memory)
        added = range(grown.num_views - len(numbers), grown.num_views)
        for number, label, one in zip(numbers, added, passes):
            if number in self._keyframes:
                grown = _refresh(grown, number, grown, label).without(label)
                continue
            if is_first_call or is_keyframe(number, one):
                self._keyframes.add(number)
            grown = grown.relabel(label, number)
        self._count(numbers, grown)
        self._window.extend(numbers)
        self._forget(self.size)
        return passes

    def drop_keyframe(self, number: int) -> None:
        """Forget a keyframe, to keep the memory bounded; the reference cannot be forgotten."""
        if self.memory is not None and number != 0 and number in self._keyframes:
            self._keyframes.remove(number)
            if number not in self._window:
                self.memory = self.memory.without(number)

    def _count(self, numbers: Sequence[int], memory: Memory) -> None:
        self.num_seen = max(self.num_seen, *(number + 1 for number in numbers))
        self.memory = replace(memory, num_views=self.num_seen)

    def close(self) -> Memory:
        """Forget everything but the keyframes, as at the end of a sweep."""
        self._forget(0)
        assert self.memory is not None
        return self.memory

    def _forget(self, size: int) -> None:
        while len(self._window) > size:
            oldest = self._window.popleft()
            if oldest not in self._keyframes and oldest not in self._window and self.memory is not None:
                self.memory = self.memory.without(oldest)


def online_memory(
    decoder: Must3rDecoder,
    views: Sequence[ViewGroup],
    is_keyframe: IsKeyframe,
    *,
    local_context: int,
    refinements: int = 0,
) -> tuple[list[GroupPass], Memory]:
    """Feed a sequence in order, two views, then one by one: predictions of the last sweep, memory of the keyframes."""
    context = SlidingContext(decoder, local_context)
    passes: list[GroupPass] = []
    for _ in range(refinements + 1):
        passes = []
        for start, stop in _spans(chunk_sizes(len(views))):
            passes += context.insert(range(start, stop), views[start:stop], is_keyframe)
        context.close()
    return passes, context.close()


def merge_groups(views: Sequence[ViewGroup]) -> list[ViewGroup]:
    """Join neighbours of one image size, keeping the order."""
    merged: list[list[ViewGroup]] = []
    for view in views:
        if merged and merged[-1][0].image_size == view.image_size:
            merged[-1].append(view)
        else:
            merged.append([view])
    return [
        run[0] if len(run) == 1 else replace(run[0], tokens=torch.cat([view.tokens for view in run], dim=1))
        for run in merged
    ]


def split_pass(group_pass: GroupPass) -> list[GroupPass]:
    """One pass per view."""
    return [
        GroupPass(
            raw=group_pass.raw[:, [view]],
            last=group_pass.last[:, [view]],
            levels=[level[:, [view]] for level in group_pass.levels],
        )
        for view in range(group_pass.last.shape[1])
    ]


def _refresh(memory: Memory, view: int, grown: Memory, label: int) -> Memory:
    """`memory` with the tokens of `view` replaced by those that `grown` holds as `label`; the reference stays."""
    return memory if view == 0 else memory.overwrite(view, grown.values_of(label))


def _spans(sizes: Iterable[int]) -> Iterable[tuple[int, int]]:
    start = 0
    for size in sizes:
        yield start, start + size
        start += size
