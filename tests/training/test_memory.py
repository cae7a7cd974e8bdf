"""The estimate against what was used, in a process of its own: the peak of a process cannot be set back."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pano3d.training.memory import estimate_memory, recompute_blocks
from pano3d.training.optimizer import make_optimizer

from . import small

ROOT = Path(__file__).parents[2]

CODE = """
import json, sys, torch
from dataclasses import replace
from pathlib import Path
from pano3d.training.loop import train
from pano3d.training.memory import peak_bytes
from pano3d.model import build_model
from tests.training import small

backbone = replace(small.MODEL.backbone, image_width=192, image_height=128, network=replace(
    small.MODEL.backbone.network, encoder_width=128, encoder_depth=6, encoder_heads=4, decoder_width=128,
    decoder_depth=6, decoder_heads=4))
torch.manual_seed(0)
network = build_model(replace(small.MODEL, backbone=backbone), 20)
config = small.step_of_four(3, **json.loads(sys.argv[3]))
config = replace(config, loader=replace(config.loader, images_per_batch=16, image_width=192, image_height=128))
rows = train(network, small.objective(), sorted(Path(sys.argv[1]).glob("*.zip")), config, 0, Path(sys.argv[2]),
             torch.device("cpu"), log=lambda values, step: None)
print(json.dumps([rows[-1]["memory/estimate_gib"], rows[-1]["memory/peak_gib"]]))
"""


def measure(archives, folder, **changes):
    command = [sys.executable, "-c", CODE, str(archives), str(folder / "state.pt"), json.dumps(changes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "memory of a process, estimated" in done.stderr
    assert "of the estimate" in done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_estimate_is_near_the_peak(tmp_path):
    small.archives(tmp_path)
    whole_estimate, whole_peak = measure(tmp_path, tmp_path)
    # 1.20 to 1.28 in ten runs on one machine, by how memory was handed out.
    assert 0.75 < whole_peak / whole_estimate < 1.4
    parts_estimate, parts_peak = measure(tmp_path, tmp_path, accumulate=4, recompute=True)
    assert 0.75 < parts_peak / parts_estimate < 1.25
    assert parts_peak < whole_peak
    assert parts_estimate < whole_estimate


@pytest.mark.parametrize("backbone", ["must3r", "pi3"])
def test_recomputation_holds_less_in_either_half(tmp_path, backbone):
    """The backbone's blocks and the mask decoder's layers: each of them saves, also in a network of single layers."""
    from pano3d.data.batches import TrainingSteps
    from pano3d.training.slices import scenes_of

    config = small.step_of_four(1, backbone)
    batch = scenes_of(TrainingSteps(small.archives(tmp_path), config.loader, 0)[0], 0, 1)

    def activations(recomputed):
        network = small.model(backbone).train()
        blank = small.model(backbone)
        if recomputed:
            recompute_blocks(network)
            if recomputed == "backbone":
                network.mask_decoder = blank.mask_decoder.train()
        optimizer = make_optimizer(network, config.optimizer)
        return estimate_memory(
            network, small.objective(backbone=backbone), batch, 1, optimizer, None, frames=0
        ).activations

    assert activations("both") < activations("backbone") < activations(None)


def test_estimating_leaves_weights_gradients_and_random_numbers(tmp_path):
    from pano3d.data.batches import TrainingSteps
    from pano3d.training.slices import scenes_of

    config = small.step_of_four(1)
    batch = scenes_of(TrainingSteps(small.archives(tmp_path), config.loader, 0)[0], 0, 1)
    network = small.model().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = make_optimizer(network, replace(config.optimizer, encoder=0.0))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    estimate = estimate_memory(network, small.objective(), batch, 4, optimizer, None, frames=0)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    learning = sum(p.numel() * 4 for p in network.parameters() if p.requires_grad)
    assert (estimate.gradients, estimate.moments) == (learning, 2 * learning)
    assert estimate.activations > 4 * 2 * 3 * 32 * 48 * 4  # more than the pointmaps alone
