"""One MLflow run per stage, in the experiment of the stage and under one parent per reproduction."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pano3d import config
from pano3d.processes import peak_bytes
from pano3d.tracking import identity, outbox, processes, store, watchdog
from pano3d.tracking.outbox import Outbox
from pano3d.types import Interrupted

_logger = logging.getLogger(__name__)

FLUSH_EVERY = 5.0  # seconds
FLUSH_AT = 500  # values; MLflow takes 1000 at once
SAMPLE_EVERY = 10.0  # seconds between looks at the machine
PEAK_MEMORY = "system/peak_memory_megabytes"  # of the stage's process or its largest child
_LONGEST_PARAMETER = 500

# Stages that both backbones share: they are handed one backbone's file and read nothing about the backbone in it.
SHARED = ("compose", "prepare", "check_data", "report")


# Watchdogs with something left to deliver once this process is gone.
_left_behind: list[subprocess.Popen[bytes]] = []


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

    def log_text(self, text: str, path: str) -> None:
        """A text as the artifact `path`."""

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
    """Writes to an MLflow run; curve values are collected and sent in batches. Whatever a store that is away cannot
    take now is delivered later: a run of hours outlives its tracking server."""

    def __init__(self, opened: store.Store, run_id: str) -> None:
        self.run_id: str = run_id
        self._outbox = Outbox(opened.client, opened.uri, run_id, _waiting_room() / run_id)
        self._waiting: list[tuple[str, float, int, int]] = []
        self._tables: list[dict[str, str]] = []
        self._flushed_at = self._sampled_at = time.monotonic()
        self._samples = 0

    def log_metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        now = int(time.time() * 1000)
        for name, value in _flat(values).items():
            if isinstance(value, (int, float)):
                self._waiting.append((name, float(value), now, step))
        if len(self._waiting) >= FLUSH_AT or time.monotonic() - self._flushed_at > FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Send what is waiting, with a look at the machine now and then."""
        self._flushed_at = time.monotonic()
        if self._flushed_at - self._sampled_at > SAMPLE_EVERY:
            now = int(time.time() * 1000)
            self._waiting += [(name, value, now, self._samples) for name, value in _machine().items()]
            self._sampled_at, self._samples = self._flushed_at, self._samples + 1
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._outbox.post("metrics", values=waiting)

    def log_params(self, values: Mapping[str, Any]) -> None:
        flat = {name: str(value)[:_LONGEST_PARAMETER] for name, value in _flat(values).items()}
        self._outbox.post("params", values=flat)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._outbox.post("tags", values=dict(tags))

    def log_figure(self, figure: Any, path: str) -> None:
        with _made(path) as made:
            figure.savefig(made)
            self.log_artifact(made, _folder(path))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        self._outbox.post("artifact", path=str(path), folder=folder)

    def log_text(self, text: str, path: str) -> None:
        with _made(path) as made:
            made.write_text(text, encoding="utf-8", errors="surrogateescape")
            self.log_artifact(made, _folder(path))

    def log_dict(self, value: Mapping[str, Any], path: str) -> None:
        if path.endswith(".json"):
            self.log_text(json.dumps(config.plain(value), indent=2), path)
            return
        with _made(path) as made:
            config.write(made, config.plain(value))
            self.log_artifact(made, _folder(path))

    def log_table(self, table: Any, path: str) -> None:
        self.log_text(table.to_json(orient="split", index=False, date_format="iso", force_ascii=False), path)
        # How MLflow's pages know which of the artifacts are tables.
        self._tables.append({"path": path, "type": "table"})
        self.set_tags({"mlflow.loggedArtifacts": json.dumps(self._tables)})

    def log_input(self, table: Any, name: str, source: str, digest: str, context: str) -> None:
        import mlflow.data

        # The version that dvc.lock gives it, where it does. MLflow keeps 36 characters; ".dir" is what is too many.
        digest = identity.locked_digest(store.workspace(), Path(source)) or digest
        digest = digest.removesuffix(".dir")[:36]
        with warnings.catch_warnings():  # about its own source being registered twice, and integers that may be missing
            warnings.simplefilter("ignore", UserWarning)
            dataset = mlflow.data.from_pandas(table, source=source, name=name, digest=digest or None)
            entry = {field: value for field, value in dataset.to_dict().items() if value is not None}
        self._outbox.post("dataset", dataset=entry, context=context)

    def end(self, status: str, parent_id: str | None = None) -> bool:
        """Send what is waiting and close the run, and the one above it if given, as FINISHED, FAILED or KILLED; whether
        all of it has reached the store. If not, the watchdog goes on trying once this process is gone."""
        self.flush()
        self._outbox.post("end", status=status)
        if parent_id is not None:
            self._outbox.post("end", status=status, of=parent_id)
        return self._outbox.deliver(now=True)


def is_waiting(run_id: str) -> bool:
    """Whether messages of a run wait on disk."""
    return (_waiting_room() / run_id).exists()


