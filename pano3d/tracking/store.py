"""Where runs are kept: SQLite in the project root by default, a server when MLFLOW_TRACKING_URI names one."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pano3d.files import locked
from pano3d.processes import silence_telemetry
from pano3d.types import Pano3DError

EXPERIMENT = "pano3d"
"""Reproductions lie in it; those of a stage in `pano3d/STAGE`, an ablation in `pano3d/ablation/NAME`."""


class TrackingError(Pano3DError):
    """The tracking store cannot be reached or used; the message says what to start or switch off."""


@dataclass(frozen=True)
class Store:
    """An open store. `client` is an MlflowClient; `lock` guards what several processes must not do at once."""

    client: Any
    uri: str
    experiment_id: str
    lock_file: Path

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Held by one process of this machine at a time."""
        return locked(self.lock_file)

    def experiment(self, name: str) -> str:
        """Id of the experiment `pano3d/NAME`, made where there is none."""
        database = Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None
        return _find_or_create(self.client, f"{EXPERIMENT}/{name}", database)

    def experiments(self) -> list[str]:
        """Ids of all experiments of ours."""
        found = self.client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'", max_results=1000)
        return [one.experiment_id for one in found if one.name.split("/")[0] == EXPERIMENT]


def workspace() -> Path:
    """The project this process works in: the nearest folder above with .dvc or .git, else the current one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir() or (folder / ".git").exists():
            return folder
    return here


def home() -> Path:
    """The project that outlives this process: DVC names it when it runs an experiment in a temporary copy."""
    named = os.environ.get("DVC_ROOT")
    return Path(named) if named else workspace()


def is_on() -> bool:
    """Whether runs are recorded; PANO3D_TRACKING=off says no.

    Raises:
        TrackingError: PANO3D_TRACKING is neither on nor off.
    """
    value = os.environ.get("PANO3D_TRACKING", "on").lower()
    if value not in ("on", "off"):
        raise TrackingError(f"PANO3D_TRACKING is {value!r}; expected on or off")
    return value == "on"


def address() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file of the project, by its absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home().resolve() / 'mlflow.db'}"


def open_store() -> Store:
    """Connect, creating or upgrading the database and the experiment where needed.

    Raises:
        TrackingError: the store cannot be reached.
    """
    uri = address()
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if uri.startswith("http"):
        # MLflow would try for four minutes where nothing listens, and for far longer where something hangs; a training
        # must not stand still so long. What is not taken is sent again.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    lock_file = (database or home() / "mlflow.db").with_suffix(".db.lock")
    # Two first users migrating one fresh database crash each other.
    with locked(lock_file), _lock_in_database(uri):
        if database is not None:
            _follow_moved_folder(database)
        return Store(*_connect(uri, database), lock_file)


@contextlib.contextmanager
def _lock_in_database(uri: str) -> Iterator[None]:
    """PostgreSQL's own lock, held by one process at a time, of whatever project and machine."""
    if not uri.startswith("postgresql"):
        yield
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    try:
        session = engine.connect()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise _unreachable(uri, error) from error
    with session:  # its end lets go of the lock
        session.execute(sqlalchemy.text("SELECT pg_advisory_lock(hashtext('pano3d'))"))
        yield


def _unreachable(uri: str, error: Exception) -> TrackingError:
    return TrackingError(
        f"{masked(f'opening the tracking store {uri}: {str(error).splitlines()[0]}')}; start the server, correct "
        "MLFLOW_TRACKING_URI, or set PANO3D_TRACKING=off to run without"
    )


def masked(text: str) -> str:
    """An address, or a text with addresses, without their passwords: what may be printed or left on disk."""
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", text)


def _connect(uri: str, database: Path | None) -> tuple[Any, str, str]:
    silence_telemetry()  # of `pano3d.load` in a program that is not ours; MLflow reads it when it is imported
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # its progress is not ours
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        try:
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            client.get_experiment_by_name(EXPERIMENT)
        except MlflowException as error:
            if database is None or "out-of-date database schema" not in str(error):
                raise
            subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", uri], check=True, capture_output=True)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        return client, uri, _find_or_create(client, EXPERIMENT, database)
    except (MlflowException, subprocess.CalledProcessError) as error:
        raise _unreachable(uri, error) from error


def _find_or_create(client: Any, name: str, database: Path | None) -> str:
    """Id of an experiment. Of several first users on several machines, which no lock of ours keeps apart, one makes it
    and the others find it. All keep their artifacts in one place, which `_follow_moved_folder` can find again."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            location = None if database is None else _artifacts(database)
            about = {"mlflow.experimentKind": _KIND, "mlflow.note.content": _description(name)}
            return str(client.create_experiment(name, artifact_location=location, tags=about))
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise error
    return str(experiment.experiment_id)


_KIND = "custom_model_development"  # else MLflow's pages lead with traces, judges and prompts, of which there are none


def _description(name: str) -> str:
    """What MLflow's pages show beside an experiment."""
    _, _, rest = name.partition("/")
    if not rest:
        return "One run for each reproduction. Its stages lie in pano3d/STAGE; find them by the tag `reproduction`."
    kind, _, ablation = rest.partition("/")
    if ablation:
        return f"The {kind} {ablation}: one run for the table, below it one for each variant, seed and backbone."
    return f"Runs of {rest}. Each has the reproduction it belongs to as its parent."


def _artifacts(database: Path) -> str:
    return (database.parent.resolve() / "mlartifacts").as_uri()


_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def _follow_moved_folder(database: Path) -> None:
    """MLflow stores absolute artifact paths; rewrite ours when the project folder was moved or renamed."""
    if not database.is_file():
        return
    new = _artifacts(database)
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        try:
            query = "SELECT artifact_location FROM experiments WHERE name = ?"
            row = connection.execute(query, (EXPERIMENT,)).fetchone()
        except sqlite3.OperationalError:  # no tables yet
            return
        old = row[0] if row else new
        if old == new or not old.startswith("file:") or Path(old.removeprefix("file://")).exists():
            return
        for table, column in _LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
