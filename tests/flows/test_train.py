"""What train and evaluate hand to the task that runs DVC: the stage, and how many devices it may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import train


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setenv("PANO3D_DEVICES", "0,1")
    monkeypatch.setattr(train, "ensure_slots", lambda names: None)
    monkeypatch.setattr(train, "repro", lambda *words: calls.append(words))
    return calls


def test_both_take_as_many_devices_as_they_are_told(handed: list[tuple[Any, ...]], tmp_path: Path) -> None:
    train.evaluate.fn("pi3", processes=2, folder=str(tmp_path))
    train.train.fn("must3r", stage="geometry_init", processes=2, folder=str(tmp_path))
    train.evaluate.fn("must3r", folder=str(tmp_path))
    place = tmp_path.resolve()
    assert handed == [
        ("evaluate@pi3", place, ("0", "1"), 2),
        ("geometry_init@must3r", place, ("0", "1"), 2),
        ("evaluate@must3r", place, ("0", "1"), 1),
    ]


def test_more_processes_than_devices_are_refused_at_once(handed: list[tuple[Any, ...]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluate@pi3: 3 processes asked for, 2 devices there \(0, 1\)"):
        train.evaluate.fn("pi3", processes=3, folder=str(tmp_path))
    assert handed == []
