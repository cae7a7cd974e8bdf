"""Smaller patches: the network sees an image as the coarse one sees it enlarged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pano3d import cli
from pano3d.backbones.finer_patches import finer_config, finer_weights
from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.pi3 import Pi3
from pano3d.model_files import read_model
from pano3d.types import BackboneOutput, ConfigError, Views
from tests.backbones.test_pi3 import CONFIG as PI3
from tests.small_model import PI3 as PI3_MODEL
from tests.small_model import write_small_model

MUST3R = Must3rConfig(
    patch_size=12,
    encoder_width=32,
    encoder_depth=2,
    encoder_heads=2,
    decoder_width=24,
    decoder_depth=2,
    decoder_heads=2,
    activation="linear",
)


def raw_values(output: BackboneOutput) -> Tensor:
    """What the output heads painted, before any activation: (N C H W)."""
    if output.world_from_camera is None:  # MUSt3R, activation "linear"
        maps = (output.points_world, output.points_camera, (output.confidence - 1).log()[..., None])
    else:
        depth = output.points_camera[..., 2:]
        maps = (output.points_camera[..., :2] / depth, depth.log(), output.confidence[..., None])
    return torch.cat(maps, dim=-1).flatten(0, 1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("config", [MUST3R, PI3], ids=["must3r", "pi3"])
@pytest.mark.parametrize("factor", [1, 2])
@torch.no_grad()
def test_answers_as_the_coarse_network_on_the_enlarged_image(config: Must3rConfig, factor: int) -> None:
    torch.manual_seed(0)
    build = Must3r if isinstance(config, Must3rConfig) else Pi3
    # Where the tokens stand is the one thing an enlarged image changes.
    coarse = build(replace(config, rope_scale=1 / factor)).eval()
    finer = build(finer_config(config, factor)).eval()
    finer.load_state_dict(finer_weights(coarse.state_dict(), factor))
    assert finer.patch_size * factor == coarse.patch_size
    height, width = 4 * finer.patch_size, 6 * finer.patch_size
    images = torch.rand(1, 3, 3, height, width)
    enlarged = functional.interpolate(images[0], scale_factor=factor, mode="nearest")[None]
    got, expected = finer(Views(images)), coarse(Views(enlarged))
    assert got.token_grid == expected.token_grid == (4, 6)
    for name in ("encoder_tokens", "decoder_tokens"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    averaged = functional.avg_pool2d(raw_values(expected), factor)
    torch.testing.assert_close(raw_values(got), averaged, rtol=1e-4, atol=1e-5)
    if got.world_from_camera is not None:
        torch.testing.assert_close(got.world_from_camera, expected.world_from_camera, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [MUST3R, PI3], ids=["must3r", "pi3"])
def test_a_patch_that_does_not_divide_is_refused(config: Must3rConfig) -> None:
    with pytest.raises(ConfigError, match="do not divide into 5 parts"):
        finer_config(config, 5)


def test_the_command_keeps_the_panoptic_half_and_names_its_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_small_model(tmp_path / "coarse", PI3_MODEL)
    assert cli.main(["split-patches", str(source), "--output", str(tmp_path / "fine")]) == 0
    assert "patches of 7 pixels instead of 14" in capsys.readouterr().out
    coarse, before = read_model(source)
    fine, after = read_model(tmp_path / "fine")
    assert after.provenance["split_from"] == before.weights_sha256
    assert after.license == before.license
    assert after.config.backbone.network.rope_scale == 0.5
    for name, value in coarse.state_dict().items():
        if not name.startswith("backbone."):
            assert torch.equal(value, fine.state_dict()[name])
    with torch.no_grad():
        geometry, masks = fine.eval()(Views(torch.rand(1, 2, 3, 42, 56)))
    assert geometry.token_grid == (6, 8)
    assert masks.mask_features.shape[-2:] == (24, 32)


def test_the_command_refuses_parts_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_small_model(tmp_path / "coarse", PI3_MODEL)
    arguments = ["split-patches", str(source), "--factor", "4", "--output", str(tmp_path / "fine")]
    assert cli.main(arguments) == cli.USER_ERROR
    assert "14 pixels do not divide into 4 parts" in capsys.readouterr().err
    assert not (tmp_path / "fine").exists()
