"""The main paths cost no more than recorded: a guard that does not depend on how fast or busy the machine is."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from benchmarks.main_paths import RECORD, counting, measure

pytestmark = pytest.mark.slow
ALLOWED = 1.10


def test_no_path_costs_a_tenth_more_than_recorded() -> None:
    recorded = json.loads(RECORD.read_text())
    counts = measure()
    assert counts.keys() == recorded.keys()
    grown = [
        f"{path}: {proxy} {value} against {recorded[path][proxy]}"
        for path, one in counts.items()
        for proxy, value in asdict(one).items()
        if value > ALLOWED * recorded[path][proxy]
    ]
    assert not grown, "; ".join(grown) + "; `python -m benchmarks.main_paths --record` if that is meant"


def test_counting() -> None:
    x = torch.ones(4, 8)
    with counting() as counts:
        y = x @ torch.ones(8, 2)  # ones, mm
        y.t()  # a view of y: nothing new
    assert counts.operators == 3
    assert counts.flops == 2 * 4 * 8 * 2
    assert counts.bytes == 4 * (8 * 2 + 4 * 2)
