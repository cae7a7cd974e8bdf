"""register: from what DVC left to versions in the registry, once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from pano3d import cli, config, model_files
from pano3d.data.label_spaces import label_space
from pano3d.model import BackboneChoice, HeadConfig, ModelConfig, build_model
from pano3d.tracking import store
from tests.commands.project import write
from tests.project import ROOT
from tests.tracking.conftest import migrated, project  # noqa: F401
from tests.tracking.scores import scenes, write_scores


@pytest.fixture
def trained(project: Path) -> Path:  # noqa: F811
    """What a reproduction leaves for one backbone, with fresh weights for trained ones."""
    (project / "params").mkdir()
    (project / "params/run.yaml").write_text("dataset: rooms\n")
    params = config.compose(ROOT / "params", ["backbone=pi3_tiny", "head=tiny"])
    config.write(project / "results/rooms/pi3/params.yaml", params)
    write(project, "pi3", "evaluate", {"pq_scene": 0.5})
    write(project, "pi3", "compare_confidence", {"ause": 0.1})
    write_scores(project / "reports/rooms/pi3/evaluate", scenes(count=2))
    (project / "data/prepared/rooms").mkdir(parents=True)
    rows = [{"scene": f"room-0{i}", "split": "validation", "path": "", "sha256": str(i)} for i in range(2)]
    pd.DataFrame(rows).to_parquet(project / "data/prepared/rooms/manifest.parquet")
    described = ModelConfig(
        config.load(params, BackboneChoice, "backbone"), config.load(params, HeadConfig, "head"), "scannet20"
    )
    torch.manual_seed(0)
    model = build_model(described, len(label_space("scannet20").names))
    model_files.write_model(project / "models/rooms/pi3/joint_finetune", model, described, "Apache-2.0", {})
    return project


def test_once_and_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["register"]) == 0
    assert "pano3d-pi3 version 1 registered; alias challenger" in capsys.readouterr().out
    assert cli.main(["register"]) == 0
    assert "pano3d-pi3 version 1 was registered already; alias challenger" in capsys.readouterr().out
    client = store.open_store().client
    version = client.get_model_version_by_alias("pano3d-pi3", "challenger")
    assert version.tags["license"] == "Apache-2.0"
    run = client.get_run(version.run_id)
    told = {name: value for name, value in run.data.metrics.items() if not name.startswith("system/")}
    assert told == {"evaluate.pq_scene": 0.5, "compare_confidence.ause": 0.1}
    assert run.info.status == "FINISHED"
    top = {one.path for one in client.list_artifacts(version.run_id)}
    assert {"digests.json", "evaluate", "tables", "params.yaml"} <= top
    assert {"scores.sha256", "protocol.sha256", "scenes.sha256", "files.sha256"} <= version.tags.keys()


def test_damaged_weights_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = trained / "models/rooms/pi3/joint_finetune/weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert cli.main(["register"]) == 1
    assert "the weights are not those of its model.json" in capsys.readouterr().err
    assert not store.open_store().client.search_registered_models()


def test_without_a_model_nothing_is_registered(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(trained / "models")
    assert cli.main(["register"]) == 1
    assert "no model.json" in capsys.readouterr().err


def test_tracking_off_registers_nothing(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PANO3D_TRACKING", "off")
    assert cli.main(["register"]) == 0
    assert "nothing is registered" in capsys.readouterr().out
