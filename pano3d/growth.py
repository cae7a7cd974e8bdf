"""A larger backbone that computes what a small one computes, to go on learning from: wider, deeper, or both.

The panoptic head keeps its sizes; only the layers that read the backbone's features grow along.

Every channel is copied as often as the larger layer has room; what reads the copies divides its weights among them, not
evenly, so that copies learn apart. An attention head is copied as a whole. A block that is added is a copy of the one
after it whose contributions start at zero.

Sources: Net2WiderNet, Chen et al., arXiv 1511.05641; blocks that start as the identity, Wu et al., "LLaMA Pro", arXiv
2401.02415.
"""

from __future__ import annotations

import re
from dataclasses import asdict

import torch
from torch import Tensor, nn

from pano3d.backbones import dinov2_block
from pano3d.backbones.attention import CrossAttention, SelfAttention
from pano3d.backbones.dinov2_block import Block
from pano3d.backbones.must3r_decoder import DecoderBlock
from pano3d.backbones.must3r_encoder import EncoderBlock
from pano3d.data.label_spaces import label_space
from pano3d.model import ModelConfig, Pano3D, build_model
from pano3d.types import ConfigError

UNEVENNESS = 0.5
"""Standard deviation of what copies' readers differ by, in that of their weights."""
_CONTRIBUTIONS = re.compile(r"\.(attn\.proj|cross_attn\.proj|mlp\.fc2)\.(weight|bias)$")


def grown(model: Pano3D, config: ModelConfig, seed: int = 0) -> Pano3D:
    """The network of `config`, with weights that make it answer as `model` does.

    What holds no weights (image size, positions, schedule) may differ: then the answers do too.

    Args:
        config: as `model`'s, head and number of classes included; of the backbone, widths, numbers of attention heads
            and hidden units are multiples and no block list is shorter; attention heads keep their width, encoder and
            decoder grow alike.
        seed: of the unevenness between copies.

    Raises:
        ConfigError: the head is another one, or a layer of `model` does not fit into the larger network; names it.
    """
    larger = build_model(config, len(label_space(config.label_space).names))
    if type(larger.backbone) is not type(model.backbone):
        raise ConfigError(
            f"growing: a {type(model.backbone).__name__} cannot become a {type(larger.backbone).__name__}"
        )
    _require_same_head(model, larger)
    _require_equal_growth(model, larger)
    blocks = _block_origins(model, larger)
    units = _units(model, larger)
    weights, generator = model.state_dict(), torch.Generator().manual_seed(seed)
    taken = {}
    for name, own in larger.state_dict().items():
        origin, is_added = _origin(name, blocks)
        if origin not in weights:
            raise ConfigError(f"growing: the small network has no {origin}; both must be of one architecture")
        value = _enlarged(weights[origin], own.shape, units.get(name.rpartition(".")[0], (1, 1)), name, generator)
        taken[name] = torch.zeros_like(value) if is_added and _CONTRIBUTIONS.search(name) else value
    larger.load_state_dict(taken)
    return larger.train(model.training)


def _require_same_head(model: Pano3D, larger: Pano3D) -> None:
    """Only what reads the backbone's features grows with them: both sides of a dot product cannot be copied."""
    for part in ("fusion", "mask_decoder"):
        before, after = asdict(getattr(model, part).config), asdict(getattr(larger, part).config)
        for name, value in before.items():
            if after[name] != value:
                raise ConfigError(
                    f"growing: {part}.{name} is {value} and must stay so, got {after[name]}; only the backbone grows"
                )
    before, after = (each.mask_decoder.class_head.state_dict() for each in (model, larger))
    for name, value in before.items():
        if after[name].shape != value.shape:
            raise ConfigError(
                f"growing: class_head.{name} is {tuple(value.shape)} and must stay so, got {tuple(after[name].shape)}; "
                "the label space must have as many classes"
            )


def _require_equal_growth(model: Pano3D, larger: Pano3D) -> None:
    """The panoptic half reads both features in one row: their channels must be copied equally often."""
    before, after = model.backbone, larger.backbone
    if after.encoder_width * before.decoder_width != after.decoder_width * before.encoder_width:
        raise ConfigError(
            f"growing: encoder features go from {before.encoder_width} to {after.encoder_width} channels, decoder "
            f"features from {before.decoder_width} to {after.decoder_width}; both must grow by the same factor"
        )


