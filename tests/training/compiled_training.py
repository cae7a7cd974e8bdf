"""Run by test_compilation.py without runtime type checks, which torch.compile cannot follow.

Prints, for each backbone, the losses of a training run as it is and with compiled blocks, and how many graphs were made
by the first step and by all. Graphs are captured, differentiated and run operation by operation (aot_eager): making
kernels of them would take minutes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from pano3d.training.loop import train
from tests.training import small


def losses(backbone: str, folder: Path, is_compiled: bool) -> tuple[list[float], list[int]]:
    """Total loss of every step, of sets of 2 or 3 views, and the graphs there are after each."""
    config = small.step_of_four(6, backbone, compile=is_compiled, log_every=1, probe_every=2)
    config = replace(config, loader=replace(config.loader, images_per_batch=6, views=(2, 3)))
    graphs: list[int] = []
    history = train(
        small.model(backbone),
        small.objective(backbone=backbone),
        small.archives(folder),
        config,
        seed=0,
        state_path=folder / f"{backbone}-{is_compiled}.pt",
        device=torch.device("cpu"),
        log=lambda row, step: graphs.append(counters["stats"]["unique_graphs"]),
    )
    return [row["loss/total"] for row in history], graphs


def main(folder: Path) -> None:
    torch.compile = partial(torch.compile, backend="aot_eager")
    found = {}
    for backbone in small.MODELS:
        plain, _ = losses(backbone, folder, is_compiled=False)
        counters.clear()
        compiled, graphs = losses(backbone, folder, is_compiled=True)
        found[backbone] = {"plain": plain, "compiled": compiled, "graphs": graphs}
        counters.clear()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
