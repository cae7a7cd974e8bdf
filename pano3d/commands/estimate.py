"""How long a reconstruction will take and how much memory it will need: said before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from pano3d.reconstruction import Reconstructor

PROBE_VIEWS = 4


@dataclass(frozen=True)
class Estimate:
    """seconds: of the network, if its time grows with the number of views. bytes: of the process at its peak."""

    seconds: float
    bytes: int

    def __str__(self) -> str:
        seconds = "less than a second" if self.seconds < 1 else f"about {self.seconds:.0f} s"
        return f"{seconds} for the network, {self.bytes / 2**30:.1f} GiB of memory"


def memory_bytes(reconstructor: Reconstructor, width: int, height: int, views: int) -> int:
    """Peak memory: what the process holds now, and per view its tokens through a dozen layers and its pixel maps."""
    model = reconstructor.model
    pixels, tokens = width * height, width * height // model.backbone.patch_size**2
    # Measured with 8 to 256 views: maps of network and scene, and the tables and meshes that are written of them.
    per_view = 176 * pixels + 4 * 12 * tokens * (model.backbone.encoder_width + model.backbone.decoder_width)
    merging = 3 * 4 * pixels * model.mask_decoder.config.queries  # masks of one view, three copies
    held = torch.cuda.memory_allocated() if reconstructor.device.type == "cuda" else psutil.Process().memory_info().rss
    return int(held + views * per_view + merging)


def free_bytes(reconstructor: Reconstructor) -> int:
    """Memory that this process may come to hold: its own, and what is free on the device it computes on."""
    if reconstructor.device.type == "cuda":
        return int(torch.cuda.memory_allocated() + torch.cuda.mem_get_info(reconstructor.device)[0])
    return int(psutil.Process().memory_info().rss + psutil.virtual_memory().available)


def views_within(reconstructor: Reconstructor, width: int, height: int, budget: float) -> int:
    """The most views whose memory stays within a budget in bytes; 0 where not even one does."""
    none, one = (memory_bytes(reconstructor, width, height, views) for views in (0, 1))
    return max(0, int((budget - none) // (one - none)))


def estimate(reconstructor: Reconstructor, width: int, height: int, views: int) -> Estimate:
    """Time up to four views of noise and multiply."""
    noise = np.random.default_rng(0).integers(0, 256, (PROBE_VIEWS, height, width, 3), dtype=np.uint8)
    count = 1 if views <= PROBE_VIEWS else PROBE_VIEWS  # a probe must stay cheap beside the work itself
    reconstructor.reconstruct(noise[:1])  # the first call sets things up
    started = time.perf_counter()
    reconstructor.reconstruct(noise[:count])
    seconds = (time.perf_counter() - started) * views / count
    return Estimate(seconds, memory_bytes(reconstructor, width, height, views))
