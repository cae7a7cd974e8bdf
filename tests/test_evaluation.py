"""An interrupted evaluation goes on from its finished scenes, and takes nothing that belongs to something else."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pano3d.data.archive import write_scene
from pano3d.evaluation import EvaluatedScene, EvaluationConfig, evaluate_scenes, evaluation_devices, load_views
from pano3d.metrics.scene_scores import plain_scene
from pano3d.types import Pano3DError
from tests.data.scenes import make_scene
from tests.small_model import write_small_model
from tests.training.small import MODEL, archives

CONFIG = EvaluationConfig("test", views=2, workers=1, examples=0)


def marked(finished: Path) -> list[str]:
    """Give every kept scene a cost no run has, so that a result taken from there is told from a new one."""
    files = sorted(finished.glob("*.json"))
    for file in files:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": -1.0}))
    return [file.name for file in files]


def test_views_are_spread_or_a_connected_set(tmp_path: Path) -> None:
    frames = 9
    content = make_scene("scene", views=frames, height=32, width=48)
    near = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
    overlap = np.where(near <= 1, 0.5, 0.1).astype(np.float16)
    path = tmp_path / "scene.zip"
    write_scene(path, dataclasses.replace(content, overlap=overlap))
    names = [frame.name for frame in content.frames]

    def chosen(minimum_overlap: float) -> list[int]:
        return [names.index(frame.name) for frame in load_views(path, 3, 48, 32, minimum_overlap).frames]

    assert chosen(0.0) == [0, 4, 8]
    first = chosen(0.3)
    assert list(np.diff(first)) == [1, 1]
    assert chosen(0.3) == first
    with pytest.raises(Pano3DError, match=r"minimum_overlap 1\.5; expected a share from 0 to 1"):
        dataclasses.replace(CONFIG, minimum_overlap=1.5)


def test_it_goes_on_after_the_finished_scenes(tmp_path: Path) -> None:
    model, paths, finished = write_small_model(tmp_path / "model"), archives(tmp_path / "scenes"), tmp_path / "work"
    whole = evaluate_scenes(model, paths, CONFIG, lambda _: None)
    assert all(scene.seconds > 0 and scene.peak_bytes > 2**20 for scene in whole)

    # interrupted: the last archive is damaged, the scenes before it are kept
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[: len(content) // 2])
    with pytest.raises(Pano3DError, match="scene2"):
        evaluate_scenes(model, paths, CONFIG, lambda _: None, finished)
    assert len(marked(finished)) == 2

    paths[2].write_bytes(content)
    steps: list[int] = []
    resumed = evaluate_scenes(model, paths, CONFIG, steps.append, finished)
    assert [scene.seconds == -1 for scene in resumed] == [True, True, False]
    assert steps == [2, 1]
    assert [plain_scene(s.scores) for s in resumed] == [plain_scene(s.scores) for s in whole]

    # a torn file is scored again
    torn = sorted(finished.glob("*.json"))[0]
    torn.write_text('{"scores": ')
    assert len(evaluate_scenes(model, paths, CONFIG, lambda _: None, finished)) == 3
    assert json.loads(torn.read_text())["seconds"] > 0

    # other parameters, another archive: nothing is taken over
    known = set(marked(finished))
    other = dataclasses.replace(CONFIG, views=3)
    write_scene(paths[0], make_scene("scene0", views=2, height=32, width=48))
    again: list[EvaluatedScene] = evaluate_scenes(model, paths, CONFIG, lambda _: None, finished)
    assert [math.isclose(scene.seconds, -1) for scene in again] == [False, True, True]
    assert all(scene.seconds > 0 for scene in evaluate_scenes(model, paths[1:], other, lambda _: None, finished))
    assert len(set(marked(finished)) - known) == 3


def test_scenes_are_spread_over_the_devices_and_score_as_on_one(tmp_path: Path) -> None:
    """Two names of the one CPU stand for two GPUs."""
    model, paths = write_small_model(tmp_path / "model"), archives(tmp_path / "scenes")
    names = ("cpu:0", "cpu:1")
    one = evaluate_scenes(model, paths, CONFIG, lambda _: None)
    # Many more than there are devices: the process that begins first must not be through before the other has begun.
    spread = evaluate_scenes(model, paths * 10, CONFIG, lambda _: None, devices=[torch.device(name) for name in names])
    assert {scene.device for scene in one} == {"cpu"}
    assert {scene.device for scene in spread} == set(names)
    assert [plain_scene(scene.scores) for scene in spread] == [plain_scene(scene.scores) for scene in one] * 10


def test_every_gpu_is_used_and_the_cpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [str(device) for device in evaluation_devices()] == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert evaluation_devices() == (torch.device("cpu"),)


def test_a_scene_of_many_views_is_scored_without_all_its_logits(tmp_path: Path) -> None:
    """200 views by 300 queries in full resolution would be 700 MiB; what 200 views take more than 8 is far from it."""
    decoder = dataclasses.replace(MODEL.head.decoder, queries=300)
    config = dataclasses.replace(MODEL, head=dataclasses.replace(MODEL.head, decoder=decoder))
    config = dataclasses.replace(config, backbone=dataclasses.replace(MODEL.backbone, image_width=64, image_height=48))
    model, path = write_small_model(tmp_path / "model", config), tmp_path / "long.zip"
    write_scene(path, make_scene("long", views=200, height=48, width=64))
    peaks = [
        evaluate_scenes(model, [path], dataclasses.replace(CONFIG, views=views), lambda _: None)[0].peak_bytes
        for views in (8, 200)
    ]
    logits = 200 * 300 * 48 * 64 * 4
    assert peaks[1] - peaks[0] < 0.4 * logits
