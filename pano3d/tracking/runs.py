"""One MLflow run per stage, under one parent per reproduction."""

from __future__ import annotations

import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pano3d import config
from pano3d.tracking import identity, store
from pano3d.types import Interrupted

_logger = logging.getLogger(__name__)

FLUSH_EVERY = 5.0  # seconds
FLUSH_AT = 500  # values; MLflow takes 1000 at once
_LONGEST_PARAMETER = 500

# Stages that both backbones share: they are handed one backbone's file and read nothing about the backbone in it.
SHARED = ("compose", "prepare", "check_data", "report")


class Recorder:
    """What a stage tells about itself. This one listens and keeps nothing: tracking is off."""

    run_id: str | None = None

    def log(self, name: str, value: float, step: int = 0) -> None:
        """One value of a curve."""
        self.log_metrics({name: value}, step)

    def log_metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Several values at one step; nested mappings become dotted names, what is not a number is left out."""

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Parameters beyond those of the composed file; nested mappings become dotted names."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags to find the run by."""

    def log_figure(self, figure: Any, path: str) -> None:
        """A matplotlib figure as the artifact `path`."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """A file, or a folder with all it holds, under the artifact folder `folder`."""

    def log_dict(self, value: Mapping[str, Any], path: str) -> None:
        """A mapping as the .json or .yaml artifact `path`."""

    def log_table(self, table: Any, path: str) -> None:
        """A pandas table as the .json artifact `path`, shown by MLflow as a table."""

    def log_input(self, table: Any, name: str, source: str, digest: str, context: str) -> None:
        """The dataset this run read.

        Args:
            table: its manifest, a pandas table. source: its path. digest: its version, such as the md5 of dvc.lock.
            context: "training", "validation" or "evaluation".
        """


class MlflowRecorder(Recorder):
    """Writes to an MLflow run; curve values are collected and sent in batches."""

    def __init__(self, opened: store.Store, run_id: str) -> None:
        self.run_id: str = run_id
        self._store = opened
        self._client = opened.client
        self._waiting: list[Any] = []
        self._flushed_at = time.monotonic()

    def log_metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for name, value in _flat(values).items():
            if isinstance(value, (int, float)):
                self._waiting.append(Metric(name, float(value), now, step))
        if len(self._waiting) >= FLUSH_AT or time.monotonic() - self._flushed_at > FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Send what is waiting. Losing a batch is told and survived: a run of hours outlives its tracking server."""
        self._flushed_at = time.monotonic()
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), 1000):
            batch = waiting[start : start + 1000]
            self._attempt("metrics", self._client.log_batch, metrics=batch)

    def log_params(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        flat = [Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in _flat(values).items()]
        for start in range(0, len(flat), 100):  # MLflow takes 100 at once
            batch = flat[start : start + 100]
            self._attempt("parameters", self._client.log_batch, params=batch)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self._attempt(name, self._client.set_tag, name, value)

    def log_figure(self, figure: Any, path: str) -> None:
        self._attempt(path, self._client.log_figure, figure, path)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._attempt(str(path), send, str(path), folder or None)

    def log_dict(self, value: Mapping[str, Any], path: str) -> None:
        self._attempt(path, self._client.log_dict, config.plain(value), path)

    def log_table(self, table: Any, path: str) -> None:
        self._attempt(path, self._client.log_table, table, path)

    def log_input(self, table: Any, name: str, source: str, digest: str, context: str) -> None:
        import mlflow.data
        from mlflow.entities import DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        # MLflow keeps 36 characters of a digest; DVC's ".dir" ending is what it has too many.
        digest = digest.removesuffix(".dir")[:36]
        with warnings.catch_warnings():  # about its own source being registered twice, and integers that may be missing
            warnings.simplefilter("ignore", UserWarning)
            dataset = mlflow.data.from_pandas(table, source=source, name=name, digest=digest)
            entry = DatasetInput(dataset._to_mlflow_entity(), [InputTag(MLFLOW_DATASET_CONTEXT, context)])
        self._attempt(name, self._client.log_inputs, [entry])

    def end(self, status: str) -> None:
        """Send what is waiting and close the run as FINISHED, FAILED or KILLED."""
        self.flush()
        self._attempt("the end", self._client.set_terminated, status)

    def _attempt(self, what: str, send: Callable[..., object], *values: Any, **named: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            send(self.run_id, *values, **named)
        except MlflowException as error:
            _logger.warning("tracking: %s not recorded: %s", what, str(error).splitlines()[0])


@contextmanager
def run(
    stage: str,
    params: Mapping[str, Any],
    *,
    device: str = "cpu",
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Recorder]:
    """Record a stage: its run ends as FINISHED, FAILED (an exception) or KILLED (asked to stop).

    Args:
        stage: name of the run.
        params: the composed file of params/, whole: logged as params.yaml, its `stage` section as parameters.
        device: what the stage computes on.
        run_id: go on with this run, of an interrupted training, if the store still has it.
        tags: more tags.

    Raises:
        TrackingError: the store cannot be reached.
    """
    if not store.is_on():
        yield Recorder()
        return
    opened = store.open_store()
    named = identity.identity(params, store.workspace(), device)
    sections: tuple[str, ...] = ("seed", "backbone", "head", "dataset", stage)
    if stage in SHARED:
        named.pop("backbone", None)
        sections = ("seed", "dataset", stage)
    with opened.lock():
        end_abandoned(opened)
        parent_id = find_or_create_parent(opened, named)
    resumed = run_id is not None and _resume(opened, run_id)
    if not resumed:
        about = {**named, "stage": stage, "mlflow.parentRunId": parent_id}
        run_id = opened.client.create_run(opened.experiment_id, tags=about, run_name=_name(stage, named)).info.run_id
    recorder = MlflowRecorder(opened, str(run_id))
    recorder.set_tags({**_process_tags(), **(tags or {})})
    if not resumed:
        recorder.log_params({name: params[name] for name in sections if name in params})
        recorder.log_dict(params, "params.yaml")
    status = "KILLED"
    try:
        yield recorder
        status = "FINISHED"
    except Interrupted:
        raise
    except Exception:
        status = "FAILED"
        raise
    finally:
        recorder.end(status)
        opened.client.set_terminated(parent_id, status)


def find_or_create_parent(opened: store.Store, named: Mapping[str, str]) -> str:
    """The run above all stages of one reproduction, known by commit and parameters. Call with the lock held."""
    about = {
        "kind": "reproduction",
        "reproduction": named["reproduction"],
        "git.sha": named.get("git.sha", "none"),
        "dataset": named.get("dataset", "none"),
    }
    found = _search(opened, {name: about[name] for name in ("kind", "reproduction", "git.sha")})
    if found:
        return str(found[-1].info.run_id)
    name = f"reproduction {about['git.sha'][:7]} {about['reproduction'][:7]}"
    return str(opened.client.create_run(opened.experiment_id, tags=about, run_name=name).info.run_id)


def end_abandoned(opened: store.Store) -> None:
    """End runs whose process was killed without a word: MLflow would show them running for ever."""
    import psutil

    for one in _search(opened, {"host": platform.node()}, "attributes.status = 'RUNNING'"):
        number, started = one.data.tags.get("process", "0 0").split()
        try:
            alive = f"{psutil.Process(int(number)).create_time():.0f}" == started
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            opened.client.set_terminated(one.info.run_id, "KILLED")


def _process_tags() -> dict[str, str]:
    """Number and start of this process: a number alone is used again."""
    import psutil

    return {"process": f"{os.getpid()} {psutil.Process().create_time():.0f}"}


def _resume(opened: store.Store, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        opened.client.get_run(run_id)
    except MlflowException:
        _logger.warning("tracking: run %s of the interrupted training is gone; starting a new one", run_id)
        return False
    opened.client.update_run(run_id, status="RUNNING")
    return True


def _search(opened: store.Store, tags: Mapping[str, str], *conditions: str) -> list[Any]:
    """Runs with these tags, newest first."""
    wanted = " and ".join([*conditions, *(f"tags.`{name}` = '{value}'" for name, value in tags.items())])
    return list(opened.client.search_runs([opened.experiment_id], wanted, order_by=["attributes.start_time DESC"]))


def _name(stage: str, named: Mapping[str, str]) -> str:
    return "@".join(part for part in (stage, named.get("backbone", "")) if part)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{above}{name}."))
        else:
            flat[f"{above}{name}"] = value
    return flat
