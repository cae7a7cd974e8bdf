"""An ablation in the tracking store: an experiment with one run, and under it one per variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pano3d.tracking import store
from pano3d.tracking.runs import MlflowRecorder


@dataclass(frozen=True)
class Variant:
    """What a variant's run says: tags, metrics, and why some of its seeds have none."""

    name: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    failures: Sequence[str]


def record(name: str, variants: Sequence[Variant], artifacts: Sequence[Path]) -> str | None:
    """Record an ablation under its name; the same name again brings the same runs up to date.

    Returns:
        id of the parent run, None where tracking is off.

    Raises:
        TrackingError: the store cannot be reached.
    """
    if not store.is_on():
        return None
    opened = store.open_store()
    with opened.lock():
        place = opened.experiment(f"ablation/{name}")
        parent = _run(opened, place, {"kind": "ablation", "ablation": name}, f"ablation {name}")
        children = [
            _run(
                opened, place, {"kind": "variant", "ablation": name, "mlflow.parentRunId": parent, **one.tags}, one.name
            )
            for one in variants
        ]
    for one, child in zip(variants, children, strict=True):
        recorder = MlflowRecorder(opened, child)
        recorder.log_metrics(one.metrics)
        recorder.set_tags({"failures": "; ".join(one.failures)[:5000]})
        recorder.end("FAILED" if one.failures else "FINISHED")
    recorder = MlflowRecorder(opened, parent)
    for path in artifacts:
        recorder.log_artifact(path)
    recorder.end("FAILED" if any(one.failures for one in variants) else "FINISHED")
    return parent


def _run(opened: store.Store, place: str, tags: Mapping[str, str], name: str) -> str:
    """The run of an experiment with these tags, made where there is none. Call with the lock held."""
    identifying = {tag: value for tag, value in tags.items() if tag != "seeds"}
    wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identifying.items())
    found = opened.client.search_runs([place], wanted)
    if found:
        run_id = str(found[0].info.run_id)
        for tag, value in tags.items():
            opened.client.set_tag(run_id, tag, value)
        return run_id
    return str(opened.client.create_run(place, tags=dict(tags), run_name=name).info.run_id)
