"""The same network with smaller patches: coarse ones are cheap to learn with, fine ones see small objects.

A network of patches p answers an image enlarged f times as the one of patches p / f answers the image itself: enlarging
repeats every pixel f x f times, so the weights of a patch are summed over such squares; what is painted is averaged
over them; rotary positions shrink to where the coarse patches were.

Source: the resized patch embeddings of FlexiViT (Beyer et al., arXiv 2212.08013), there for the encoder alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import overload

from torch import Tensor

from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.pi3 import Pi3Config
from pano3d.types import ConfigError

_EMBEDDING = "encoder.patch_embed.proj.weight"
_PAINTERS = ("decoder.head_dec.proj", "point_head.proj", "conf_head.proj")


@overload
def finer_config(config: Must3rConfig, factor: int) -> Must3rConfig: ...
@overload
def finer_config(config: Pi3Config, factor: int) -> Pi3Config: ...
def finer_config(config: Must3rConfig | Pi3Config, factor: int) -> Must3rConfig | Pi3Config:
    """`config` with patches of a `factor`-th of the side.

    Raises:
        ConfigError: the patch size does not divide by `factor`.
    """
    patch_size = config.patch_size if isinstance(config, Must3rConfig) else config.encoder.patch_size
    if factor < 1 or patch_size % factor:
        raise ConfigError(f"splitting patches: {patch_size} pixels do not divide into {factor} parts")
    finer, scale = patch_size // factor, config.rope_scale / factor
    if isinstance(config, Must3rConfig):
        return replace(config, patch_size=finer, rope_scale=scale)
    return replace(config, encoder=replace(config.encoder, patch_size=finer), rope_scale=scale)


def finer_weights(weights: dict[str, Tensor], factor: int) -> dict[str, Tensor]:
    """The state of a backbone for patches of a `factor`-th of the side; layers of no patch size stay as they are."""
    finer = dict(weights)
    finer[_EMBEDDING] = _blocks(weights[_EMBEDDING], factor).sum((-3, -1))
    patch_size = weights[_EMBEDDING].shape[-1]
    for painter in _PAINTERS:
        if f"{painter}.weight" in weights:
            for name in (f"{painter}.weight", f"{painter}.bias"):
                # Rows are (channel, row, column) of a patch's pixels.
                painted = weights[name].reshape(-1, patch_size, patch_size, *weights[name].shape[1:])
                averaged = _blocks(painted.movedim((1, 2), (-2, -1)), factor).mean((-3, -1)).movedim((-2, -1), (1, 2))
                finer[name] = averaged.reshape(-1, *weights[name].shape[1:])
    return finer


def _blocks(values: Tensor, factor: int) -> Tensor:
    """(.. H W) to (.. H/f f W/f f)."""
    return values.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))
