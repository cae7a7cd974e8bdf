"""What is told about a run, sent in order; kept on disk while the store does not answer, so that nothing is lost.

The disk copy lies in work/tracking/<run>/ of the project: `journal.jsonl`, one message a line after a head that names
the store and the process, and `files/`. Whoever opens the same store next delivers what a dead process left there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pano3d.tracking import processes
from pano3d.tracking.store import masked

_logger = logging.getLogger(__name__)

JOURNAL, FILES = "journal.jsonl", "files"
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0  # seconds between attempts to reach a store that was lost
PATIENCE = (
    9.0  # a pause is so many times as long as the attempt before it: a store that hangs costs a tenth of the time
)
_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 1000, 100  # what MLflow takes


class Outbox:
    """Messages of one run. `post` never fails for want of a store and never waits long for one."""

    def __init__(self, client: Any, uri: str, run_id: str, folder: Path) -> None:
        self._client, self._uri, self._run_id, self._folder = client, masked(uri), run_id, folder
        self._pause, self._retry_at = FIRST_PAUSE, 0.0

    @property
    def is_behind(self) -> bool:
        """Messages are waiting on disk."""
        return (self._folder / JOURNAL).exists()

    def post(self, do: str, **message: Any) -> None:
        """Send, or keep in order behind what is waiting already.

        Args:
            do: a key of `_DO`. message: plain values; a `path` is a file or folder, copied if it has to wait.
        """
        asked_at = time.monotonic()
        if self.is_behind:
            self._keep(do, message)
            self.deliver()
        elif not self._send(do, message):
            self._keep(do, message)
            self._wait(asked_at)
            _logger.warning(
                "tracking: %s does not answer; what is recorded waits in %s and is delivered later",
                self._uri,
                self._folder,
            )

    def deliver(self, now: bool = False) -> bool:
        """Send what waits, unless the last attempt is fresh; whether nothing waits any more.

        Args:
            now: however fresh the last attempt is.
        """
        if not self.is_behind:
            return True
        if not now and time.monotonic() < self._retry_at:
            return False
        for do, message in _read(self._folder):
            asked_at = time.monotonic()
            if not self._send(do, message):
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                self._wait(asked_at)
                return False
        shutil.rmtree(self._folder)
        self._pause = FIRST_PAUSE
        _logger.warning("tracking: %s answers again; everything that waited is delivered", self._uri)
        return True

    def _wait(self, asked_at: float) -> None:
        """Put the next attempt off after one that began then and failed."""
        now = time.monotonic()
        self._retry_at = now + max(self._pause, PATIENCE * (now - asked_at))

    def _send(self, do: str, message: Mapping[str, Any]) -> bool:
        """False when the store cannot be reached. What it refuses is told and dropped: it would refuse it again."""
        from mlflow.exceptions import MlflowException

        try:
            _DO[do](self._client, self._run_id, **message)
        except (MlflowException, OSError) as error:
            if is_outage(error):
                return False
            _logger.warning("tracking: %s not recorded: %s", do, masked(str(error).splitlines()[0]))
        return True

    def _keep(self, do: str, message: dict[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        journal = self._folder / JOURNAL
        if "path" in message:
            message = {**message, "path": str(self._copy(Path(message["path"])))}
        with open(journal, "a", encoding="utf-8") as file:
            if file.tell() == 0:
                head = {"uri": self._uri, "run_id": self._run_id, **processes.this_process()}
                file.write(json.dumps(head) + "\n")
            file.write(json.dumps({"do": do, **message}) + "\n")

    def _copy(self, path: Path) -> Path:
        files = self._folder / FILES
        target = files / str(len(list(files.glob("*")))) / path.name
        target.parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copy2(path, target)
        return target.relative_to(self._folder)


def deliver_abandoned(client: Any, uri: str, root: Path) -> int:
    """Deliver what processes that are gone have left for this store; the number of runs that were brought up to date.

    Args:
        root: work/tracking of the project. Call with the store's lock held.
    """
    done = 0
    for journal in sorted(root.glob(f"*/{JOURNAL}")):
        try:
            head = json.loads(journal.read_text(encoding="utf-8").splitlines()[0])
        except (ValueError, IndexError):  # killed while it wrote the very first line
            shutil.rmtree(journal.parent)
            continue
        if head["uri"] == masked(uri) and not processes.is_alive(head):
            done += Outbox(client, uri, head["run_id"], journal.parent).deliver(now=True)
    return done


def is_outage(error: Exception) -> bool:
    """Whether trying again later may help: no answer or an error of the server, rather than a refusal."""
    status = getattr(error, "get_http_status_code", None)
    if status is not None:
        return int(status()) >= 500 or int(status()) in (408, 429)
    response = getattr(error, "response", None)  # of requests, through which artifacts go
    return response is None or response.status_code >= 500 or response.status_code in (408, 429)


def _read(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The messages of a journal; a last line that was cut short by a kill is left out."""
    for line in (folder / JOURNAL).read_text(encoding="utf-8").splitlines()[1:]:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if "path" in message:
            message["path"] = str(folder / message["path"])
        yield message.pop("do"), message


def _metrics(client: Any, run_id: str, values: Sequence[Sequence[Any]]) -> None:
    from mlflow.entities import Metric

    for start in range(0, len(values), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=[Metric(*value) for value in values[start : start + _METRICS_AT_ONCE]])


def _params(client: Any, run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    flat = [Param(name, value) for name, value in values.items()]
    for start in range(0, len(flat), _PARAMS_AT_ONCE):
        client.log_batch(run_id, params=flat[start : start + _PARAMS_AT_ONCE])


def _tags(client: Any, run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in values.items()])


def _artifact(client: Any, run_id: str, path: str, folder: str) -> None:
    send = client.log_artifacts if os.path.isdir(path) else client.log_artifact
    send(run_id, path, folder or None)


def _dataset(client: Any, run_id: str, dataset: Mapping[str, Any], context: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    entry = DatasetInput(Dataset(**dataset), [InputTag(MLFLOW_DATASET_CONTEXT, context)])
    client.log_inputs(run_id, [entry])


def _end(client: Any, run_id: str, status: str, of: str | None = None) -> None:
    client.set_terminated(of or run_id, status)


_DO: Mapping[str, Callable[..., None]] = {
    "metrics": _metrics,
    "params": _params,
    "tags": _tags,
    "artifact": _artifact,
    "dataset": _dataset,
    "end": _end,
}
