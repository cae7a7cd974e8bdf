"""Official checkpoint files: read whole, refused when damaged, never executed."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pano3d.backbones.must3r import Must3r
from pano3d.backbones.must3r_checkpoint import parse_constructor, read_must3r_checkpoint
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.types import Views, WeightsError

GOLDEN = Path(__file__).parents[1] / "golden" / "must3r"
ENCODER = "Dust3rEncoder(img_size=(64, 64), embed_dim=64, depth=2, num_heads=4, patch_embed='ManyAR_PatchEmbed')"
DECODER = (
    "CausalMUSt3R(img_size=(64, 64), enc_embed_dim=64, embed_dim=48, depth=3, num_heads=4, landscape_only=True, "
    "feedback_type='single_mlp', memory_mode=\"norm_y\", mem_dropout=0.1, dropout_mode='temporary')"
)


def save(path: Path, **changes: Any) -> Path:
    """A file laid out like a released one."""
    weights = load_file(GOLDEN / "weights.safetensors")
    parts = {
        part: {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(f"{part}.")}
        for part in ("encoder", "decoder")
    }
    arguments = argparse.Namespace(encoder=ENCODER, decoder=DECODER, lr=1e-4, amp="bf16")
    torch.save({"args": arguments, **parts, "epoch": 100} | changes, path)
    return path


def test_released_layout(tmp_path: Path) -> None:
    checkpoint = read_must3r_checkpoint(save(tmp_path / "a.pth"))
    config = checkpoint.config
    assert (config.encoder_width, config.encoder_depth, config.decoder_width, config.decoder_depth) == (64, 2, 48, 3)
    assert (config.memory_mode, config.transposed_portrait, config.rope_scale) == ("kv", False, 1.0)
    assert checkpoint.released_as is None
    assert checkpoint.encoder_arguments == ENCODER
    model = Must3r(config).eval()
    checkpoint.load_into(model)
    assert torch.equal(model.decoder.image2_embed, checkpoint.decoder["image2_embed"])
    with torch.no_grad():
        portrait = model(Views(torch.rand(1, 2, 3, 64, 48)))
    assert portrait.points_world.shape == (1, 2, 64, 48, 3)


def test_training_layout_with_an_enum() -> None:
    checkpoint = read_must3r_checkpoint(GOLDEN / "tiny_checkpoint_enum.pth")
    assert checkpoint.config.activation == "norm_exp"
    assert (checkpoint.config.encoder_width, checkpoint.config.decoder_width) == (16, 8)
    checkpoint.load_into(Must3r(checkpoint.config))


def test_rescaled_frequencies(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth")
    assert read_must3r_checkpoint(path, image_size=96).config.rope_scale == pytest.approx(64 / 96)
    odd = argparse.Namespace(encoder=ENCODER.replace("(64, 64)", "(64, 48)"), decoder=DECODER)
    with pytest.raises(WeightsError, match="cannot rescale"):
        read_must3r_checkpoint(save(tmp_path / "b.pth", args=odd), image_size=96)


def test_another_network_is_refused(tmp_path: Path) -> None:
    checkpoint = read_must3r_checkpoint(save(tmp_path / "a.pth"))
    with pytest.raises(WeightsError, match=r"decoder's weights are of another network.*depth=3"):
        checkpoint.load_into(Must3r(replace(checkpoint.config, decoder_depth=2)))


@pytest.mark.parametrize("damage", ["missing", "cut", "text", "no args", "list"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.pth"
    if damage == "cut":
        whole = save(path).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "text":
        path.write_text("<html>404</html>")
    elif damage == "no args":
        save(path, args={"encoder": ENCODER})
    elif damage == "list":
        torch.save([1, 2], path)
    with pytest.raises(WeightsError, match=str(path)):
        read_must3r_checkpoint(path)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="execute code") as refusal:
        read_must3r_checkpoint(save(tmp_path / "a.pth", extra=Payload()))
    assert "weights_only" not in str(refusal.value), "nobody is told how to run it all the same"
    spelled = argparse.Namespace(encoder="Dust3rEncoder(depth=__import__('os').mkdir('executed'))", decoder=DECODER)
    with pytest.raises(WeightsError, match="not a plain value"):
        read_must3r_checkpoint(save(tmp_path / "b.pth", args=spelled))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "os.system('ls')",
        "Dust3rEncoder",
        "Dust3rEncoder(1)",
        "Dust3rEncoder(**x)",
        "Other(depth=1)",
        "Dust3rEncoder(",
    ],
)
def test_odd_constructor_expressions_are_refused(text: str) -> None:
    with pytest.raises(WeightsError):
        parse_constructor(text, ("Dust3rEncoder",))


def test_constructor_expressions() -> None:
    parsed = parse_constructor(' MUSt3R( img_size = (512,512), x="a", act=ActivationType.LINEAR, f=None )', ("MUSt3R",))
    assert parsed == {"img_size": (512, 512), "x": "a", "act": "ActivationType.LINEAR", "f": None}


def test_unknown_sizes_are_refused(tmp_path: Path) -> None:
    odd = argparse.Namespace(encoder=ENCODER, decoder=DECODER.replace("single_mlp", "double_mlp"))
    with pytest.raises(WeightsError, match="feedback_type"):
        read_must3r_checkpoint(save(tmp_path / "a.pth", args=odd))
    assert Must3rConfig.from_constructor({}, {"feedback_type": None}).feedback == "none"
