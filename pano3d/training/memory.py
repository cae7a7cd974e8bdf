"""What a training step will need, said before the first one, and what it needed."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from pano3d import processes
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.pi3 import Pi3Config
from pano3d.model import Pano3D
from pano3d.panoptic.attention import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from pano3d.training.objective import Objective
from pano3d.training.optimizer import Optimizers
from pano3d.types import Batch

GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process.

    base: what is held before the first step: weights on a GPU; on a CPU also the program and its libraries.
    gradients, moments: of the parameters that learn, as far as they do not exist yet.
    activations: the most that forward and backward pass hold at once beside these, measured on one scene.
    frames: decoded frames that the cache may still take in; on a CPU only, where they are this process's memory.
    """

    base: int
    gradients: int
    moments: int
    activations: int
    frames: int

    @property
    def total(self) -> int:
        return self.base + self.gradients + self.moments + self.activations + self.frames

    def __str__(self) -> str:
        return (
            f"{self.total / GIB:.2f} GiB = {self.base / GIB:.2f} held now + {self.gradients / GIB:.2f} gradients + "
            f"{self.moments / GIB:.2f} moments + {self.activations / GIB:.2f} activations + "
            f"{self.frames / GIB:.2f} cached frames"
        )


def estimate_memory(
    model: Pano3D,
    objective: Objective,
    one_scene: Batch,
    scenes: int,
    optimizer: Optimizers,
    autocast: torch.dtype | None,
    frames: int,
) -> MemoryEstimate:
    """Run one scene forward and backward, count what lives, and leave weights and random numbers as they were.

    Args:
        one_scene: on the model's device.
        scenes: of one forward pass.
        autocast: dtype of the forward pass, None for none.
        frames: bytes that the frame cache may still take in.
    """
    device = one_scene.views.images.device
    on_gpu = device.type == "cuda"
    sizes = [
        sum(p.numel() * p.element_size() // _shares(p) for group in rule.param_groups for p in group["params"])
        for rule in optimizer.rules
    ]
    gradients = sum(sizes)
    # Muon keeps the momentum alone, AdamW the mean square too; a resumed run has them already.
    kept = [0 if rule.state else 1 if isinstance(rule, torch.optim.Muon) else 2 for rule in optimizer.rules]
    base = torch.cuda.memory_allocated(device) if on_gpu else psutil.Process().memory_info().rss
    with torch.random.fork_rng(devices=[device.index or 0] if on_gpu else []), _LiveBytes() as live:
        torch.manual_seed(0)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            losses = objective(model, one_scene, torch.Generator().manual_seed(0))
        forward = live.peak
        losses["total"].backward()
        del losses
    optimizer.zero_grad()
    return MemoryEstimate(
        base=base,
        gradients=gradients,
        moments=sum(number * size for number, size in zip(kept, sizes)),
        # What the backward pass adds may be the gradients, which do not grow with the scenes.
        activations=max(forward, live.peak - gradients) * scenes,
        frames=0 if on_gpu else frames,
    )


def _shares(parameter: Tensor) -> int:
    """Among how many processes a parameter is split."""
    return int(parameter.device_mesh.size()) if isinstance(parameter, DTensor) else 1


class _LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and not isinstance(value, DTensor):
                self._meet(value.untyped_storage())
        return result

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()

        def forget(_: Any) -> None:
            self._known.pop(key, None)
            self._now -= size

        self._known[key] = weakref.ref(storage, forget)
        self._now += size
        self.peak = max(self.peak, self._now)


def peak_bytes(device: torch.device) -> int:
    """The most this process has held: on a GPU what PyTorch allocated, on a CPU all of it."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else processes.peak_bytes()


def available_bytes(device: torch.device) -> int:
    """What this process may hold at most, as things are: what it has and what is free, of the GPU or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


def recompute_blocks(model: Pano3D) -> None:
    """Keep only the inputs of blocks and run them again in the backward pass: slower, smaller, the same gradients."""
    for module in model.backbone.modules():
        settings = getattr(module, "config", None)
        if isinstance(settings, Must3rConfig | Pi3Config):
            module.config = replace(settings, recompute_blocks=True)  # type: ignore[assignment]
    for module in model.mask_decoder.modules():
        if isinstance(module, CrossAttentionLayer | SelfAttentionLayer | FeedForwardLayer):
            _recompute(module)


def _recompute(module: nn.Module) -> None:
    forward = module.forward

    def recomputed(*values: Tensor | None) -> Tensor:
        if not (module.training and torch.is_grad_enabled()):
            return forward(*values)
        result: Tensor = checkpoint(forward, *values, use_reentrant=False)
        return result

    module.forward = recomputed
