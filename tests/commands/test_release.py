"""release: half-precision weights that load, a card whose numbers come from them, and nothing half written."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from pano3d import cli, config
from pano3d.commands import release
from pano3d.data.preparation import SceneTask, prepare_scenes
from pano3d.model_files import read_model, write_model

from ..data.scenes import make_scene
from ..training import small

PARAMS = {
    "seed": 0,
    "backbone": config.plain(small.MODEL.backbone),
    "head": config.plain(small.MODEL.head),
    "dataset": {
        "name": "rooms",
        "generator": {"scenes": {"train": 7}, "frames": {"train": 5}, "width": 48, "height": 32, "quality": "fast"},
    },
    "evaluate": {"split": "validation", "views": 3, "workers": 1, "examples": 0, "scores": {"resamples": 20}},
    "joint_finetune": {"training": config.plain(small.training())},
}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    tasks = [SceneTask("test", name, partial(make_scene, name, views=3, height=32, width=48)) for name in ("a", "b")]
    with ThreadPoolExecutor(1) as executor:
        prepare_scenes(tasks, folder / "work", folder / "data", executor, lambda frames: None)
    provenance = {"stage": "joint_finetune", "seed": 0, "dataset": "rooms", "steps": 6}
    write_model(folder / "model", small.model(), small.MODEL, "Apache-2.0", provenance)
    config.write(folder / "params.yaml", PARAMS)
    (folder / "curve.csv").write_text("step,loss/geometry,loss/segmentation,loss/total\n2,1,2,12\n4,0.5,1,6\n")
    words = ["release", str(folder / "model"), "--params", str(folder / "params.yaml"), "--data", str(folder / "data")]
    words += ["--curve", str(folder / "curve.csv"), "--trained-on", "one core, 3 s"]
    words += ["--experiment", "rooms_small", "--output", str(folder / "out")]
    assert cli.main(words) == 0
    return folder, words


def test_weights_are_half_as_large_and_load(released):
    folder, _ = released
    half, description = read_model(folder / "out")
    full, _ = read_model(folder / "model")
    assert (folder / "out/weights.safetensors").stat().st_size < 0.7 * (
        folder / "model/weights.safetensors"
    ).stat().st_size
    assert description.provenance["trained_on"] == "one core, 3 s"
    for name, value in full.state_dict().items():
        assert torch.allclose(half.state_dict()[name], value, rtol=1e-3, atol=1e-6)


def test_the_card_says_what_a_reader_needs(released):
    card = (released[0] / "out/README.md").read_text()
    digest = json.loads((released[0] / "out/model.json").read_text())["weights_sha256"]
    for words in (
        digest,
        "7 generated rooms x 5 photos of\n  48x32, quality `fast`",
        "params/experiment/rooms_small.yaml",
        "one core, 3 s",
        "Apache-2.0",
        "| 8 |",
        "| 4, sharing 0.3 |",
        "| wall |",
        "PQ scene",
    ):
        assert words in card
    assert (released[0] / "out/worst.png").stat().st_size > 1000


def test_the_card_of_a_split_model_names_where_it_was_trained(released):
    folder, words = released
    description = json.loads((folder / "model/model.json").read_text())
    description["provenance"]["split_from"] = "0" * 64
    shutil.copytree(folder / "model", folder / "split")
    (folder / "split/model.json").write_text(json.dumps(description))
    assert cli.main([words[0], str(folder / "split"), *words[2:-1], str(folder / "out_split")]) == 0
    card = (folder / "out_split/README.md").read_text()
    assert "`experiment: rooms_released_coarse`" in card
    assert "split-patches" in card


def test_too_large_for_git(released, monkeypatch, capsys):
    folder, words = released
    before = sorted(path.name for path in (folder / "out").iterdir())
    monkeypatch.setattr(release, "MAX_MEGABYTES", 0.001)
    assert cli.main(words) == 1
    assert "at most 0.001 go into git" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "out").iterdir()) == before


def test_a_model_of_licensed_data_is_not_released(released, capsys):
    folder, words = released
    licence = "Apache-2.0 AND LicenseRef-ScanNet"
    write_model(folder / "licensed", small.model(), small.MODEL, licence, {"stage": "joint_finetune"})
    words = [str(folder / "licensed") if word == str(folder / "model") else word for word in words]
    assert cli.main([*words[:-1], str(folder / "never")]) == 1
    assert licence in capsys.readouterr().err
    assert not (folder / "never").exists()
