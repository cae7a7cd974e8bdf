"""Who reads whom in a decoder call: plans over the key axis [memory; tokens of the call], and memory dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Int
from torch import Tensor

from pano3d.backbones.must3r_config import DropoutMode

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Reading:
    """One attention: the queries of some consecutive tokens of the call, and the keys they see.

    queries: (start, stop) on the call's token axis.
    keys: ranges (free of copies where there is one) or indices, on the axis [memory; call].
    """

    queries: tuple[int, int]
    keys: Ranges | Int[Tensor, " k"]

    def select(self, sources: Tensor) -> Tensor:
        """The rows of `sources` (B S C) that these queries see."""
        if isinstance(self.keys, Tensor):
            return sources.index_select(1, self.keys.to(sources.device))
        pieces = [sources[:, start:stop] for start, stop in self.keys]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    @property
    def end(self) -> int:
        """One past the last key that is seen."""
        if isinstance(self.keys, Tensor):
            return int(self.keys.max()) + 1 if self.keys.numel() else 0
        return self.keys[-1][1]


def render_plan(num_memory: int, num_call: int, kept: Int[Tensor, " k"] | None = None) -> list[Reading]:
    """Every view reads the memory (only its `kept` tokens, where given) and nothing of the call."""
    keys: Ranges | Tensor = ((0, num_memory),) if kept is None else kept
    return [Reading(queries=(0, num_call), keys=keys)]


def mutual_plan(num_memory: int, lengths: Sequence[int]) -> list[Reading]:
    """Inference update: each view reads the memory and all other views of the call, never itself.

    A single view without memory reads itself: there is nothing else.
    """
    if num_memory == 0 and len(lengths) == 1:
        return [Reading(queries=(0, lengths[0]), keys=((0, lengths[0]),))]
    total = num_memory + sum(lengths)
    plan = []
    for start, stop in _spans(lengths):
        ranges = ((0, num_memory + start), (num_memory + stop, total))
        plan.append(Reading(queries=(start, stop), keys=tuple(r for r in ranges if r[0] < r[1])))
    return plan


def causal_plan(
    num_memory: int, lengths: Sequence[int], kept: Sequence[Int[Tensor, " _"] | None] | None = None
) -> list[Reading]:
    """Training update: each view reads the memory and the views before it in the call.

    Without memory the first view reads the second, so that a first call of two views is the inference initial pair; a
    single view reads itself.

    Args:
        num_memory: tokens in memory.
        lengths: tokens of each view of the call.
        kept: for each view, the tokens dropout left it, as indices into [memory; call]; None hides nothing.
    """
    plan = []
    for view, (start, stop) in enumerate(_spans(lengths)):
        alive = None if kept is None else kept[view]
        end = num_memory + start
        keys: Ranges | Tensor
        if end == 0:
            keys = ((stop, stop + lengths[1]),) if len(lengths) > 1 else ((0, stop),)
        elif alive is None:
            keys = ((0, end),)
        else:
            keys = alive[alive < end]
        plan.append(Reading(queries=(start, stop), keys=keys))
    return plan


def draw_kept(
    num_memory: int,
    lengths: Sequence[int],
    num_protected: int,
    probability: float,
    mode: DropoutMode,
    generator: torch.Generator | None,
) -> list[Int[Tensor, " _"]]:
    """Which tokens memory dropout leaves to each view of an update call, as indices into [memory; call].

    `temporary` draws afresh for each view. `permanent` draws after each view among all tokens still alive, so that the
    sets shrink; its last entry, one more than there are views, is what the memory keeps. The first `num_protected`
    tokens are never dropped.
    """
    if mode == "temporary":
        return [
            draw_survivors(num_memory + start, num_protected, probability, generator) for start, _ in _spans(lengths)
        ]
    alive = torch.arange(num_memory)
    states = [alive]
    for start, stop in _spans(lengths):
        alive = torch.cat((alive, torch.arange(num_memory + start, num_memory + stop)))
        alive = alive[draw_survivors(alive.shape[0], num_protected, probability, generator)]
        states.append(alive)
    return states


def draw_survivors(
    num_tokens: int, num_protected: int, probability: float, generator: torch.Generator | None
) -> Int[Tensor, " k"]:
    """Indices of what is left when each token beyond the protected ones drops independently with `probability`."""
    survives = torch.rand(num_tokens, generator=generator) >= probability
    survives[:num_protected] = True
    return survives.nonzero().flatten()


def survivors(dropped: Int[Tensor, " d"], num_tokens: int) -> Int[Tensor, " k"]:
    """Indices below `num_tokens` that are not among the dropped."""
    survives = torch.ones(num_tokens, dtype=torch.bool)
    survives[dropped[dropped < num_tokens].cpu()] = False
    return survives.nonzero().flatten()


def _spans(lengths: Sequence[int]) -> list[tuple[int, int]]:
    stops = list(accumulate(lengths))
    return [(stop - length, stop) for stop, length in zip(stops, lengths)]