def _waiting_room() -> Path:
    return store.home() / "work" / "tracking"


@contextmanager
def _made(path: str) -> Iterator[Path]:
    """A file to be, with the name of the artifact."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / Path(path).name


def _folder(path: str) -> str:
    parent = Path(path).parent.as_posix()
    return "" if parent == "." else parent


def _machine() -> dict[str, float]:
    """Load and memory now, under the names MLflow shows as system metrics."""
    import psutil

    memory, megabyte = psutil.virtual_memory(), 1e6
    found = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / megabyte,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / megabyte,
        "system/disk_usage_percentage": psutil.disk_usage(str(store.home())).percent,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(device)
            found[f"system/gpu_{device}_memory_usage_megabytes"] = (total - free) / megabyte
            found[f"system/gpu_{device}_memory_usage_percentage"] = 100 * (total - free) / total
    return found


def _peak_megabytes() -> float:
    """The most that this process, or one of the children it has waited for, has held."""
    own = peak_bytes()
    try:
        import resource
    except ImportError:  # Windows
        return own / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit) / 1e6


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
        deliver_abandoned(opened)
        end_abandoned(opened)
        parent_id = find_or_create_parent(opened, named)
        resumed = run_id is not None and _resume(opened, run_id)
    if not resumed:
        about = {**named, **processes.this_process(), **_source(stage, named)}
        about |= {"stage": stage, "mlflow.parentRunId": parent_id}
        created = opened.client.create_run(opened.experiment(stage), tags=about, run_name=_name(stage, named))
        run_id = created.info.run_id
    recorder = MlflowRecorder(opened, str(run_id))
    witness = watchdog.start(opened.uri, recorder.run_id)
    recorder.set_tags(tags or {})
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
        recorder.log(PEAK_MEMORY, _peak_megabytes())
        if recorder.end(status, parent_id):
            witness.kill()
            witness.wait()
        else:
            _left_behind.append(witness)


def find_or_create_parent(opened: store.Store, named: Mapping[str, str]) -> str:
    """The run above all stages of one reproduction, known by commit and parameters. Call with the lock held."""
    about = {
        "kind": "reproduction",
        "reproduction": named["reproduction"],
        "git.sha": named.get("git.sha", "none"),
        "dataset": named.get("dataset", "none"),
    }
    found = search(opened, {name: about[name] for name in ("kind", "reproduction", "git.sha")})
    if found:
        return str(found[-1].info.run_id)
    name = f"reproduction {about['git.sha'][:7]} {about['reproduction'][:7]}"
    return str(opened.client.create_run(opened.experiment_id, tags=about, run_name=name).info.run_id)


def end_abandoned(opened: store.Store) -> None:
    """End runs whose process was killed together with its watchdog: MLflow would show them running for ever."""
    for one in search(opened, {"host": platform.node()}, "attributes.status = 'RUNNING'"):
        end_if_dead(opened, one.info.run_id)


def end_if_dead(opened: store.Store, run_id: str) -> None:
    """End a run and the one above it as KILLED when it is running by MLflow's account and its process is gone. Call
    with the lock held: a process that goes on with the run takes it over under it."""
    found = opened.client.get_run(run_id)
    if found.info.status != "RUNNING" or processes.is_alive(found.data.tags):
        return
    opened.client.set_terminated(run_id, "KILLED")
    above = found.data.tags.get("mlflow.parentRunId")
    if above and opened.client.get_run(above).info.status == "RUNNING":
        opened.client.set_terminated(above, "KILLED")


def deliver_abandoned(opened: store.Store) -> int:
    """Deliver what processes that are gone could not, for want of the store; call with the lock held."""
    return outbox.deliver_abandoned(opened.client, opened.uri, _waiting_room())


def _resume(opened: store.Store, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        is_there = opened.client.get_run(run_id).info.lifecycle_stage == "active"  # else deleted: it takes nothing
    except MlflowException:
        is_there = False
    if not is_there:
        _logger.warning("tracking: run %s of the interrupted training is gone; starting a new one", run_id)
        return False
    for name, value in processes.this_process().items():
        opened.client.set_tag(run_id, name, value)
    opened.client.update_run(run_id, status="RUNNING")
    return True


def search(opened: store.Store, tags: Mapping[str, str], *conditions: str) -> list[Any]:
    """Runs with these tags, newest first."""
    wanted = " and ".join([*conditions, *(f"tags.`{name}` = '{value}'" for name, value in tags.items())])
    return list(opened.client.search_runs(opened.experiments(), wanted, order_by=["attributes.start_time DESC"]))


def _source(stage: str, named: Mapping[str, str]) -> dict[str, str]:
    """What MLflow's pages show as the source of a run."""
    commit = {"mlflow.source.git.commit": named["git.sha"]} if "git.sha" in named else {}
    return {"mlflow.source.name": f"pano3d {stage}", "mlflow.source.type": "LOCAL", **commit}


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
