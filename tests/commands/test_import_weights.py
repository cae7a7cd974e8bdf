"""import-weights and export-weights: official layouts become model folders with their licence, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pano3d import cli, config, model_files
from pano3d.backbones.must3r_checkpoint import parse_constructor
from pano3d.backbones.must3r_config import Must3rConfig, constructor_texts
from pano3d.backbones.pi3 import Pi3
from pano3d.backbones.pi3_checkpoint import save_pi3_weights
from pano3d.commands import import_weights
from pano3d.model import BackboneChoice, HeadConfig, ModelConfig, build_model
from pano3d.types import ConfigError, Views, WeightsError
from tests.project import ROOT

PARAMS = ROOT / "params"


def test_pi3_weights_arrive_with_their_licence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice: BackboneChoice = config.load(config.compose(PARAMS, ["backbone=pi3_tiny"]), BackboneChoice, "backbone")
    torch.manual_seed(3)
    official = choice.build()
    assert isinstance(official, Pi3)
    save_pi3_weights(tmp_path / "official" / "model.safetensors", official)
    import_weights.run("pi3", str(tmp_path / "official"), "pi3_tiny", tmp_path / "model", PARAMS)
    model, description = model_files.read_model(tmp_path / "model")
    assert "CC BY-NC" in description.license
    assert "CC BY-NC" in capsys.readouterr().out
    for name, value in official.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name])


def test_a_must3r_file_of_another_size_is_refused(tmp_path: Path) -> None:
    source = ROOT / "tests/golden/must3r/tiny_checkpoint_enum.pth"
    with pytest.raises(WeightsError, match="another network"):
        import_weights.run("must3r", str(source), "must3r_tiny", tmp_path / "model", PARAMS)
    assert not (tmp_path / "model").exists()


def test_the_family_and_the_preset_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="preset pi3_tiny is a pi3, not a must3r"):
        import_weights.run("must3r", "nothing.pth", "pi3_tiny", tmp_path / "model", PARAMS)


def test_a_cut_download_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "MUSt3R_512.pth").write_bytes(b"PK half a file")
    with pytest.raises(WeightsError, match="14 bytes with another MD5 than 8854f948"):
        import_weights.run("must3r", str(tmp_path / "MUSt3R_512.pth"), "must3r_tiny", tmp_path / "model", PARAMS)


def test_presets_of_the_released_files() -> None:
    assert import_weights.default_preset("must3r", "x/MUSt3R_224_cvpr.pth") == "must3r_224"
    assert import_weights.default_preset("must3r", "MUSt3R_512.pth") == "must3r_512"
    assert import_weights.default_preset("pi3", "yyfz233/Pi3") == "pi3_large"


@pytest.mark.parametrize(("family", "file"), [("must3r", "own.pth"), ("pi3", "own.safetensors")])
def test_exported_and_imported_again(
    family: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config.compose(PARAMS, [f"backbone={family}_tiny"])
    choice: BackboneChoice = config.load(settings, BackboneChoice, "backbone")
    head: HeadConfig = config.load(settings, HeadConfig, "head")
    model_config = ModelConfig(choice, head, "scannet20")
    torch.manual_seed(4)
    model = build_model(model_config, 20)
    model_files.write_model(tmp_path / "first", model, model_config, "Apache-2.0", {})
    assert cli.main(["export-weights", str(tmp_path / "first"), str(tmp_path / file)]) == 0
    assert "licence: Apache-2.0" in capsys.readouterr().out
    import_weights.run(family, str(tmp_path / file), f"{family}_tiny", tmp_path / "second", PARAMS)  # type: ignore[arg-type]
    again = model_files.read_model(tmp_path / "second")[0].backbone.eval()
    views = Views(torch.rand(1, 2, 3, choice.image_height, choice.image_width))
    with torch.no_grad():
        assert torch.equal(again(views).points_world, model.backbone.eval()(views).points_world)
    assert cli.main(["export-weights", str(tmp_path / "first"), str(tmp_path / "own.zip")]) == 1
    assert "expected *." in capsys.readouterr().err


def test_a_recorded_expression_gives_the_configuration_back() -> None:
    settings = Must3rConfig(
        encoder_width=32,
        encoder_depth=2,
        encoder_heads=2,
        decoder_width=16,
        decoder_heads=1,
        feedback="none",
        activation="linear",
        rope_scale=2.0,
        memory_mode="raw",
    )
    encoder, decoder = constructor_texts(settings, (224, 224))
    again = Must3rConfig.from_constructor(
        parse_constructor(encoder, ("Dust3rEncoder",)), parse_constructor(decoder, ("MUSt3R",))
    )
    assert again == settings
