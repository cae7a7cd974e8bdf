"""Run by test_compile.py without runtime type checks, which torch.compile cannot follow: prints largest differences.

Whole networks are captured as graphs (aot_eager); one block of each is also turned into C++ (inductor), since
generating it for every block would take minutes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import torch
from torch import Tensor, nn

from pano3d.backbones.dinov2_block import Block
from pano3d.backbones.must3r_encoder import EncoderBlock
from pano3d.backbones.rope import grid_positions, rope_table
from pano3d.types import Views
from tests.backbones import test_must3r, test_pi3


def difference(compiled: Tensor, plain: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((compiled - plain).abs().max() / plain.abs().max().clamp_min(1))


def networks() -> dict[str, float]:
    small = replace(
        test_pi3.CONFIG,
        encoder=replace(test_pi3.CONFIG.encoder, depth=1),
        decoder=replace(test_pi3.CONFIG.decoder, depth=2),
    )
    pi3, must3r = test_pi3.network(small), test_must3r.network(replace(test_must3r.TINY, decoder_depth=2))
    found = {}
    for name, network, images in (
        ("pi3", pi3, test_pi3.images(batch=1, num_views=2)),
        ("must3r", must3r, test_must3r.photos(2)),
    ):
        plain, compiled = network(Views(images)), torch.compile(network, backend="aot_eager")(Views(images))
        for field in ("points_world", "points_camera", "confidence", "decoder_tokens"):
            found[f"{name}.{field}"] = difference(getattr(compiled, field), getattr(plain, field))
    return found


def blocks() -> dict[str, float]:
    torch.manual_seed(0)
    table = rope_table(grid_positions(2, 3), head_width=16)
    tokens = torch.randn(2, 6, 32)
    layers: dict[str, nn.Module] = {
        "pi3.block": Block(32, 2, 2.0, 1.0, normalise_query_key=True),
        "must3r.block": EncoderBlock(32, 2, 2.0),
    }
    return {
        name: difference(torch.compile(block)(tokens, table), block(tokens, table)) for name, block in layers.items()
    }


if __name__ == "__main__":
    with torch.no_grad():
        print(json.dumps(networks() if sys.argv[1] == "networks" else blocks()))
