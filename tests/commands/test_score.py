"""`pano3d score` gives the numbers of the stage `evaluate`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pano3d import cli
from pano3d import config as parameters
from pano3d.data.archive import SceneContent, read_scene, write_scene
from pano3d.data.augmentation import flatten_segments, recolor_segments
from pano3d.data.patterns import pattern_segments
from pano3d.evaluation import EvaluationConfig, evaluate_scene, load_reconstructor, prediction_of, truth_of
from pano3d.metrics.protocols import catalogue
from pano3d.metrics.protocols.panoptic import PqConfig
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
    mine = [evaluate_scene(reconstructor, path, EvaluationConfig("test", 2, 1, 0))[0] for path in paths]
    assert [scene["values"] for scene in metrics["per_scene"]] == [plain_scene(scene)["values"] for scene in mine]
    mean = sum(scene.values["abs_rel"] for scene in mine) / 3
    assert metrics["abs_rel"] == pytest.approx(mean, abs=5e-5)
    assert metrics["abs_rel_low"] <= metrics["abs_rel"] <= metrics["abs_rel_high"]
    assert "3 scenes, up to 2 views each" in capsys.readouterr().out


def test_frames_that_share_enough_are_scored_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, path, out = write_small_model(tmp_path / "model"), tmp_path / "scene.zip", tmp_path / "metrics.json"
    overlap = np.full((5, 5), 0.1, np.float16)
    overlap[:2, :2] = 0.9
    overlap[3:, 3:] = 0.9
    write_scene(path, dataclasses.replace(make_scene("scene", views=5, height=32, width=48), overlap=overlap))
    words = ["score", model, path, "-o", out, "--views", 2, "--workers", 1, "--overlap", 0.5]
    assert cli.main([str(word) for word in words]) == 0
    assert "1 scenes, frames that share 0.5, up to 2 views each" in capsys.readouterr().out
    metrics = json.loads(out.read_text())
    assert metrics["minimum_overlap"] == 0.5
    reconstructor = load_reconstructor(model, SceneConfig(), torch.device("cpu"))
    mine, _, views = evaluate_scene(reconstructor, path, EvaluationConfig("test", 2, 1, 0, minimum_overlap=0.5))
    assert metrics["per_scene"][0]["values"] == plain_scene(mine)["values"]
    assert [frame.name for frame in views.frames] != [read_scene(path).frame(k).name for k in (0, 4)]


@pytest.mark.parametrize(
    ("flatten", "recolor", "pattern"), [(0.0, True, False), (0.7, False, False), (0.0, False, True), (0.7, True, True)]
)
def test_changed_scenes_are_scored_in_their_new_colours(
    tmp_path: Path, flatten: float, recolor: bool, pattern: bool
) -> None:
    model, paths, out = write_small_model(tmp_path / "model"), archives(tmp_path / "scenes"), tmp_path / "metrics.json"
    kept = [path.read_bytes() for path in paths]
    words = ["score", model, *paths, "-o", out, "--views", 2, "--workers", 1, "--flatten", flatten, "--seed", 3]
    assert cli.main([str(word) for word in words] + ["--recolor"] * recolor + ["--pattern"] * pattern) == 0
    metrics = json.loads(out.read_text())
    assert (metrics["flattened"], metrics["recolored"], metrics["patterned"]) == (flatten, recolor, pattern)
    assert [path.read_bytes() for path in paths] == kept
    reconstructor = load_reconstructor(model, SceneConfig(), torch.device("cpu"))
    config = EvaluationConfig("test", 2, 1, 0)
    changed = []
    for index, path in enumerate(paths):
        scene = read_scene(path)
        frames = [scene.frame(number) for number in range(len(scene))]
        segments = np.stack([frame.segment_id for frame in frames])
        colors = flatten_segments(np.stack([frame.color for frame in frames]), segments, flatten)
        generator = np.random.default_rng([3, index])
        if recolor:
            colors = recolor_segments(colors, segments, generator)
        if pattern:
            depth = np.stack([frame.depth_mm for frame in frames]).astype(np.float32) / 1000
            cameras = [
                np.stack([getattr(frame, name) for frame in frames]) for name in ("intrinsics", "scan_from_camera")
            ]
            colors = pattern_segments(colors, segments, depth, *cameras, generator)
        content = {field.name: getattr(scene, field.name) for field in dataclasses.fields(SceneContent)[:-1]}
        content["frames"] = [dataclasses.replace(frame, color=colors[n]) for n, frame in enumerate(frames)]
        write_scene(tmp_path / "changed" / path.name, SceneContent(**content))
        changed.append(evaluate_scene(reconstructor, tmp_path / "changed" / path.name, config)[0])
    assert [scene["values"] for scene in metrics["per_scene"]] == [plain_scene(scene)["values"] for scene in changed]
    plain = [plain_scene(evaluate_scene(reconstructor, path, config)[0])["values"] for path in paths]
    assert [scene["values"] for scene in metrics["per_scene"]] != plain


def test_an_archive_in_other_labels_is_refused_before_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_small_model(tmp_path / "model")
    write_scene(tmp_path / "room.zip", dataclasses.replace(make_scene(), label_space="nyu40"))
    assert cli.main(["score", str(model), str(tmp_path / "room.zip")]) == 1
    assert "labelled in nyu40, the model predicts scannet20" in capsys.readouterr().err
    assert cli.main(["score", str(model), str(tmp_path / "model")]) == 1
    assert "no scene archive in" in capsys.readouterr().err
    assert cli.main(["score", str(model), str(tmp_path / "room.zip"), "--flatten", "1.5"]) == 1
    assert "expected a share from 0 to 1" in capsys.readouterr().err


def test_what_would_fail_at_the_end_fails_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pano3d.commands.score.evaluate_scenes", None)
    model, paths = write_small_model(tmp_path / "model"), archives(tmp_path / "scenes")
    (tmp_path / "file").write_text("")
    for words, said in (
        (("--seed", "-1"), "--seed -1: expected 0 or more"),
        (("-o", str(tmp_path / "file" / "metrics.json")), "choose a folder that can be written to"),
        (("-o", str(tmp_path)), "it is a folder; name a file"),
    ):
        assert cli.main(["score", str(model), *map(str, paths), *words]) == 1
        assert said in capsys.readouterr().err


def test_protocols_print_their_decisions_with_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = write_small_model(tmp_path / "model"), tmp_path / "metrics.json"
    paths = archives(tmp_path / "scenes")
    own = tmp_path / "mine.yaml"
    own.write_text(Path("params/protocol/pq_scene.yaml").read_text().replace("[512, 512]", "[32, 48]"))
    words = ["score", model, tmp_path / "scenes", "--protocol", "pi3_pose", "--protocol", own]
    assert cli.main([str(word) for word in [*words, "-o", out, "--views", 3, "--workers", 1]]) == 0
    content = json.loads(out.read_text())
    assert set(content["protocols"]) == {"pi3_pose", "pq_scene"}
    reconstructor = load_reconstructor(model, SceneConfig(), torch.device("cpu"))
    config = EvaluationConfig("test", 3, 1, 0)
    loaded = parameters.load(own, PqConfig)
    scenes = []
    for path in paths:
        _, scene, views = evaluate_scene(reconstructor, path, config)
        scenes.append(catalogue.score_scene(loaded, prediction_of(scene), truth_of(views, "scannet20")))
    expected = catalogue.pool(loaded, scenes).values
    shown = content["protocols"]["pq_scene"]["values"]
    assert {name: pytest.approx(value, abs=5e-5, nan_ok=True) for name, value in expected.items()} == {
        name: float("nan") if value is None else value for name, value in shown.items()
    }
    printed = capsys.readouterr().out
    assert "scored on the classes of scannet20; published on those of panoptic_lifting21" in printed
    assert "views here: 3 evenly spread" in printed
    assert "labels resized (nearest) to 32x48" in printed


@pytest.mark.parametrize(
    ("name", "said"),
    [("pq_secne", "no protocol 'pq_secne'; choose among iggt, must3r_pointmap"), ("gone.yaml", "no protocol")],
)
def test_an_unknown_protocol_is_refused_before_work(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", "no_model", "no_scene.zip", "--protocol", name]) == 1
    assert said in capsys.readouterr().err
