"""The model registry: a version per set of weights, known by their SHA-256, and the aliases that point at them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pano3d.tracking import runs, store
from pano3d.types import WeightsError

CHALLENGER = "challenger"

# Declared by us and not needed to reconstruct: they orchestrate, check, or draw.
_NOT_SERVED = {"dvc", "prefect", "great-expectations", "fastapi", "psutil", "matplotlib", "open3d", "open3d-cpu"}


@dataclass(frozen=True)
class Candidate:
    """A trained model that asks for a version.

    folder: weights.safetensors and model.json. params: the composed file it was made with.
    metrics: what is recorded beside it. image_size: (height, width) it was trained on.
    tags: of the version, beside those given here: its dataset, its protocol.
    """

    name: str
    folder: Path
    weights_sha256: str
    license: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    params: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A version of the registry; `is_new` when this call made it."""

    name: str
    number: str
    is_new: bool


def register(candidate: Candidate) -> Version:
    """Make a version of these weights unless there is one, and point the alias `challenger` at it.

    Raises:
        TrackingError: the store cannot be reached.
    """
    opened = store.open_store()
    known = find_version(opened, candidate.name, candidate.weights_sha256)
    number = known or _log(opened, candidate)
    opened.client.set_registered_model_alias(candidate.name, CHALLENGER, number)
    return Version(candidate.name, number, known is None)


def find_version(opened: store.Store, name: str, weights_sha256: str) -> str | None:
    """The newest version with these weights, by their digest."""
    versions = opened.client.search_model_versions(f"name = '{name}'")
    numbers = [one.version for one in versions if one.tags.get("weights.sha256") == weights_sha256]
    return str(max(numbers, key=int)) if numbers else None


def download_model(uri: str) -> Path:
    """The folder of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`, fetched from its store.

    Raises:
        WeightsError: there is no such version, or it holds no model of ours.
    """
    opened = store.open_store()
    with mlflow_at(opened.uri):
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        try:
            fetched = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        except (MlflowException, OSError) as error:
            raise WeightsError(f"loading {uri}: {str(error).splitlines()[0]}; see `mlflow ui`, Models") from error
    found = sorted(fetched.rglob("model.json"))
    if not found:
        raise WeightsError(f"loading {uri}: it holds no model.json; was it registered by `pano3d register`?")
    return found[0].parent


def _log(opened: store.Store, candidate: Candidate) -> str:
    import mlflow

    tags = {
        "weights.sha256": candidate.weights_sha256,
        "license": candidate.license,
        **candidate.tags,
    }
    with runs.run("register", candidate.params, tags=tags) as recorder, mlflow_at(opened.uri):
        recorder.log_metrics(candidate.metrics)
        with mlflow.start_run(run_id=recorder.run_id):
            logged = mlflow.pyfunc.log_model(
                name=candidate.name,
                python_model=str(Path(__file__).with_name("serving.py")),
                artifacts={"model": str(candidate.folder)},
                code_paths=[str(Path(__file__).parents[1])],
                signature=signature(),
                input_example=input_example(candidate.image_size),
                pip_requirements=requirements(),
                metadata={"class_names": list(candidate.class_names), "license": candidate.license},
            )
        about = {name: value for name, value in _identity(opened, recorder).items() if name in _VERSION_TAGS}
        version = mlflow.register_model(logged.model_uri, candidate.name, tags={**about, **tags})
    return str(version.version)


_VERSION_TAGS = {"git.sha", "git.dirty", "params.sha256", "data.md5", "dataset", "backbone", "seed", "reproduction"}


def _identity(opened: store.Store, recorder: runs.Recorder) -> dict[str, str]:
    found: dict[str, str] = opened.client.get_run(recorder.run_id).data.tags
    return found


@contextmanager
def mlflow_at(uri: str) -> Iterator[None]:
    """MLflow's model functions work on a global address; give it back afterwards. Their remarks about type hints and
    environments concern MLflow's own classes and are kept quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow.pyfunc

        tracking, registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        # set_tracking_uri also writes this variable, which `store.address` reads: left behind, it would send the next
        # registration of this process to whatever store MLflow knew before.
        named = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(tracking)
            mlflow.set_registry_uri(registry)
            if named is None:
                os.environ.pop("MLFLOW_TRACKING_URI", None)
            else:
                os.environ["MLFLOW_TRACKING_URI"] = named


def signature() -> Any:
    """images (V, H, W, 3) uint8 in; the arrays of a PanopticScene out."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def spec(name: str, dtype: type, *shape: int) -> Any:
        return TensorSpec(np.dtype(dtype), shape, name)

    per_pixel = (-1, -1, -1)
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        outputs=Schema(
            [
                spec("points_world", np.float32, *per_pixel, 3),
                spec("depth", np.float32, *per_pixel),
                spec("confidence", np.float32, *per_pixel),
                spec("segment_id", np.int32, *per_pixel),
                spec("class_id", np.int32, *per_pixel),
                spec("segment_score", np.float32, *per_pixel),
                spec("world_from_camera", np.float64, -1, 4, 4),
                spec("intrinsics", np.float64, -1, 3, 3),
                spec("segments_id", np.int64, -1),
                spec("segments_class_id", np.int64, -1),
                spec("segments_is_thing", bool, -1),
                spec("segments_score", np.float64, -1),
            ]
        ),
    )


def input_example(image_size: tuple[int, int]) -> Any:
    """Two grey photos of the size the network was trained on."""
    import numpy as np

    return np.full((2, *image_size, 3), 128, dtype=np.uint8)


def requirements() -> list[str]:
    """What the served model needs, pinned to what is installed; our own code travels with the model."""
    names = []
    for line in metadata.requires("pano3d") or []:
        requirement, _, marker = line.partition(";")
        name = re.split(r"[^A-Za-z0-9_.-]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")
        if "extra" not in marker and name not in _NOT_SERVED:
            names.append(name)
    return [f"{name}=={metadata.version(name).split('+')[0]}" for name in sorted(set(names))]