def _block_origins(model: Pano3D, larger: Pano3D) -> dict[str, list[tuple[int, bool]]]:
    """For each list of blocks in `larger`, where every block comes from, and whether it is an added one."""
    lists = {path: len(found) for path, found in _block_lists(model).items()}
    # Blocks of Pi3's decoder come in pairs, within a view and across views.
    sizes = {path: 2 if path == "backbone.decoder" else 1 for path in lists}
    origins = {}
    for path, found in _block_lists(larger).items():
        size, before = sizes.get(path, 1), lists.get(path, 0)
        if before == 0 or len(found) < before or len(found) % size:
            raise ConfigError(f"growing: {path} has {before} blocks and cannot have {len(found)}")
        groups, added = before // size, (len(found) - before) // size
        order = [
            (group, is_added)
            for group in range(groups)
            for is_added in [True] * ((group + 1) * added // groups - group * added // groups) + [False]
        ]
        origins[path] = [(group * size + k, is_added) for group, is_added in order for k in range(size)]
    return origins


def _block_lists(model: Pano3D) -> dict[str, nn.ModuleList]:
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and all(isinstance(m, Block | DecoderBlock | EncoderBlock) for m in module)
    }


def _origin(name: str, blocks: dict[str, list[tuple[int, bool]]]) -> tuple[str, bool]:
    """Name of the weight in the small network, and whether it belongs to an added block."""
    for path, origins in blocks.items():
        if name.startswith(f"{path}."):
            index, _, rest = name.removeprefix(f"{path}.").partition(".")
            source, is_added = origins[int(index)]
            return f"{path}.{source}.{rest}", is_added
    return name, False


def _units(model: Pano3D, larger: Pano3D) -> dict[str, tuple[int, int]]:
    """For the layers around attention, how many of their (outputs, inputs) are copied together: those of a head."""
    before = _head_widths(model)
    units: dict[str, tuple[int, int]] = {}
    for path, width in _head_widths(larger).items():
        if before.get(path, width) != width:  # an added block has its neighbours' heads
            raise ConfigError(f"growing: heads of {path} are {before[path]} wide and must stay so, got {width}")
        units |= {f"{path}.{layer}": (width, 1) for layer in ("qkv", "projq", "projk", "projv")}
        units[f"{path}.proj"] = (1, width)
    return units


def _head_widths(model: Pano3D) -> dict[str, int]:
    """Channels of a head, for every attention of the backbone."""
    widths = {}
    for path, module in model.named_modules():
        if isinstance(module, SelfAttention | CrossAttention):
            widths[path] = module.proj.in_features // module.heads
        elif isinstance(module, dinov2_block.Attention):
            widths[path] = module.proj.in_features // module.num_heads
    return widths


def _enlarged(
    value: Tensor, shape: torch.Size, units: tuple[int, int], name: str, generator: torch.Generator
) -> Tensor:
    """`value` with its entries repeated to `shape`; along the inputs of a matrix the repeats add up to the original."""
    if value.ndim != len(shape) or any(new % old for new, old in zip(shape, value.shape)):
        raise ConfigError(
            f"growing: {name} is {tuple(value.shape)} and cannot become {tuple(shape)}; sizes must be multiples"
        )
    for axis, (new, old) in enumerate(zip(shape, value.shape)):
        copies = new // old
        if copies == 1:
            continue
        unit = units[axis] if axis < 2 else 1
        spread = value.unflatten(axis, (-1, unit)).unsqueeze(axis + 1)
        repeated = spread.repeat_interleave(copies, axis + 1)
        if value.ndim == 2 and axis == 1:
            # Drawn on the CPU: the same numbers wherever the model is.
            noise = torch.randn(repeated.shape, generator=generator).to(value.device)
            noise *= UNEVENNESS * value.std() / copies
            repeated = repeated / copies + noise - noise.mean(axis + 1, keepdim=True)
        value = repeated.flatten(axis, axis + 2)
    return value
