"""`pano3d score` gives the numbers of the stage `evaluate`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from pano3d import cli
from pano3d.data.archive import write_scene
from pano3d.evaluation import EvaluationConfig, evaluate_scene, load_reconstructor
from pano3d.metrics.scene_scores import plain_scene
from pano3d.panoptic.scene import SceneConfig
from tests.data.scenes import make_scene
from tests.small_model import write_small_model
from tests.training.small import archives


def test_totals_and_scenes_are_those_of_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, paths, out = write_small_model(tmp_path / "model"), archives(tmp_path / "scenes"), tmp_path / "metrics.json"
    words = ["score", model, tmp_path / "scenes", "-o", out, "--views", 2, "--workers", 1]
    assert cli.main([str(word) for word in words]) == 0
    metrics = json.loads(out.read_text())
    assert metrics["scenes"] == 3
    reconstructor = load_reconstructor(model, SceneConfig(), torch.device("cpu"))
    mine = [evaluate_scene(reconstructor, path, EvaluationConfig("given", 2, 1, 0))[0] for path in paths]
    assert [scene["values"] for scene in metrics["per_scene"]] == [plain_scene(scene)["values"] for scene in mine]
    mean = sum(scene.values["abs_rel"] for scene in mine) / 3
    assert metrics["abs_rel"] == pytest.approx(mean, abs=5e-5)
    assert metrics["abs_rel_low"] <= metrics["abs_rel"] <= metrics["abs_rel_high"]
    assert "3 scenes, 2 views each" in capsys.readouterr().out


def test_an_archive_in_other_labels_is_refused_before_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_small_model(tmp_path / "model")
    write_scene(tmp_path / "room.zip", dataclasses.replace(make_scene(), label_space="nyu40"))
    assert cli.main(["score", str(model), str(tmp_path / "room.zip")]) == 1
    assert "labelled in nyu40, the model predicts scannet20" in capsys.readouterr().err
    assert cli.main(["score", str(model), str(tmp_path / "model")]) == 1
    assert "no scene archive in" in capsys.readouterr().err
