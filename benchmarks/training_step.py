"""Where the time of a joint training step goes: network, matching and segmentation loss, geometry loss.

    python -m benchmarks.training_step [--backbone must3r_tiny_coarse] [--views 8] [--queries 100] [--points 4096]

One scene of random images and blocks of segments; network and losses of the preset, in float32. The network's answers
are cut from its graph, so that the backward pass of each loss is timed apart from the network's. "matching and losses"
is the share that should stay below 10 %.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cases import Case, Growth, Work, require, require_close
from benchmarks.panoptic_loss import CLASSES, make_target
from pano3d import config
from pano3d.backbones.attention import attend
from pano3d.losses.must3r_geometry import must3r_geometry_loss
from pano3d.losses.panoptic import PanopticCriterion, PanopticLossConfig
from pano3d.losses.pi3_geometry import pi3_geometry_loss
from pano3d.model import BackboneChoice, HeadConfig, ModelConfig, Must3rChoice, build_model
from pano3d.stages.joint_finetune import JointFinetuneConfig
from pano3d.training.muon import Muon
from pano3d.training.objective import make_objective
from pano3d.training.optimizer import clip_gradients, hidden_matrices, make_optimizer
from pano3d.types import BackboneOutput, Batch, GeometryTarget, MaskOutput, PanopticTarget, Views

PARAMS = Path(__file__).parents[1] / "params"
GEOMETRY = ("points_world", "points_camera", "confidence", "world_from_camera")


class Clock:
    """Seconds by part of the step; CPU seconds of this process, so that other work on the machine does not count."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + self._now() - start

    def _now(self) -> float:
        if self._device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


