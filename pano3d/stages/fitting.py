"""What all training stages do around the loop: data, tracking, resuming, and writing the model with its curves."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pano3d import config, tracking
from pano3d.data.label_spaces import label_space
from pano3d.data.preparation import read_manifest, split_paths
from pano3d.files import locked
from pano3d.model import ModelConfig, Pano3D
from pano3d.model_files import joined_licenses, write_model
from pano3d.stages.workspace import work_folder
from pano3d.training.loop import History, TrainingConfig, train
from pano3d.training.objective import Objective
from pano3d.training.processes import Processes, joined_processes


@dataclass(frozen=True)
class Fit:
    """One training run: what is trained, on which split of which data, and where its files go.

    licenses: of the weights it starts from, none for fresh ones. What is trained carries those and the data's.
    """

    stage: str
    settings: Mapping[str, Any]
    model: Pano3D
    model_config: ModelConfig
    objective: Objective
    training: TrainingConfig | None
    data: Path
    start_digest: str
    licenses: Sequence[str]
    output: Path
    results: Path

    @property
    def seed(self) -> int:
        """The stage's own where it names one: an ablation repeats fine-tuning and keeps data and geometry."""
        own = self.settings[self.stage].get("seed")
        return int(self.settings["seed"] if own is None else own)


def fit(job: Fit) -> None:
    """Train (unless `training` is None), then write model.json + weights, curve.csv and metrics.json.

    Killed at any moment, the same call goes on from the last checkpoint, in the same tracking run. A second one at the
    same time waits: experiments share work/, and so this training's checkpoints. Started by torchrun, all processes
    train and the first one tracks and writes.
    """
    with joined_processes() as processes:
        manifest = read_manifest(job.data)
        key = _key(job, list(manifest["sha256"]))
        state_path = work_folder() / "training" / f"{job.stage}-{key[:16]}.pt"
        if not processes.is_first:
            processes.wait()
            _train(job, state_path, processes, tracking.Recorder())
            return
        waiting = f"{job.stage}: another run trains the same; waiting until it has ended"
        with locked(state_path.with_suffix(".lock"), waiting):
            processes.wait()
            _fit_and_write(job, manifest, key, state_path, processes)


def _fit_and_write(job: Fit, manifest: pd.DataFrame, key: str, state_path: Path, processes: Processes) -> None:
    """What the first process does: train, track, and write."""
    run_file = state_path.with_suffix(".run")
    run_id = run_file.read_text().strip() if run_file.exists() else None
    with tracking.run(job.stage, job.settings, device=str(processes.device), run_id=run_id) as recorder:
        if recorder.run_id:
            run_file.write_text(recorder.run_id)
        recorder.log_input(manifest, job.settings["dataset"]["name"], str(job.data), key, "training")
        history = _train(job, state_path, processes, recorder)
        provenance = {
            "stage": job.stage,
            "seed": job.seed,
            "dataset": job.settings["dataset"]["name"],
            "steps": job.training.steps if job.training else 0,
        }
        seen = [] if job.training is None else [str(one) for one in manifest["license"]]
        license = joined_licenses([*job.licenses, *seen])
        write_model(job.output, job.model, job.model_config, license, provenance)
        write_results(job.results, history)
        recorder.log_artifact(job.results)
    # Only now: until the outputs are whole, the state is what saves the work.
    state_path.unlink(missing_ok=True)
    run_file.unlink(missing_ok=True)


def _key(job: Fit, digests: list[str]) -> str:
    """What a training state belongs to: the same for the same training and for nothing else."""
    return config.digest(
        {
            "stage": job.stage,
            "seed": job.seed,
            "sections": {name: job.settings[name] for name in ("backbone", "head", job.stage)},
            "data": digests,
            "start": job.start_digest,
        }
    )


def _train(job: Fit, state_path: Path, processes: Processes, recorder: tracking.Recorder) -> History:
    if job.training is None:
        return []
    return train(
        job.model,
        job.objective,
        split_paths(job.data, "train"),
        job.training,
        job.seed,
        state_path,
        processes.device,
        log=recorder.log_metrics,
        label=f"{job.stage} {job.settings['backbone']['name']}",
        processes=processes,
        vocabulary=label_space(job.model_config.label_space),
    )


def write_results(results: Path, history: History) -> None:
    """curve.csv and metrics.json with the losses only: rates and memory differ from run to run."""
    results.mkdir(parents=True, exist_ok=True)
    names = sorted({name for row in history for name in row if name.startswith(("loss/", "grad_norm/"))})
    with open(results / "curve.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *names])
        for row in history:
            writer.writerow([int(row["step"]), *(f"{row[name]:.5g}" if name in row else "" for name in names)])
    tail = history[-max(1, len(history) // 10) :]
    metrics = {
        name.replace("/", "_"): round(
            sum(row[name] for row in tail if name in row) / sum(name in row for row in tail), 4
        )
        for name in names
        if any(name in row for row in tail)
    }
    (results / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n", encoding="utf-8")
