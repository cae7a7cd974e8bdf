"""A larger network answers as the small one did, and its copies learn apart from then on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pano3d import cli, config, growth
from pano3d.growth import grown
from pano3d.model import ModelConfig, Must3rChoice, Pano3D
from pano3d.model_files import draw_model, read_model
from pano3d.types import ConfigError, Views
from tests.small_model import write_small_model
from tests.training.small import MODEL, PI3

WIDER = {
    "must3r": {"encoder_width": 48, "encoder_heads": 3, "decoder_width": 48, "decoder_heads": 3},
    "pi3": {
        "encoder": {"width": 48, "num_heads": 3},
        "decoder": {"num_heads": 3},
        "heads": {"width": 32, "num_heads": 2},
    },
}
MORE_HIDDEN = {
    "must3r": {"mlp_ratio": 8.0},
    "pi3": {"encoder": {"mlp_ratio": 8.0}, "decoder": {"mlp_ratio": 8.0}, "heads": {"mlp_ratio": 8.0}},
}
DEEPER = {
    "must3r": {"encoder_depth": 3, "decoder_depth": 4},
    "pi3": {"encoder": {"depth": 4}, "decoder": {"depth": 6}, "heads": {"depth": 3, "point_width": 32}},
}
ALL = {
    "must3r": {**WIDER["must3r"], **MORE_HIDDEN["must3r"], **DEEPER["must3r"]},
    "pi3": {part: WIDER["pi3"][part] | MORE_HIDDEN["pi3"][part] | DEEPER["pi3"][part] for part in WIDER["pi3"]},
}


def small(backbone: str) -> Pano3D:
    """Two blocks of everything, so that the order of added ones matters; no weight is left at its first value."""
    torch.manual_seed(1)
    model = draw_model(config_of(backbone))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def config_of(backbone: str, changes: dict[str, object] | None = None) -> ModelConfig:
    """Of two blocks each with heads of 16 channels, changed."""
    if backbone == "must3r":
        base = replace(MODEL.backbone.network, encoder_depth=2, decoder_depth=2)
        network = replace(base, **(changes or {}))
        return replace(MODEL, backbone=replace(MODEL.backbone, network=network))
    base = PI3.backbone.network
    base = replace(
        base,
        encoder=replace(base.encoder, depth=2),
        decoder=replace(base.decoder, depth=4),
        heads=replace(base.heads, depth=2),
    )
    parts = {part: replace(getattr(base, part), **values) for part, values in (changes or {}).items()}
    return replace(PI3, backbone=replace(PI3.backbone, network=replace(base, **parts)))


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["must3r", "pi3"])
@pytest.mark.parametrize("changes", [WIDER, MORE_HIDDEN, DEEPER, ALL], ids=["wider", "hidden", "deeper", "all"])
def test_answers_as_before(changes: dict[str, dict[str, object]], backbone: str) -> None:
    model = small(backbone)
    larger = grown(model, config_of(backbone, changes[backbone]))
    assert sum(p.numel() for p in larger.parameters()) > 1.1 * sum(p.numel() for p in model.parameters())
    choice = config_of(backbone).backbone
    images = torch.rand(2, 4, 3, choice.image_height, choice.image_width)
    (before, masks), (after, larger_masks) = model(Views(images)), larger(Views(images))
    for name in ("points_world", "points_camera", "confidence"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(larger_masks.class_logits[-1], masks.class_logits[-1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(larger_masks.mask_features, masks.mask_features, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", ["must3r", "pi3"])
def test_copies_learn_apart(backbone: str) -> None:
    larger = grown(small(backbone), config_of(backbone, ALL[backbone])).train()
    choice = config_of(backbone).backbone
    geometry, masks = larger(Views(torch.rand(1, 3, 3, choice.image_height, choice.image_width)))
    (geometry.points_world.square().mean() + masks.class_logits[-1].square().mean()).backward()
    embedding = larger.backbone.encoder.patch_embed.proj
    first, second = embedding.weight[0], embedding.weight[1]
    assert torch.equal(first, second)
    assert embedding.weight.grad is not None
    assert not torch.allclose(embedding.weight.grad[0], embedding.weight.grad[1], rtol=0.1)


@torch.no_grad()
def test_an_added_block_starts_as_a_silent_copy_and_the_last_stays_last() -> None:
    model = small("must3r")
    larger = grown(model, config_of("must3r", DEEPER["must3r"]))
    blocks, origins = larger.backbone.decoder.blocks_dec, model.backbone.decoder.blocks_dec
    assert isinstance(blocks, nn.ModuleList)
    silent = [not block.mlp.fc2.weight.any() and not block.cross_attn.proj.bias.any() for block in blocks]
    assert silent == [True, False, True, False]
    for block, origin in zip(blocks, (0, 0, 1, 1)):
        assert torch.equal(block.mlp.fc1.weight, origins[origin].mlp.fc1.weight)


@pytest.mark.parametrize(
    ("backbone", "changes", "complaint"),
    [
        (
            "must3r",
            {"encoder_width": 32, "decoder_width": 32},
            "heads of backbone.encoder.blocks_enc.0.attn are 16 wide",
        ),
        ("must3r", {"decoder_width": 48, "decoder_heads": 3}, "both must grow by the same factor"),
        ("must3r", {"mlp_ratio": 6.0}, r"mlp.fc1.weight is \(64, 16\) and cannot become \(96, 16\)"),
        ("must3r", {"decoder_depth": 1}, "has 2 blocks and cannot have 1"),
        ("must3r", {"patch_size": 8}, "sizes must be multiples"),
        ("pi3", {"decoder": {"depth": 2}}, "backbone.decoder has 4 blocks and cannot have 2"),
    ],
)
def test_what_does_not_fit_is_refused(backbone: str, changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        grown(small(backbone), config_of(backbone, changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"fusion": {"mask_width": 16}, "decoder": {"mask_width": 16}},
            "fusion.mask_width is 8 and must stay so, got 16",
        ),
        ({"decoder": {"queries": 12}}, "mask_decoder.queries is 6 and must stay so, got 12"),
        ({"fusion": {"upscale_factor": 8}}, "fusion.upscale_factor is 4 and must stay so, got 8"),
    ],
)
def test_another_head_is_refused(changes: dict[str, dict[str, int]], complaint: str) -> None:
    head = replace(MODEL.head, **{part: replace(getattr(MODEL.head, part), **new) for part, new in changes.items()})
    with pytest.raises(ConfigError, match=complaint):
        grown(small("must3r"), replace(config_of("must3r"), head=head))


def test_other_classes_are_refused() -> None:
    """With classes judged alone, 20 times 10 of them are a multiple like any other."""
    judged_alone = replace(MODEL.head, decoder=replace(MODEL.head.decoder, class_mode="sigmoid"))
    twenty = replace(config_of("must3r"), head=judged_alone)
    with pytest.raises(ConfigError, match="as many classes"):
        grown(draw_model(twenty), replace(twenty, label_space="scannet200"))


def test_another_architecture_is_refused() -> None:
    with pytest.raises(ConfigError, match="a Must3r cannot become a Pi3"):
        grown(small("must3r"), config_of("pi3"))


def test_the_command_grows_to_the_preset_in_the_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_small_model(tmp_path / "small")
    before, description = read_model(source)
    assert isinstance(MODEL.backbone, Must3rChoice)
    choice = replace(MODEL.backbone, network=replace(MODEL.backbone.network, encoder_depth=2, mlp_ratio=8.0))
    config.write(tmp_path / "params.yaml", {"seed": 3, "backbone": config.plain(choice)})
    words = ["grow", str(source), "--params", str(tmp_path / "params.yaml"), "-o", str(tmp_path / "large")]
    assert cli.main(words) == 0
    assert "million parameters instead of" in capsys.readouterr().out
    after, larger = read_model(tmp_path / "large")
    assert larger.provenance["grown_from"] == description.weights_sha256
    assert (larger.config.backbone, larger.config.head) == (choice, description.config.head)
    assert larger.license == description.license
    images = torch.rand(1, 2, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(
            after(Views(images))[0].points_world, before(Views(images))[0].points_world, rtol=1e-3, atol=1e-4
        )


def test_noise_is_drawn_on_the_cpu_and_carried_to_the_weights() -> None:
    """The meta device stands in for a GPU: it too refuses to meet the CPU's tensors."""
    weight = torch.zeros(4, 4, device="meta")
    larger = growth._enlarged(weight, torch.Size([4, 8]), (1, 1), "fc1.weight", torch.Generator())
    assert (larger.device, larger.shape) == (weight.device, (4, 8))
