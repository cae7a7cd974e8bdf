"""Inference of the mask decoder against a twin that keeps every head's mask logits and resamples those.

    python -m benchmarks.mask_decoder [--device cuda] [--views 8] [--repeats 2] [--long 50]

Images of 512 x 384, 200 queries. Both get the same tokens and mask features. "decode": until the queries' embeddings
(ours) or all heads' logits (plain, as public code returns them). "masks": until the most probable query of every pixel
of the mask grid. That the two agree is tests/panoptic/test_mask_decoder.py.

--long: our whole panoptic half on the tokens of so many views: fusion, mask features at stride 4, decoder, and merging
into one segment per pixel of the images, every query taking part.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from benchmarks.cases import Case, Growth, Work, require, require_close
from benchmarks.measure import cost_of, report
from pano3d.panoptic.attention import sine_position_code
from pano3d.panoptic.fusion import FeatureFusion, FusionConfig
from pano3d.panoptic.mask_decoder import MaskDecoder, MaskDecoderConfig
from pano3d.panoptic.scene import SceneConfig, StandardMerging, merge_masks
from pano3d.types import BackboneOutput

IMAGE = (384, 512)
GRID = (24, 32)  # in patches of 16
SIZES = {
    "D 768, 6 layers": MaskDecoderConfig(768, 6, 8, 2048, 200, token_width=768, mask_width=256),
    "D 256, 9 layers": MaskDecoderConfig(256, 9, 8, 2048, 200, token_width=256, mask_width=256),
}


def prepare(size: str, stride: int, views: int, way: str, device: str) -> Callable[[], object]:
    """Weights and inputs, then the measured call."""
    return _prepare(SIZES[size], stride, views, WAYS[way], device)


def _prepare(
    config: MaskDecoderConfig, stride: int, views: int, way: Callable[..., object], device: str
) -> Callable[[], object]:
    torch.manual_seed(0)
    network = MaskDecoder(config, num_classes=20).eval().to(device)
    up = 16 // stride
    tokens = torch.randn(1, views, GRID[0] * GRID[1], config.token_width, device=device)
    features = torch.randn(1, views, config.mask_width, up * GRID[0], up * GRID[1], device=device)
    return partial(torch.no_grad()(way), network=network, tokens=tokens, features=features)


def lean_decode(network: MaskDecoder, tokens: Tensor, features: Tensor) -> Tensor:
    return network(tokens, GRID, features).mask_embeddings[0]


def lean_masks(network: MaskDecoder, tokens: Tensor, features: Tensor) -> Tensor:
    embeddings = lean_decode(network, tokens, features)[0]
    return torch.stack([torch.einsum("qd,dhw->qhw", embeddings, view).argmax(0) for view in features[0]])


def plain_decode(network: MaskDecoder, tokens: Tensor, features: Tensor) -> list[Tensor]:
    """Logits of every head for all queries and views, resampled to the token grid for the attention mask."""
    memory = rearrange(network.input_proj(tokens), "b v t d -> b (v t) d") + network.level_embed.weight[0]
    position = sine_position_code(GRID, network.config.width, tokens.device).repeat(tokens.shape[1], 1)[None]
    x, place = network.query_feat.weight[None], network.query_embed.weight[None]
    heads = []
    for index in range(network.config.layers + 1):
        normed = network.decoder_norm(x)
        network.class_head(normed)
        logits = torch.einsum("bqd,bvdhw->bqvhw", network.mask_embed(normed), features)
        heads.append(logits)
        if index == network.config.layers:
            return heads
        small = functional.interpolate(logits[0], size=GRID, mode="bilinear", align_corners=False)
        readable = small.flatten(1)[None].sigmoid() >= 0.5
        readable |= ~readable.any(-1, keepdim=True)
        x = network.cross_attn_layers[index](x, place, memory, position, readable)
        x = network.self_attn_layers[index](x, place)
        x = network.ffn_layers[index](x)
    return heads


def plain_masks(network: MaskDecoder, tokens: Tensor, features: Tensor) -> Tensor:
    return plain_decode(network, tokens, features)[-1][0].argmax(0)


WAYS = {
    "lean decode": lean_decode,
    "plain decode": plain_decode,
    "lean masks": lean_masks,
    "plain masks": plain_masks,
}


def prepare_both(size: str, stride: int, views: int, step: str, device: str) -> Work:
    """Ours and the twin with the same weights and inputs."""
    lean, plain = (prepare(size, stride, views, f"{way} {step}", device) for way in ("lean", "plain"))
    features = lean.keywords["features"]  # type: ignore[attr-defined]

    def check(ours: Tensor, theirs: Any) -> None:
        if step == "decode":
            logits = torch.einsum("qd,vdhw->qvhw", ours[0], features[0])
            # A pixel on the threshold of an attention mask may fall either way.
            require_close("mask logits", logits, theirs[-1][0], 1e-2)
        else:
            agreeing = float((ours == theirs).float().mean())
            require(agreeing > 0.999, f"most probable queries agree on {agreeing:.4f} of the pixels; expected > 0.999")

    return Work(lean, check, plain, units=views)


def prepare_growth(over: str, number: int, device: str) -> Callable[[], object]:
    """Decoding at stride 4 with `number` views (and 200 queries), or queries (of 2 views)."""
    queries, views = (number, 2) if over == "queries" else (200, number)
    config = replace(SIZES["D 256, 9 layers"], queries=queries)
    return _prepare(config, 4, views, lean_decode, device)


def cases(full: bool) -> list[Case | Growth]:
    sizes = list(SIZES) if full else ["D 256, 9 layers"]
    views = 8 if full else 2
    counts = {"views": (1, 2, 5, 10, 20, 50), "queries": (25, 50, 100, 200, 400)}
    if not full:
        counts = {"queries": (25, 100, 400)}
    return [
        *(
            Case(
                f"mask decoder {size.replace(',', '')} {views} views {step}",
                partial(prepare_both, size, 4, views, step),
                unit="view",
            )
            for size in sizes
            for step in (("decode", "masks") if full else ("decode",))
        ),
        *(Growth("mask decoder", over, numbers, partial(prepare_growth, over)) for over, numbers in counts.items()),
    ]


def prepare_whole(size: str, views: int, device: str) -> Callable[[], object]:
    """MUSt3R's tokens of `views` views, then the measured way from them to segments."""
    torch.manual_seed(0)
    config = replace(SIZES[size], class_mode="sigmoid")  # no query may say "nothing", so that all are merged
    fusion = FeatureFusion(FusionConfig(config.token_width, config.mask_width), 1024, 768).eval().to(device)
    network = MaskDecoder(config, num_classes=20).eval().to(device)
    tokens = {
        "encoder_tokens": torch.randn(1, views, GRID[0] * GRID[1], 1024, device=device),
        "decoder_tokens": torch.randn(1, views, GRID[0] * GRID[1], 768, device=device),
    }
    no_map = torch.zeros(1, views, 0, 0, 3, device=device)
    output = BackboneOutput(
        **tokens,
        token_grid=GRID,
        points_world=no_map,
        points_camera=no_map,
        confidence=no_map[..., 0],
        confidence_kind="confidence",
        world_from_camera=None,
        view_index=torch.arange(views, device=device),
    )
    everything = SceneConfig(StandardMerging(score_threshold=0.0, overlap_threshold=0.0))

    def work() -> object:
        fused, features = fusion(output)
        return merge_masks(network(fused, GRID, features), IMAGE, 20, [True] * 20, everything)

    return torch.no_grad()(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--strides", type=int, nargs="*", default=[2, 4], help="none: only --long")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--long", type=int, default=0, help="views of one more run of ours alone (50)")
    chosen = parser.parse_args()
    for size in chosen.sizes:
        for stride in chosen.strides:
            for step in ("decode", "masks"):
                lean, plain = (
                    cost_of(
                        partial(prepare, size, stride, chosen.views, f"{way} {step}"), chosen.device, chosen.repeats
                    )
                    for way in ("lean", "plain")
                )
                report(f"{size}, {chosen.views} views, stride {stride}, {step}", lean, plain)
        if chosen.long:
            alone = cost_of(partial(prepare_whole, size, chosen.long), chosen.device, 1)
            inputs = chosen.long * GRID[0] * GRID[1] * (1024 + 768) * 4 / 2**20
            print(
                f"{size}, {chosen.long} views, stride 4, from tokens to segments: {alone.seconds:.2f} s, "
                f"{alone.mebibytes:.0f} MiB over the tokens' {inputs:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
