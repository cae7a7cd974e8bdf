"""Both reconstruction backbones at their released sizes against plain twins: time, peak memory, memory per view.

    python -m benchmarks.backbones [--quick] [--backbones must3r pi3] [--device cuda] [--repeats 1]

Random weights, float32. A twin has the same weights and gives the same numbers, in the way of the public code: it
materialises attention scores, calls PyTorch's linear layers as they are, keeps normed tokens in MUSt3R's memory and
projects keys and values from them at every reading, runs the last block also where nothing reads it, and takes all
views at once. Then the memory of a stored
MUSt3R view, and the time per frame of a stream after its memory is full: the last third of the frames against the
first third, on the tiny preset.

--quick: the tiny presets instead of the released sizes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import cases as benchmarks
from benchmarks.cases import Work, require_close
from benchmarks.measure import cost_of, report
from pano3d import config
from pano3d.backbones.linear import Linear
from pano3d.backbones.must3r import Must3r, select_views
from pano3d.backbones.must3r_config import Must3rConfig
from pano3d.backbones.must3r_decoder import Must3rDecoder, ViewGroup
from pano3d.backbones.must3r_head import activate
from pano3d.backbones.must3r_streaming import StreamingConfig, StreamingSession
from pano3d.backbones.pi3 import Pi3
from pano3d.backbones.rope import grid_positions
from pano3d.model import BackboneChoice, Must3rChoice
from pano3d.types import BackboneOutput, Views


@dataclass(frozen=True)
class Case:
    """One reconstruction: a preset of params/backbone and its photos."""

    preset: str
    views: int
    width: int
    height: int

    @property
    def title(self) -> str:
        return f"{self.preset}, {self.views} views of {self.width}x{self.height}"


FULL = {
    "must3r": [Case("must3r_512", 8, 512, 384)],
    "pi3": [Case("pi3_large", 8, 224, 168), Case("pi3_large", 32, 112, 84)],
}
QUICK = {"must3r": [Case("must3r_tiny_coarse", 8, 128, 96)], "pi3": [Case("pi3_tiny_coarse", 8, 126, 98)]}


def chosen_backbone(preset: str) -> BackboneChoice:
    choice: BackboneChoice = config.load(
        config.compose(Path(__file__).parents[1] / "params", [f"backbone={preset}"]), BackboneChoice, "backbone"
    )
    return choice


def prepare(case: Case, way: str, device: str) -> Callable[[], object]:
    """Random weights and photos, then the measured reconstruction."""
    torch.manual_seed(0)
    choice = chosen_backbone(case.preset)
    if isinstance(choice, Must3rChoice):
        network = replace(choice.network, memory_views=0)
        plain = replace(network, memory_mode="norm_y", views_per_chunk=0)
        model: Must3r | Pi3 = Must3r(plain if way == "plain" else network)
    else:
        model = Pi3(replace(choice.network, views_per_chunk=0) if way == "plain" else choice.network)
    model = model.eval().to(device)
    images = torch.rand(1, case.views, 3, case.height, case.width).to(device)
    if way == "ours":
        return torch.no_grad()(partial(model, Views(images)))
    if isinstance(model, Must3r):
        return torch.no_grad()(partial(_materialised, partial(plain_must3r, model, images)))
    return torch.no_grad()(partial(_materialised, partial(model, Views(images))))


def prepare_both(case: Case, device: str) -> Work:
    """Ours and the twin with the same weights and photos."""

    def check(ours: BackboneOutput, plain: Any) -> None:
        require_close("points", ours.points_camera, plain.points_camera, 1e-3)
        require_close("confidence", ours.confidence, plain.confidence, 1e-3)

    ours, plain = (prepare(case, way, device) for way in ("ours", "plain"))
    return Work(ours, check, plain, units=case.views)


def prepare_size(preset: str, over: str, size: int, device: str) -> Callable[[], object]:
    """Ours with `size` views, or 2 views whose sides have `size` times the preset's."""
    choice = chosen_backbone(preset)
    views, times = (size, 1) if over == "views" else (2, size)
    return prepare(Case(preset, views, times * choice.image_width, times * choice.image_height), "ours", device)


