"""Started by torchrun: the small training, its curve written by the first process.

torchrun -m tests.training.torchrun_training ARCHIVES OUT STEPS [key=value ...]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from pano3d.training.loop import train
from pano3d.training.processes import joined_processes

from . import small


def main(archives: str, out: str, steps: str, *words: str) -> None:
    options = dict(word.split("=") for word in words)
    folder = Path(out)
    paths = sorted(Path(archives).glob("*.zip"))
    backbone = options.get("backbone", "must3r")
    config = small.step_of_four(int(steps), backbone, sharding=options.get("sharding", "none"))
    config = replace(config, checkpoint_every=int(options.get("checkpoint_every", config.checkpoint_every)))
    if "recompute" in options:
        config = replace(config, recompute=True)
    with joined_processes() as processes:

        def log(values: dict[str, float], step: int) -> None:
            if step == int(options.get("die_at", -1)):
                victim = json.loads((folder / "processes.json").read_text())[int(options["die"])]
                os.kill(victim, signal.SIGKILL)

        ranks = [torch.tensor(0) for _ in range(processes.count)]
        torch.distributed.all_gather(ranks, torch.tensor(os.getpid()))
        (folder / "processes.json").write_text(json.dumps([int(rank) for rank in ranks]))
        network = small.model(backbone)
        history = train(
            network,
            small.objective(backbone=backbone),
            paths,
            config,
            3,
            folder / "state.pt",
            processes.device,
            log,
            processes=processes,
        )
        if processes.is_first:
            (folder / "history.json").write_text(json.dumps(history))
            torch.save(network.state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
