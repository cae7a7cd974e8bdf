"""import-weights: official layouts become model folders with their licence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pano3d import config, model_files
from pano3d.backbones.pi3 import Pi3
from pano3d.backbones.pi3_checkpoint import save_pi3_weights
from pano3d.commands import import_weights
from pano3d.model import BackboneChoice
from pano3d.types import WeightsError
from tests.project import ROOT

PARAMS = ROOT / "params"


def test_pi3_weights_arrive_with_their_licence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice: BackboneChoice = config.load(config.compose(PARAMS, ["backbone=pi3_tiny"]), BackboneChoice, "backbone")
    torch.manual_seed(3)
    official = choice.build()
    assert isinstance(official, Pi3)
    save_pi3_weights(tmp_path / "official" / "model.safetensors", official)
    import_weights.run(str(tmp_path / "official"), "pi3_tiny", tmp_path / "model", PARAMS)
    model, description = model_files.read_model(tmp_path / "model")
    assert "CC BY-NC" in description.license
    assert "CC BY-NC" in capsys.readouterr().out
    for name, value in official.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name])


def test_a_must3r_file_of_another_size_is_refused(tmp_path: Path) -> None:
    source = ROOT / "tests/golden/must3r/tiny_checkpoint_enum.pth"
    with pytest.raises(WeightsError, match="another network"):
        import_weights.run(str(source), "must3r_tiny", tmp_path / "model", PARAMS)
    assert not (tmp_path / "model").exists()
