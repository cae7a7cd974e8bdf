"""What the main paths cost in terms that do not depend on the machine: operator calls, arithmetic, allocated bytes.

    python -m benchmarks.main_paths [--record]

Tiny presets with seeded weights on one generated room. `operators`: calls that reach PyTorch's dispatcher, backward
and optimiser included. `flops`: of matrix products, convolutions and attention, two for a multiply and add. `bytes`:
all storage that operators return anew; for `scoring`, which is NumPy, the most that was held at a time.
tests/test_main_paths.py compares with tests/golden/main_paths.json and fails above 10 percent; --record writes that
file, for a change that is meant.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from pano3d import config
from pano3d.data.archive import read_scene, write_scene
from pano3d.data.batches import TrainingSteps
from pano3d.data.frames import fit_frame
from pano3d.data.label_spaces import label_space
from pano3d.data.rooms import RoomsConfig, SplitSizes, generate_scene
from pano3d.metrics.panoptic_quality import scene_counts
from pano3d.model import BackboneChoice, HeadConfig, ModelConfig, Pano3D, build_model
from pano3d.online import OnlineConfig, OnlineReconstructor
from pano3d.panoptic.scene import SceneConfig
from pano3d.reconstruction import Reconstructor
from pano3d.stages.joint_finetune import JointFinetuneConfig
from pano3d.training.objective import make_objective
from pano3d.training.optimizer import clip_gradients, make_optimizer

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests/golden/main_paths.json"
VIEWS = 8


@dataclass
class Proxies:
    """Counts of one path."""

    operators: int = 0
    flops: int = 0
    bytes: int = 0


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(
    gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))


FLOPS = dict(flop_registry) | {
    # PyTorch's own table has the kernels of GPUs alone.
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class _Recorder(TorchDispatchMode):
    """Counts operators, their arithmetic, and the bytes of storages that no argument already had."""

    def __init__(self, counts: Proxies) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        made = {_storage(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)}
        self._counts.operators += 1
        self._counts.bytes += sum(size for _, size in made - given)
        if (formula := FLOPS.get(function.overloadpacket)) is not None:
            self._counts.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _storage(tensor: torch.Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


@contextmanager
def counting() -> Iterator[Proxies]:
    """Counts of what PyTorch does inside."""
    counts = Proxies()
    with _Recorder(counts):
        yield counts


def _network(settings: dict[str, Any]) -> Pano3D:
    choice: BackboneChoice = config.load(settings, BackboneChoice, "backbone")
    head = config.load(settings, HeadConfig, "head")
    torch.manual_seed(0)
    return build_model(ModelConfig(choice, head, "scannet20"), 20)


def _forward(settings: dict[str, Any], images: np.ndarray) -> Proxies:
    """Backbone and mask decoder on all views at once."""
    reconstructor = _reconstructor(settings)
    views = reconstructor.views(images)
    with torch.no_grad(), counting() as counts:
        reconstructor.model(views)
    return counts


def _streaming(settings: dict[str, Any], images: np.ndarray) -> Proxies:
    """One frame of a capture that has seen all others."""
    session = OnlineReconstructor(_reconstructor(settings), OnlineConfig())
    for image in images[:-1]:
        session.step(image)
    with counting() as counts:
        session.step(images[-1])
    return counts


def _reconstructor(settings: dict[str, Any]) -> Reconstructor:
    size = settings["backbone"]
    return Reconstructor(
        _network(settings),
        label_space("scannet20"),
        size["image_width"],
        size["image_height"],
        SceneConfig(),
        torch.device("cpu"),
    )


def _training_step(settings: dict[str, Any], archive: Path) -> Proxies:
    """Forward, losses, matching, backward, clipping and the optimiser's step, on one set of 8 views."""
    stage = config.load(settings, JointFinetuneConfig, "joint_finetune")
    choice: BackboneChoice = config.load(settings, BackboneChoice, "backbone")
    model = _network(settings).train()
    objective = make_objective(stage.mode, choice.geometry_loss, stage.panoptic_loss, stage.geometry_weight)
    optimizer = make_optimizer(model, stage.training.optimizer)
    loader = replace(stage.training.loader, views=(VIEWS,), images_per_batch=VIEWS)
    batch = TrainingSteps([archive], loader, seed=0)[0]
    torch.manual_seed(0)
    with counting() as counts:
        objective(model, batch, torch.Generator().manual_seed(0))["total"].backward()
        clip_gradients(model, stage.training.optimizer.clip_norm)
        optimizer.step()
    return counts


def _scoring() -> Proxies:
    """PQ counts of a scene of 20 views with 60 segments."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 60, (20, 12, 16))
    truth = blocks.repeat(32, 1).repeat(32, 2)
    predicted = np.roll(truth, 5, axis=2)
    is_thing, predicted_class, true_class = np.arange(20) >= 2, predicted % 20, truth % 20
    tracemalloc.start()
    scene_counts(predicted_class, predicted, true_class, truth, is_thing)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Proxies(bytes=peak)


def measure() -> dict[str, Proxies]:
    """Counts by path."""
    rooms = RoomsConfig(SplitSizes(1, 1, 1), SplitSizes(VIEWS, VIEWS, VIEWS), 128, 96, "fast", 0.04)
    counts: dict[str, Proxies] = {}
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "room.zip"
        write_scene(archive, generate_scene(rooms, 0, "train", 0))
        scene = read_scene(archive)
        for backbone in ("must3r", "pi3"):
            settings = config.compose(ROOT / "params", [f"backbone={backbone}_tiny"])
            size = settings["backbone"]["image_width"], settings["backbone"]["image_height"]
            images = np.stack([fit_frame(scene.frame(index), *size).color for index in range(VIEWS)])
            counts[f"forward {backbone}"] = _forward(settings, images)
            counts[f"training step {backbone}"] = _training_step(settings, archive)
            if backbone == "must3r":
                counts["streaming step"] = _streaming(settings, images)
    counts["scoring"] = _scoring()
    return counts


def table(counts: dict[str, Proxies]) -> str:
    """A line per path."""
    lines = [f"{'path':<24}{'operators':>10}{'GFLOP':>10}{'MiB':>10}"]
    for name, one in counts.items():
        lines.append(f"{name:<24}{one.operators:>10}{one.flops / 1e9:>10.2f}{one.bytes / 2**20:>10.1f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.relative_to(ROOT)}")
    chosen = parser.parse_args()
    counts = measure()
    print(table(counts))
    if chosen.record:
        RECORD.write_text(json.dumps({name: asdict(one) for name, one in counts.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
