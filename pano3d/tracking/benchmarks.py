"""Benchmarks in the tracking store: a run for each time they were run; and what the stages of a reproduction cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pano3d.tracking import processes, store
from pano3d.tracking.runs import PEAK_MEMORY, MlflowRecorder, search

_MEGABYTE = 1_000_000


def record(name: str, tags: Mapping[str, str], metrics: Mapping[str, float], artifacts: Sequence[Path]) -> str | None:
    """Record one run of the benchmarks.

    Returns:
        its id, None where tracking is off.

    Raises:
        TrackingError: the store cannot be reached.
    """
    if not store.is_on():
        return None
    opened = store.open_store()
    about = {"kind": "benchmark", **processes.this_process(), **tags}
    run_id = str(opened.client.create_run(opened.experiment_id, tags=about, run_name=name).info.run_id)
    recorder = MlflowRecorder(opened, run_id)
    recorder.log_metrics(metrics)
    for path in artifacts:
        recorder.log_artifact(path)
    recorder.end("FINISHED")
    return run_id


def stage_costs() -> list[dict[str, Any]]:
    """Name, wall seconds and peak bytes of each finished stage of the newest reproduction, in the order they ran.

    A stage that DVC took from its cache was not run and is not here. Peak memory is that of the largest process; the
    workers of `evaluate` tell theirs in cost.json. Empty where tracking is off or nothing was recorded.
    """
    if not store.is_on() or (store.address().startswith("sqlite:") and not _database().is_file()):
        return []
    opened = store.open_store()
    for parent in search(opened, {"kind": "reproduction"}):
        runs = search(opened, {"mlflow.parentRunId": parent.info.run_id}, "attributes.status = 'FINISHED'")
        if runs:
            newest = {one.info.run_name: one for one in reversed(runs)}
            return [_cost(one) for one in sorted(newest.values(), key=lambda one: one.info.start_time)]
    return []


def _database() -> Path:
    return Path(store.address().removeprefix("sqlite:///"))


def _cost(run: Any) -> dict[str, Any]:
    peaks = [run.data.metrics[PEAK_MEMORY] * _MEGABYTE] if PEAK_MEMORY in run.data.metrics else []
    if run.data.tags.get("stage") == "evaluate":
        peaks += _worker_peak(run.data.tags.get("dataset", ""), run.data.tags.get("backbone", ""))
    return {
        "name": run.info.run_name,
        "seconds": (run.info.end_time - run.info.start_time) / 1000,
        "peak_bytes": int(max(peaks)) if peaks else None,
    }


def _worker_peak(dataset: str, backbone: str) -> list[float]:
    """Bytes of the largest worker, from the stage's cost.json; empty without that file."""
    path = store.home() / "reports" / dataset / backbone / "evaluate" / "cost.json"
    if not path.is_file():
        return []
    return [float(json.loads(path.read_text(encoding="utf-8"))["peak_mib"] * 2**20)]
