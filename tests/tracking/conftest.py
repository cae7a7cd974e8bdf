"""A fresh store for each test: a database that was migrated once is copied, which takes no time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pano3d.tracking import store


def make_project(folder: Path) -> Path:
    """A committed project with nothing in it but a marker of its root."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / "code.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("mlflow.db*\nmlartifacts/\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    return folder


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with MLflow's tables and no experiment of ours."""
    from mlflow import MlflowClient

    database = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def project(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a project with tracking on."""
    folder = make_project(tmp_path / "project")
    shutil.copy(migrated, folder / "mlflow.db")
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "PANO3D_TRACKING", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def opened(project: Path) -> store.Store:
    return store.open_store()