def cases(full: bool) -> list[benchmarks.Case | benchmarks.Growth]:
    """Forward passes against the twins, tiny and in a full run released sizes; growth of the tiny ones."""
    sizes = [case for group in ([QUICK, FULL] if full else [QUICK]) for some in group.values() for case in some]
    growths = {"views": (1, 2, 5, 10, 20, 50), "image side": (1, 2, 3, 4)} if full else {"views": (1, 5, 20)}
    return [
        *(
            benchmarks.Case(
                f"forward {case.preset} {case.views}x{case.width}x{case.height}",
                partial(prepare_both, case),
                unit="view",
            )
            for case in sizes
        ),
        *(
            benchmarks.Growth(f"forward {preset}", over, values, partial(prepare_size, preset, over))
            for preset in ("must3r_tiny_coarse", "pi3_tiny_coarse")
            for over, values in growths.items()
        ),
    ]


def _materialised(work: Callable[[], object]) -> object:
    """The call with attention as public code has it without fused kernels, and PyTorch's own linear layers."""
    with (
        mock.patch.object(functional, "scaled_dot_product_attention", materialised_attention),
        mock.patch.object(Linear, "forward", nn.Linear.forward),
    ):
        return work()


def materialised_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention whose scores exist all at once."""
    scores = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5
    return scores.softmax(-1) @ value


def plain_must3r(model: Must3r, images: Tensor) -> object:
    """Memory pass whose predictions are made and dropped, then the render pass."""
    group = model.encode(images)
    memory = None
    for chunk in [[0, 1], *([view] for view in range(2, images.shape[1]))]:
        _, memory = model.decoder.update([select_views(group, chunk)], memory)
    assert memory is not None
    raw = torch.cat([one.raw for one in model.render(group, memory)], dim=1)
    return activate(raw, model.config.activation)


def stored_view(network: Must3rConfig, case: Case) -> float:
    """Bytes that the memory keeps of one view."""
    grid = (case.height // network.patch_size, case.width // network.patch_size)
    tokens = torch.randn(1, 2, grid[0] * grid[1], network.encoder_width)
    group = ViewGroup(tokens, grid_positions(*grid), (case.height, case.width))
    with torch.inference_mode():
        _, memory = Must3rDecoder(network).eval().update([group], None, predict=False)
    return memory.num_bytes / 2


def stream_seconds(frames: int, keyframes: int, local_context: int) -> tuple[list[float], list[int]]:
    """Seconds of every frame, and bytes of memory after it, in a stream where every frame wants to be kept."""
    torch.manual_seed(0)
    choice = chosen_backbone("must3r_tiny_coarse")
    assert isinstance(choice, Must3rChoice)
    settings = StreamingConfig(
        novelty_threshold=-1.0, minimum_confidence=1.0, local_context=local_context, maximum_keyframes=keyframes
    )
    session = StreamingSession(Must3r(choice.network), settings)
    seconds, sizes = [], []
    for _ in range(frames):
        image = torch.rand(3, choice.image_height, choice.image_width)
        started = time.process_time()  # of this process alone: other work on the machine does not count
        session.step(image)
        seconds.append(time.process_time() - started)
        sizes.append(session.memory_bytes)
    return seconds, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny presets")
    parser.add_argument("--backbones", nargs="+", default=list(FULL), choices=list(FULL))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--frames", type=int, default=60, help="of the stream")
    chosen = parser.parse_args()
    cases = QUICK if chosen.quick else FULL
    for name in chosen.backbones:
        for case in cases[name]:
            ours, plain = (
                cost_of(partial(prepare, case, way), chosen.device, chosen.repeats) for way in ("ours", "plain")
            )
            report(case.title, ours, plain)
    if "must3r" not in chosen.backbones:
        return
    case = cases["must3r"][0]
    choice = chosen_backbone(case.preset)
    assert isinstance(choice, Must3rChoice)
    network = replace(choice.network, memory_mode="kv", memory_dtype="float32")
    for kept in (network, replace(network, memory_mode="norm_y"), replace(network, memory_dtype="bfloat16")):
        size = stored_view(kept, case) / 2**20
        how = f"{kept.memory_mode} in {kept.memory_dtype}"
        print(f"memory of a stored view, {case.width}x{case.height}, {how}: {size:.2f} MiB")
    keyframes, local_context = 6, 2
    seconds, sizes = stream_seconds(chosen.frames, keyframes, local_context)
    start = keyframes + local_context + 1
    full, held = seconds[start:], sizes[start:]
    third = len(full) // 3
    early, late = (sorted(part)[third // 2] for part in (full[:third], full[-third:]))
    print(
        f"stream of {chosen.frames} frames, {keyframes} keyframes and {local_context} recent ones kept: "
        f"{1000 * late:.0f} ms a frame at the end, {late / early:.2f} of the time once memory was full; "
        f"memory {max(held[-third:]) / max(held[:third]):.2f} of that"
    )


if __name__ == "__main__":
    main()
