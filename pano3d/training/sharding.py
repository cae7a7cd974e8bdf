"""FSDP2: every process keeps a slice of each weight, its gradient and its moments, and gathers weights for use.

The training state on disk is whole either way: a run may go on with another number of processes, sharded or not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.distributed import device_mesh, fsdp, tensor

from pano3d.backbones.attention import Mlp, SelfAttention
from pano3d.backbones.dinov2_block import Attention
from pano3d.model import Pano3D
from pano3d.panoptic.attention import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from pano3d.training.processes import Processes

# Gathered one by one. All are used through their `forward` alone, where FSDP gathers and frees; what other modules hold
# is gathered with the half of the network it belongs to.
_UNITS = (Mlp, SelfAttention, Attention, CrossAttentionLayer, SelfAttentionLayer, FeedForwardLayer)


def shard(model: Pano3D, processes: Processes) -> None:
    """Replace the parameters in place by slices; gradients are summed over processes, not averaged."""
    # About outputs that are views of other tensors: nothing here writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    mesh = device_mesh.init_device_mesh(processes.device.type, (processes.count,))
    halves = (model.backbone, model.fusion, model.mask_decoder)
    for module in [*_units(model), *halves]:
        wrapped: Any = fsdp.fully_shard(module, mesh=mesh)
        wrapped.set_gradient_divide_factor(1.0)
        if processes.device.type == "cpu":
            wrapped.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sums


def gather(model: nn.Module) -> None:
    """Make the parameters whole again, in place, on the host; the model can then be written but not trained."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            whole = nn.Parameter(whole_tensor(parameter.detach()).cpu(), requires_grad=parameter.requires_grad)
            module._parameters[name] = whole


def whole_state(value: Any) -> Any:
    """The same nested containers with whole tensors; every process must ask for it."""
    if isinstance(value, Tensor):
        return whole_tensor(value)
    if isinstance(value, dict):
        return {name: whole_state(item) for name, item in value.items()}
    if isinstance(value, list):
        return [whole_state(item) for item in value]
    return value


def sharded_moments(state: dict[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """An optimizer's whole state with its moments laid out as the parameters are."""
    entries = {}
    for index, moments in state["state"].items():
        like = parameters[index]
        entries[index] = {
            name: tensor.distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
            if isinstance(like, tensor.DTensor) and isinstance(value, Tensor) and value.shape == like.shape
            else value
            for name, value in moments.items()
        }
    return {**state, "state": entries}


def whole_tensor(value: Tensor) -> Tensor:
    """All of a tensor that may be sharded; every process must ask for it."""
    return value.full_tensor() if isinstance(value, tensor.DTensor) else value


def _units(model: Pano3D) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, _UNITS))
