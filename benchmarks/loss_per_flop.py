"""What a small network learns of geometry for the same arithmetic, by width, depth, patch, optimiser and schedule.

    python -m benchmarks.loss_per_flop data/prepared/rooms [--backbone must3r_tiny_coarse] [--tflop 12] [--only narrow]

Every variant is trained from nothing by the stage `geometry_init`, at the rate and with the sets of
`params/experiment/rooms_released_coarse.yaml` where its name says nothing else, on the same rooms, until it has used up
`--tflop` of matrix products, forward and backward, the optimiser's included (counted over its first steps), and scored
on the validation rooms. A step sees photos of rooms seldom seen before, so the mean loss of the last tenth of the steps
speaks of new rooms too. One thread; start several with their own `--only` to use more cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from pano3d import config
from pano3d.data.label_spaces import label_space
from pano3d.data.preparation import split_paths
from pano3d.evaluation import EvaluationConfig, evaluate_scenes
from pano3d.metrics.scene_scores import aggregate_scenes
from pano3d.stages import geometry_init

PARAMS = Path(__file__).parents[1] / "params"
COUNTED_STEPS = 8
"""Enough for sets of all sizes to come up."""

_NETWORK, _OPTIMIZER = "backbone.network", "geometry_init.training.optimizer"


def _size(width: int, encoder: int, decoder: int) -> list[str]:
    """Overrides of MUSt3R's width, in heads of 32 channels, and of its depths."""
    parts = {"encoder": encoder, "decoder": decoder}
    words = [f"{_NETWORK}.{part}_width={width}" for part in parts]
    words += [f"{_NETWORK}.{part}_heads={width // 32}" for part in parts]
    return words + [f"{_NETWORK}.{part}_depth={depth}" for part, depth in parts.items()]


def _rate(rate: float) -> list[str]:
    return [f"{_OPTIMIZER}.{part}={rate}" for part in ("encoder", "decoder", "geometry_head")]


VARIANTS: dict[str, list[str]] = {
    "as it is (160 channels, 4 + 5 blocks, Muon, 1e-3, cosine)": [],
    "narrow (96 channels)": _size(96, 4, 5),
    "wide (256 channels)": _size(256, 4, 5),
    "shallow (2 + 3 blocks)": _size(160, 2, 3),
    "deep (6 + 8 blocks)": _size(160, 6, 8),
    "narrow and deep (96 channels, 6 + 8 blocks)": _size(96, 6, 8),
    "half the patch (8 pixels)": [f"{_NETWORK}.patch_size=8", f"{_NETWORK}.rope_scale=0.5"],
    "AdamW alone": [f"{_OPTIMIZER}.muon=0.0"],
    "AdamW alone, half the rate": [f"{_OPTIMIZER}.muon=0.0", *_rate(5e-4)],
    "half the rate": _rate(5e-4),
    "twice the rate": _rate(2e-3),
    "constant rate": [f"{_OPTIMIZER}.final=1.0"],
}


def train(words: Sequence[str], data: Path, folder: Path, steps: int) -> tuple[float, float]:
    """Train a variant for that many steps into `folder`; the loss at its end and the seconds it took."""
    words = [*words, f"geometry_init.training.steps={steps}"]
    folder.mkdir(parents=True)
    config.write(folder / "params.yaml", config.compose(PARAMS, words))
    start = time.perf_counter()
    geometry_init.run(folder / "params.yaml", data, folder / "model", folder)
    loss = json.loads((folder / "metrics.json").read_text())["loss_total"]
    return float(loss), time.perf_counter() - start


def run_variant(words: Sequence[str], data: Path, paths: Sequence[Path], tflop: float) -> dict[str, float]:
    """Figures of one variant: steps and GFLOP of one, seconds, loss, and scores of 4 overlapping views in percent."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with FlopCounterMode(display=False) as counter:
            train(words, data, folder / "counted", COUNTED_STEPS)
        per_step = counter.get_total_flops() / COUNTED_STEPS
        steps = max(COUNTED_STEPS, round(tflop * 1e12 / per_step))
        loss, seconds = train(words, data, folder / "trained", steps)
        evaluation = EvaluationConfig("validation", 4, 1, 0, minimum_overlap=0.3)
        with tqdm(total=len(paths), desc="scoring", unit="scene", leave=False, disable=None) as progress:
            scored = evaluate_scenes(folder / "trained/model", list(paths), evaluation, progress.update)
    labels = label_space("scannet20")
    total = aggregate_scenes([each.scores for each in scored], np.array(labels.is_thing), 0, 1).values
    return {
        "GFLOP a step": per_step / 1e9,
        "steps": float(steps),
        "seconds": seconds,
        "loss": loss,
        "depth error": 100 * total["abs_rel"],
        "rotation AUC@30": 100 * total["rotation_auc30"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared rooms: their training and validation splits")
    parser.add_argument("--backbone", default="must3r_tiny_coarse", help="a preset of params/backbone, of MUSt3R")
    parser.add_argument("--tflop", type=float, default=12.0, help="arithmetic of every variant (default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=[], help="variants whose names begin so (default: all)")
    parser.add_argument("--override", nargs="*", default=[], help="of params, for all variants")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    base = [f"backbone={chosen.backbone}", *_rate(1e-3), "geometry_init.training.loader.views=[2,4,4]"]
    base += chosen.override
    paths = split_paths(chosen.data, "validation")
    names = [name for name in VARIANTS if not chosen.only or name.startswith(tuple(chosen.only))]
    if not names:
        parser.error(f"no variant begins with {' or '.join(chosen.only)}; there are: {'; '.join(VARIANTS)}")
    for number, name in enumerate(names):
        figures = run_variant([*base, *VARIANTS[name]], chosen.data, paths, chosen.tflop)
        if number == 0:
            print(f"| {chosen.tflop:g} TFLOP of `{chosen.backbone}` | {' | '.join(figures)} |")
            print("|---" * (len(figures) + 1) + "|")
        print(f"| {name} | {' | '.join(f'{value:.4g}' for value in figures.values())} |", flush=True)


if __name__ == "__main__":
    main()
