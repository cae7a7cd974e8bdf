"""What a MUSt3R network is made of and how it walks through views."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pano3d.types import ConfigError

MemoryMode = Literal["kv", "norm_y", "raw"]
Feedback = Literal["single_mlp", "single_linear", "none"]
Activation = Literal["norm_exp", "linear"]
DropoutMode = Literal["temporary", "permanent"]
MemoryOrder = Literal["given", "outward"]
MemoryDtype = Literal["compute", "float32", "bfloat16", "float16"]

_ROPE = re.compile(r"RoPE(?P<base>\d+(?:\.\d+)?)(?:_(?P<trained>\d+(?:\.\d+)?):(?P<actual>\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Must3rConfig:
    """Architecture (must match the weights) and schedule (free to choose) of `Must3r`.

    patch_size: pixels per token side.
    encoder_*, decoder_*: width, number of blocks, heads; width / heads must be a multiple of 4.
    mlp_ratio: hidden width of every feed-forward over its width.
    feedback: layer that tells every memory entry what the deepest layer knew.
    activation: how raw head output becomes points.
    rope_base, rope_scale: rotary frequencies; scale = trained image size / actual image size.
    transposed_portrait: portrait samples are stored transposed to landscape, as the released training code batches
        both; whoever drives encoder and decoder with such samples marks them `portrait`. `Must3r` takes images as they
        look and refuses it; the weights are the same.
    memory_mode: what the memory keeps of a token. `kv` (projected once) is fastest, the others half as large.
    memory_dtype: storage of the memory at inference; `compute` keeps what the blocks produce.
    memory_views: at inference, how many views build the memory; 0 = all.
    memory_order: at inference, which and in which order: `given`, the reference and then evenly spaced ones of the
        caller's order, or `outward`, from the middle of the scene, found by comparing encoder tokens, whatever the
        caller's order is.
    training_memory_views: (fewest, most) views that build the memory in a training step.
    training_block_views: views per causal update call in training.
    memory_dropout: probability that a memory token is hidden in training; the reference view's never are.
    memory_dropout_mode: hidden for one view only, or removed for good.
    views_per_chunk: views encoded or rendered at once at inference; 0 = all. Exact: only memory use changes.
    encoder_autocast: let autocast reach the encoder, which otherwise always runs in float32.
    recompute_blocks: keep only the inputs of blocks in training and run them again in the backward pass: about a third
        slower, a fraction of the memory, the same gradients.
    """

    patch_size: int = 16
    encoder_width: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    decoder_width: int = 768
    decoder_depth: int = 12
    decoder_heads: int = 12
    mlp_ratio: float = 4.0
    feedback: Feedback = "single_mlp"
    activation: Activation = "norm_exp"
    rope_base: float = 100.0
    rope_scale: float = 1.0
    transposed_portrait: bool = False
    memory_mode: MemoryMode = "kv"
    memory_dtype: MemoryDtype = "compute"
    memory_views: int = 0
    memory_order: MemoryOrder = "given"
    training_memory_views: tuple[int, int] = (2, 4)
    training_block_views: int = 5
    memory_dropout: float = 0.1
    memory_dropout_mode: DropoutMode = "temporary"
    views_per_chunk: int = 0
    encoder_autocast: bool = False
    recompute_blocks: bool = False

    def __post_init__(self) -> None:
        for part in ("encoder", "decoder"):
            width, heads = getattr(self, f"{part}_width"), getattr(self, f"{part}_heads")
            if width < 4 or heads < 1 or width % heads or (width // heads) % 4:
                raise ConfigError(
                    f"configuring MUSt3R: {part}_width {width} over {part}_heads {heads} must give a head width that "
                    "is a multiple of 4 (two rotary halves of pairs); change one of them"
                )
            if getattr(self, f"{part}_depth") < 1:
                raise ConfigError(f"configuring MUSt3R: {part}_depth must be at least 1")
        for name in ("patch_size", "training_block_views", "mlp_ratio", "rope_base", "rope_scale"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"configuring MUSt3R: {name} must be positive, got {getattr(self, name)}")
        for name in ("memory_views", "views_per_chunk"):
            if getattr(self, name) < 0:
                raise ConfigError(f"configuring MUSt3R: {name} must be 0 (all) or more, got {getattr(self, name)}")
        if not 0.0 <= self.memory_dropout < 1.0:
            raise ConfigError(f"configuring MUSt3R: memory_dropout is a probability below 1, got {self.memory_dropout}")
        fewest, most = self.training_memory_views
        if not 1 <= fewest <= most:
            raise ConfigError(
                f"configuring MUSt3R: training_memory_views must be (fewest, most) with 1 <= fewest <= most, "
                f"got ({fewest}, {most})"
            )

    @property
    def head_channels(self) -> int:
        """Numbers per pixel: global point, local point, confidence."""
        return 7

    @classmethod
    def from_constructor(cls, encoder: Mapping[str, object], decoder: Mapping[str, object]) -> Must3rConfig:
        """Configuration from the keyword arguments that released checkpoints record for their two networks.

        Keys that do not change the function (image size, training switches) are ignored, missing ones take the released
        defaults.

        Raises:
            ConfigError: the two networks disagree, or ask for something this implementation does not compute.
        """
        base, scale = parse_rope(str(encoder.get("pos_embed", "RoPE100")))
        if parse_rope(str(decoder.get("pos_embed", "RoPE100"))) != (base, scale):
            raise ConfigError("reading MUSt3R arguments: encoder and decoder differ in pos_embed; they must agree")
        patch_size = _integer(encoder, "patch_size", 16)
        if _integer(decoder, "output_dim", 7 * patch_size**2) != 7 * patch_size**2:
            raise ConfigError(
                f"reading MUSt3R arguments: output_dim {decoder.get('output_dim')} is not 7 numbers per pixel "
                f"({7 * patch_size**2}); only heads with global points, local points and confidence are supported"
            )
        feedback = decoder.get("feedback_type") or "none"
        memory_mode = decoder.get("memory_mode", "norm_y")
        activation = str(decoder.get("pointmaps_activation", "norm_exp")).rpartition(".")[2].lower()
        _choice("feedback_type", feedback, ("single_mlp", "single_linear", "none"))
        _choice("memory_mode", memory_mode, ("kv", "norm_y", "raw"))
        _choice("pointmaps_activation", activation, ("norm_exp", "linear"))
        encoder_width = _integer(encoder, "embed_dim", 1024)
        if _integer(decoder, "enc_embed_dim", encoder_width) != encoder_width:
            raise ConfigError("reading MUSt3R arguments: the decoder's enc_embed_dim is not the encoder's embed_dim")
        mlp_ratio = _number(encoder, "mlp_ratio", 4.0)
        if _number(decoder, "mlp_ratio", 4.0) != mlp_ratio:
            raise ConfigError("reading MUSt3R arguments: encoder and decoder differ in mlp_ratio; they must agree")
        return cls(
            patch_size=patch_size,
            encoder_width=encoder_width,
            encoder_depth=_integer(encoder, "depth", 24),
            encoder_heads=_integer(encoder, "num_heads", 16),
            decoder_width=_integer(decoder, "embed_dim", 768),
            decoder_depth=_integer(decoder, "depth", 12),
            decoder_heads=_integer(decoder, "num_heads", 12),
            mlp_ratio=mlp_ratio,
            feedback=feedback,  # type: ignore[arg-type]
            memory_mode=memory_mode,  # type: ignore[arg-type]
            activation=activation,  # type: ignore[arg-type]
            rope_base=base,
            rope_scale=scale,
            transposed_portrait=bool(decoder.get("landscape_only", False)),
        )


def constructor_texts(config: Must3rConfig, image_size: tuple[int, int]) -> tuple[str, str]:
    """Encoder and decoder as the expressions a released checkpoint records: what `from_constructor` reads, written.

    Args:
        image_size: (height, width) trained at; it changes no weight.
    """
    scaled = "" if config.rope_scale == 1.0 else f"_{config.rope_scale:g}:1"
    rope = f"RoPE{config.rope_base:g}{scaled}"
    shared = f"img_size={image_size}, patch_size={config.patch_size}"
    common = f"mlp_ratio={config.mlp_ratio!r}, pos_embed={rope!r}"
    encoder = (
        f"Dust3rEncoder({shared}, embed_dim={config.encoder_width}, depth={config.encoder_depth}, "
        f"num_heads={config.encoder_heads}, {common}, patch_embed='PatchEmbedDust3R')"
    )
    feedback = None if config.feedback == "none" else config.feedback
    decoder = (
        f"MUSt3R({shared}, enc_embed_dim={config.encoder_width}, embed_dim={config.decoder_width}, "
        f"output_dim={config.head_channels * config.patch_size**2}, depth={config.decoder_depth}, "
        f"num_heads={config.decoder_heads}, {common}, feedback_type={feedback!r}, memory_mode={config.memory_mode!r}, "
        f"landscape_only={config.transposed_portrait}, pointmaps_activation=ActivationType.{config.activation.upper()})"
    )
    return encoder, decoder


def parse_rope(name: str) -> tuple[float, float]:
    """(base, scale) of `RoPE<base>` or `RoPE<base>_<trained size>:<actual size>`."""
    match = _ROPE.fullmatch(name)
    if match is None:
        raise ConfigError(f"reading a positional embedding: expected RoPE<base> or RoPE<base>_<a>:<b>, got {name!r}")
    scale = float(match["trained"]) / float(match["actual"]) if match["trained"] else 1.0
    return float(match["base"]), scale


def _integer(arguments: Mapping[str, object], key: str, default: int) -> int:
    value = arguments.get(key, default)
    if not isinstance(value, int):
        raise ConfigError(f"reading MUSt3R arguments: {key} must be an integer, got {value!r}")
    return value


def _number(arguments: Mapping[str, object], key: str, default: float) -> float:
    value = arguments.get(key, default)
    if not isinstance(value, int | float):
        raise ConfigError(f"reading MUSt3R arguments: {key} must be a number, got {value!r}")
    return float(value)


def _choice(key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"reading MUSt3R arguments: {key} must be one of {', '.join(allowed)}, got {value!r}")
