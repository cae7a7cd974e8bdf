"""Kernels made for a model's blocks: many small operations as one pass over memory."""

from __future__ import annotations

import torch
from torch import nn
from torch._functorch import config as functorch_config

from pano3d.backbones.dinov2_block import Block
from pano3d.backbones.must3r_decoder import DecoderBlock
from pano3d.backbones.must3r_encoder import EncoderBlock
from pano3d.model import Pano3D
from pano3d.panoptic.fusion import Perceptron

# What takes tensors alone: the plan of who reads whom changes with the views and would be compiled anew each time.
_FUSED: dict[type[nn.Module], tuple[str, ...]] = {
    EncoderBlock: ("forward",),
    DecoderBlock: ("store", "within_views", "ask", "digest"),
    Block: ("attend", "feed"),
    Perceptron: ("forward",),
}


def compile_blocks(model: Pano3D, keeps_graph: bool) -> None:
    """Compile the blocks in place, for any number of scenes and views; parameters and their names stay.

    The first steps take a minute or so longer.

    Args:
        keeps_graph: gradients will be taken more than once of the same forward pass. Otherwise a backward pass
            overwrites what the forward pass kept, which saves memory.
    """
    functorch_config.donated_buffer = not keeps_graph
    for module in model.modules():
        for name in _FUSED.get(type(module), ()):
            setattr(module, name, torch.compile(getattr(module, name), dynamic=True))
