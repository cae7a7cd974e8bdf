"""The registry: one version per set of weights, an alias, and a served model that unpickles nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pano3d
from pano3d import tracking
from pano3d.tracking import registry, store
from tests.tracking.test_runs import PARAMS


def candidate(folder: Path, weights: bytes = b"weights", name: str = "pano3d-must3r") -> registry.Candidate:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "model.json").write_text("{}")
    return registry.Candidate(
        name=name,
        folder=folder,
        weights_sha256=weights.hex(),
        license="CC-BY-NC-SA-4.0",
        class_names=("wall", "floor"),
        image_size=(28, 42),
        params=PARAMS,
        metrics={"evaluate": {"pq_scene": 0.5}},
    )


def stand_in(noted: dict[str, Any]) -> Callable[[str], SimpleNamespace]:
    """`pano3d.load` as a door that notes what comes through and returns an empty scene."""

    def reconstruct(images: Any) -> SimpleNamespace:
        noted["shape"] = images.shape
        views, height, width = images.shape[:3]
        plane = np.zeros((views, height, width), np.float32)
        return SimpleNamespace(
            points_world=np.zeros((views, height, width, 3), np.float32),
            depth=plane,
            confidence=plane,
            segment_id=plane.astype(np.int32),
            class_id=plane.astype(np.int32),
            segment_score=plane,
            world_from_camera=np.zeros((views, 4, 4)),
            intrinsics=np.zeros((views, 3, 3)),
            segments=[SimpleNamespace(id=3, class_id=1, is_thing=True, score=0.5)],
        )

    def load(folder: str) -> SimpleNamespace:
        noted["files"] = sorted(path.name for path in Path(folder).iterdir())
        return SimpleNamespace(reconstruct=reconstruct, image_width=42, image_height=28)

    return load


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    noted: dict[str, Any] = {}
    monkeypatch.setattr(pano3d, "load", stand_in(noted), raising=False)
    return noted


def test_a_version_per_set_of_weights(opened: store.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    # This process tracked somewhere else before; that must not lead the second registration astray.
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'elsewhere.db'}")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    first = registry.register(candidate(tmp_path / "a"))
    again = registry.register(candidate(tmp_path / "a"))
    other = registry.register(candidate(tmp_path / "b", b"other"))
    assert (first.number, first.is_new) == ("1", True)
    assert (again.number, again.is_new) == ("1", False)
    assert (other.number, other.is_new) == ("2", True)
    version = opened.client.get_model_version_by_alias("pano3d-must3r", "challenger")
    assert str(version.version) == "2"
    # Going back to weights that are registered moves the alias and makes no version.
    assert registry.register(candidate(tmp_path / "a")).number == "1"
    assert opened.client.get_model_version_by_alias("pano3d-must3r", "challenger").version in ("1", 1)
    assert len(opened.client.search_model_versions("name = 'pano3d-must3r'")) == 2


def test_what_a_version_says(opened: store.Store, tmp_path: Path) -> None:
    registry.register(candidate(tmp_path / "a"))
    version = opened.client.get_model_version("pano3d-must3r", "1")
    assert version.tags["license"] == "CC-BY-NC-SA-4.0"
    assert "pano3d trace models:/pano3d-must3r/1" in version.description
    assert "Licence: CC-BY-NC-SA-4.0" in version.description
    assert "`champion`" in opened.client.get_registered_model("pano3d-must3r").description
    opened.client.update_registered_model("pano3d-must3r", "ours")
    registry.register(candidate(tmp_path / "b", b"other"))
    assert opened.client.get_registered_model("pano3d-must3r").description == "ours"
    assert version.tags["reproduction"] == PARAMS["reproduction"]
    assert {"git.sha", "params.sha256", "dataset", "backbone"} <= version.tags.keys()
    run = opened.client.get_run(version.run_id)
    assert run.data.metrics["evaluate.pq_scene"] == 0.5
    assert run.data.tags["stage"] == "register"
    assert "mlflow.parentRunId" in run.data.tags


def test_a_version_names_the_runs_that_made_it(opened: store.Store, tmp_path: Path) -> None:
    """Finished ones before later ones; training records its section with the defaults filled in."""
    filled = {**PARAMS, "joint_finetune": {"seed": None, "steps": 3}}
    with tracking.run("joint_finetune", filled) as training:
        pass
    with contextlib.suppress(ZeroDivisionError), tracking.run("joint_finetune", filled):
        _ = 1 / 0
    with tracking.run("evaluate", PARAMS) as scoring:
        pass
    for other in ({"reproduction": "s" * 64}, {"backbone": {"name": "pi3"}}):
        for stage in ("joint_finetune", "evaluate"):
            with tracking.run(stage, {**PARAMS, **other}):
                pass
    registry.register(candidate(tmp_path / "a"))
    tags = opened.client.get_model_version("pano3d-must3r", "1").tags
    assert (tags["source.run_id"], tags["source.evaluate_run_id"]) == (training.run_id, scoring.run_id)


def test_the_registered_model_serves(
    opened: store.Store, project: Path, tmp_path: Path, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    registry.register(candidate(tmp_path / "a"))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with registry.mlflow_at(opened.uri):
        model = mlflow.pyfunc.load_model("models:/pano3d-must3r@challenger")
        result = model.predict(np.zeros((3, 28, 42, 3), np.uint8))
    assert seen["files"] == ["model.json", "weights.safetensors"]
    assert seen["shape"] == (3, 28, 42, 3)
    assert result.keys() == {spec.name for spec in registry.signature().outputs}
    assert result["segments_id"].tolist() == [3]
    with pytest.raises(mlflow.exceptions.MlflowException):
        model.predict(np.zeros((2, 28, 42, 3), np.float32))
    stored = [path.name for path in (project / "mlartifacts").rglob("*")]
    assert not [name for name in stored if name.endswith((".pkl", ".pickle", ".pt"))]
    assert "serving.py" in stored


def test_the_requirements_are_pinned_and_only_what_serving_needs() -> None:
    names = {line.split("==")[0] for line in registry.requirements()}
    assert {"torch", "numpy", "safetensors", "mlflow"} <= names
    assert not {"dvc", "prefect", "pytest", "great-expectations"} & names
    assert all("==" in line and "+" not in line for line in registry.requirements())


def test_our_code_travels_with_the_model(opened: store.Store, project: Path, tmp_path: Path) -> None:
    registry.register(candidate(tmp_path / "a"))
    serving = next((project / "mlartifacts").rglob("code/pano3d"))
    assert (serving / "types.py").is_file()
    assert not list(serving.rglob("__pycache__"))
    described = next((project / "mlartifacts").rglob("MLmodel")).read_text()
    assert "- wall" in described
