"""MUSt3R's memory: one token list per decoder layer, labelled by view."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """What views have left behind for others to read; every operation returns a new memory.

    values: one (B M D) per decoder layer, or (B M 2D) packed [keys | values] in `kv` mode.
    labels: (M,) on the CPU: number of the view behind each token. Views are numbered in order of insertion; view 0
        is the reference.
    num_views: views inserted so far; the next view gets this number.
    """

    values: list[Tensor]
    labels: Int[Tensor, " m"]
    num_views: int

    @property
    def num_tokens(self) -> int:
        """Tokens per layer."""
        return self.labels.shape[0]

    @property
    def num_bytes(self) -> int:
        """Storage of all layers."""
        return sum(value.numel() * value.element_size() for value in self.values)

    def indices_of(self, view: int) -> Int[Tensor, " t"]:
        """Where the tokens of one view lie."""
        return (self.labels == view).nonzero().flatten()

    def append(self, values: list[Tensor], lengths: list[int]) -> Memory:
        """Add new views at the end, `lengths[i]` tokens for the i-th."""
        numbers = torch.arange(self.num_views, self.num_views + len(lengths))
        labels = torch.repeat_interleave(numbers, torch.tensor(lengths, dtype=torch.long))
        grown = values  # taken as they are where nothing is to be kept
        if self.num_tokens:
            grown = [torch.cat((old, new.to(old.dtype)), dim=1) for old, new in zip(self.values, values)]
        return Memory(
            values=grown,
            labels=torch.cat((self.labels, labels)),
            num_views=self.num_views + len(lengths),
        )

    def keep(self, indices: Int[Tensor, " k"]) -> Memory:
        """Only the tokens at `indices`."""
        values = [value.index_select(1, indices.to(value.device)) for value in self.values]
        return replace(self, values=values, labels=self.labels[indices.to(self.labels.device)])

    def without(self, view: int) -> Memory:
        """The memory after forgetting one view; numbers are not given out again."""
        return self.keep((self.labels != view).nonzero().flatten())

    def overwrite(self, view: int, values: list[Tensor]) -> Memory:
        """Exchange the tokens of a stored view for `values`, one (B T D) per layer, at the same places."""
        indices = self.indices_of(view)
        replaced = [
            old.index_copy(1, indices.to(old.device), new.to(old.dtype)) for old, new in zip(self.values, values)
        ]
        return replace(self, values=replaced)

    def values_of(self, view: int) -> list[Tensor]:
        """The tokens of one view, one (B T D) per layer."""
        indices = self.indices_of(view)
        return [value.index_select(1, indices.to(value.device)) for value in self.values]

    def relabel(self, view: int, number: int) -> Memory:
        """The same tokens with view `view` called `number`."""
        return replace(self, labels=torch.where(self.labels == view, number, self.labels))


def empty_memory(like: list[Tensor]) -> Memory:
    """A memory of no views whose layers have the batch, width, dtype and device of `like`."""
    return Memory(values=[value[:, :0] for value in like], labels=torch.zeros(0, dtype=torch.long), num_views=0)