class Cut:
    """Leaves in place of tensors, and the gradients they gathered handed on to the tensors."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def __call__(self, tensor: Tensor) -> Tensor:
        leaf = tensor.detach().requires_grad_()
        self._pairs.append((tensor, leaf))
        return leaf

    def backward(self) -> None:
        pairs = [(tensor, leaf.grad) for tensor, leaf in self._pairs if leaf.grad is not None]
        torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])


def prepare_step(backbone: str, scenes: int, views: int, device: str, precision: str = "fp32") -> Work:
    """A joint step as training takes it: forward, losses, matching, backward, clipping, the optimiser's step."""
    settings = config.compose(PARAMS, [f"backbone={backbone}", f"joint_finetune.training.precision={precision}"])
    stage = config.load(settings, JointFinetuneConfig, "joint_finetune")
    choice: BackboneChoice = config.load(settings, BackboneChoice, "backbone")
    head = config.load(settings, HeadConfig, "head")
    torch.manual_seed(0)
    model = build_model(ModelConfig(choice, head, "scannet20"), CLASSES).to(device).train()
    objective = make_objective(stage.mode, choice.geometry_loss, stage.panoptic_loss, stage.geometry_weight)
    autocast = stage.training.autocast
    optimizer = make_optimizer(model, stage.training.optimizer, autocast or torch.float32)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    size = (choice.image_height, choice.image_width)
    target, geometry = _targets(views, 20, size, device)
    batch = Batch(
        Views(torch.rand(scenes, views, 3, *size, device=device)),
        GeometryTarget(*(value.expand(scenes, *value.shape[1:]) for value in vars(geometry).values())),
        PanopticTarget(
            target.segment_index.expand(scenes, -1, -1, -1), target.class_id * scenes, target.is_thing * scenes
        ),
        ["noise"] * scenes,
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast(device, autocast, enabled=autocast is not None):
            total = objective(model, batch, torch.Generator().manual_seed(0))["total"]
        total.backward()
        clip_gradients(model, stage.training.optimizer.clip_norm)
        optimizer.step()
        return float(total.detach())

    def check(first: float, _: None) -> None:
        require(math.isfinite(first), f"the loss is {first}")
        moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        parts = {name.split(".")[0] for name in before}
        require(moved == parts, f"a step moved {sorted(moved)}; expected every part of {sorted(parts)}")
        losses = [first, *(step() for _ in range(5))]
        require(losses[-1] < losses[0], f"the loss of one batch does not fall within six steps: {losses}")

    def shares() -> dict[str, float]:
        points = settings["joint_finetune"]["panoptic_loss"]["points"]
        steps = [step_of(settings, views, points, 20, device) for _ in range(3)]
        best = min(steps, key=lambda one: sum(one.values()))
        return {f"share of {part}": seconds / sum(best.values()) for part, seconds in best.items()}

    return Work(step, check, figures=shares)


def prepare_growth(over: str, number: int, device: str) -> Callable[[], object]:
    """A step on `number` scenes of 2 views, or on one scene of `number` views."""
    scenes, views = (number, 2) if over == "scenes" else (1, number)
    return prepare_step("must3r_tiny_coarse", scenes, views, device).ours


def prepare_attention(images: int, tokens: int, device: str) -> Work:
    """Attention of `pi3_tiny` with its gradients in bfloat16; the twin is the fused kernel."""
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(images, 5, tokens, 32, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )

    def gradients(attention: Callable[..., Tensor]) -> Tensor:
        read = attention(query, key, value)
        return torch.cat(torch.autograd.grad(read.float().square().sum(), (query, key, value))).float()

    def check(ours: Tensor, plain: Tensor) -> None:
        require_close("the gradients of bfloat16 attention", ours, plain, 0.03)

    return Work(partial(gradients, attend), check, partial(gradients, functional.scaled_dot_product_attention))


def prepare_update(backbone: str, device: str, precision: torch.dtype = torch.float32) -> Work:
    """Muon's step over the hidden matrices of a preset; the twin is PyTorch's own. The same gradients at every call."""
    settings = config.compose(PARAMS, [f"backbone={backbone}"])
    torch.manual_seed(0)
    choice: BackboneChoice = config.load(settings, BackboneChoice, "backbone")
    head = config.load(settings, HeadConfig, "head")
    model = build_model(ModelConfig(choice, head, "scannet20"), CLASSES)
    hidden = hidden_matrices(model)
    start = [value.detach().to(device) for value in model.parameters() if id(value) in hidden]
    gradients = [torch.randn_like(value) for value in start]

    def parameters() -> list[nn.Parameter]:
        found = [nn.Parameter(value.clone()) for value in start]
        for parameter, gradient in zip(found, gradients, strict=True):
            parameter.grad = gradient
        return found

    mine, theirs = parameters(), parameters()
    ours = Muon([{"params": mine, "lr": 1e-3, "weight_decay": 0.0}], precision)
    plain = torch.optim.Muon(theirs, lr=1e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    def check(_: None, __: None) -> None:
        ends = ([parameter.detach() for parameter in moved] for moved in (mine, theirs))
        for before, one, other in zip(start, *ends, strict=True):
            apart = float((one - other).norm() / (other - before).norm())
            require(apart <= 0.03, f"Muon moves a matrix of {tuple(one.shape)} {apart:.1%} off PyTorch's own")

    return Work(ours.step, check, plain.step)


def cases(full: bool) -> list[Case | Growth]:
    counts = {"scenes": (1, 2, 4, 8), "views": (2, 4, 8, 16)} if full else {}
    return [
        *(
            Case(f"joint step {name} 8 views", partial(prepare_step, name, 1, 8))
            for name in ("must3r_tiny_coarse", "pi3_tiny_coarse")
        ),
        *(
            [
                *(
                    Case(
                        f"joint step {name} 8 images {precision}",
                        partial(prepare_step, name, 2, 4, precision=precision),
                    )
                    for name in ("must3r_tiny", "pi3_tiny")
                    for precision in ("fp32", "bf16")
                ),
                Case("attention bf16 within 8 views", partial(prepare_attention, 8, 253)),
                Case("attention bf16 across 4 views", partial(prepare_attention, 2, 4 * 253)),
                Case("Muon step pi3_tiny", partial(prepare_update, "pi3_tiny")),
                Case("Muon step pi3_tiny bf16", partial(prepare_update, "pi3_tiny", precision=torch.bfloat16)),
            ]
            if full
            else []
        ),
        *(
            Growth("joint step must3r_tiny_coarse", over, sizes, partial(prepare_growth, over))
            for over, sizes in counts.items()
        ),
    ]


def step_of(settings: dict[str, Any], views: int, points: int, segments: int, device: str) -> dict[str, float]:
    """Seconds of the parts of one step."""
    torch.manual_seed(0)
    head = config.load(settings, HeadConfig, "head")
    choice: BackboneChoice = config.load(settings, BackboneChoice, "backbone")
    model = build_model(ModelConfig(choice, head, "scannet20"), CLASSES).to(device).train()
    size = (choice.image_height, choice.image_width)
    target, geometry = _targets(views, segments, size, device)
    images = Views(torch.rand(1, views, 3, *size, device=device))
    criterion = PanopticCriterion(PanopticLossConfig(points=points))
    if isinstance(choice, Must3rChoice):
        geometry_loss = partial(must3r_geometry_loss, config=choice.geometry_loss, reference=0)
    else:
        geometry_loss = partial(pi3_geometry_loss, config=choice.geometry_loss)
    clock, cut = Clock(device), Cut()
    with clock("network"):
        output, masks = model(images)
    seen = _cut_geometry(output, cut)
    answers = MaskOutput(
        [cut(x) for x in masks.class_logits], [cut(x) for x in masks.mask_embeddings], cut(masks.mask_features)
    )
    with clock("matching and losses"):
        criterion(answers, target, output.view_index, torch.Generator().manual_seed(0))["total"].backward()
    with clock("geometry loss"):
        geometry_loss(seen, geometry)["total"].backward()
    with clock("network"):
        cut.backward()
    return clock.seconds


def _cut_geometry(output: BackboneOutput, cut: Cut) -> BackboneOutput:
    maps = {name: getattr(output, name) for name in GEOMETRY}
    leaves: dict[str, Any] = {name: None if value is None else cut(value) for name, value in maps.items()}
    return replace(output, **leaves)


def _targets(views: int, segments: int, size: tuple[int, int], device: str) -> tuple[PanopticTarget, GeometryTarget]:
    """Blocks of segments at image size; a wall 3 m ahead of cameras that step aside."""
    target = make_target(views, segments, device)
    resized = functional.interpolate(target.segment_index.float(), size=size, mode="nearest").long()
    intrinsics = torch.tensor([[float(size[1]), 0, size[1] / 2], [0, float(size[1]), size[0] / 2], [0, 0, 1]])
    poses = torch.eye(4).repeat(1, views, 1, 1)
    poses[0, :, 0, 3] = 0.3 * torch.arange(views)
    depth = 3.0 + 0.1 * torch.rand(1, views, *size)
    return replace(target, segment_index=resized), GeometryTarget(
        depth.to(device), intrinsics.expand(1, views, 3, 3).to(device), poses.to(device)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="must3r_tiny_coarse", help="a preset of params/backbone")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--segments", type=int, default=40)
    parser.add_argument("--points", type=int, nargs="*", default=[], help="per view; default: those of the preset")
    parser.add_argument("--override", nargs="*", default=[], help="of params, such as experiment=scannet_must3r")
    parser.add_argument("--repeats", type=int, default=3, help="the step with the least total counts")
    chosen = parser.parse_args()
    words = [*chosen.override, f"backbone={chosen.backbone}", f"head.decoder.queries={chosen.queries}"]
    settings = config.compose(PARAMS, words)
    for points in chosen.points or [settings["joint_finetune"]["panoptic_loss"]["points"]]:
        steps = [step_of(settings, chosen.views, points, chosen.segments, chosen.device) for _ in range(chosen.repeats)]
        best = min(steps, key=lambda step: sum(step.values()))
        total = sum(best.values())
        print(f"{chosen.backbone}, {chosen.views} views, {chosen.queries} queries, {points} points: {total:.2f} s")
        for part, seconds in best.items():
            print(f"{part:<20} {seconds:7.2f} s  {100 * seconds / total:5.1f} %", flush=True)


if __name__ == "__main__":
    main()
