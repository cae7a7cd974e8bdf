"""Every variant of the comparison composes, differs from the others, and gets the arithmetic it is promised."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import loss_per_flop
from benchmarks.loss_per_flop import COUNTED_STEPS, PARAMS, VARIANTS, run_variant
from pano3d import config
from pano3d.model import BackboneChoice, Must3rChoice
from pano3d.stages.geometry_init import GeometryInitConfig


def test_variants_differ_in_what_they_say() -> None:
    seen = {}
    for name, words in VARIANTS.items():
        settings = config.compose(PARAMS, ["backbone=must3r_tiny_coarse", *words])
        choice: BackboneChoice = config.load(settings, BackboneChoice, "backbone")
        stage = config.load(settings, GeometryInitConfig, "geometry_init")
        assert isinstance(choice, Must3rChoice)
        assert stage.training is not None
        network = choice.network
        assert network.encoder_width == 32 * network.encoder_heads
        seen[name] = (config.digest(settings["backbone"]), config.digest(settings["geometry_init"]))
    assert len(set(seen.values())) == len(VARIANTS)


def test_steps_follow_from_the_arithmetic_of_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []

    def train(words: list[str], data: Path, folder: Path, steps: int) -> tuple[float, float]:
        asked.append(steps)
        for _ in range(steps if len(asked) == 1 else 0):
            torch.ones(100, 100) @ torch.ones(100, 100)  # 2 MFLOP
        return 0.5, 2.0

    totals = SimpleNamespace(values={"abs_rel": 0.2, "rotation_auc30": 0.3})
    monkeypatch.setattr(loss_per_flop, "train", train)
    monkeypatch.setattr(loss_per_flop, "evaluate_scenes", lambda *arguments: [])
    monkeypatch.setattr(loss_per_flop, "aggregate_scenes", lambda *arguments: totals)
    figures = run_variant([], tmp_path, [], 1e-4)
    assert asked == [COUNTED_STEPS, 50]
    assert figures == pytest.approx(
        {"GFLOP a step": 2e-3, "steps": 50, "seconds": 2, "loss": 0.5, "depth error": 20, "rotation AUC@30": 30}
    )
