"""The model registry: a version per set of weights, known by their SHA-256, and the aliases that point at them."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pano3d import config
from pano3d.data.preparation import file_digest
from pano3d.tracking import identity, provenance, runs, store
from pano3d.types import DataError, WeightsError

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
DIGESTS = "digests.json"
SCORES = ("scenes.json", "protocol.json", "classes.json")
"""What the evaluate stage leaves and a promotion compares; kept in the version's run under evaluate/."""
# Written beside a model by whoever fetches it.
_FETCHED = "registered_model_meta"

# Declared by us and not needed to reconstruct: they orchestrate, check, or draw.
_NOT_SERVED = {"dvc", "prefect", "great-expectations", "fastapi", "psutil", "matplotlib", "open3d", "open3d-cpu"}


@dataclass(frozen=True)
class Candidate:
    """A trained model that asks for a version.

    folder: weights.safetensors and model.json. params: the composed file it was made with.
    metrics: what is recorded beside it. image_size: (height, width) it was trained on.
    tags: of the version, beside those given here.
    scores: the folder the evaluate stage left, with `SCORES`; without it the version can never be promoted.
    evaluated: (scene, SHA-256 of its archive) of every scene that was scored.
    stages: those behind model and scores, as dvc.lock names them.
    pictures: files and folders to look at, by the artifact folder they go to.
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
    scores: Path | None = None
    evaluated: Sequence[tuple[str, str]] = ()
    stages: Sequence[str] = ()
    pictures: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A version of the registry; `is_new` when this call made it."""

    name: str
    number: str
    is_new: bool


def register(candidate: Candidate) -> Version:
    """Make a version of these weights and scores unless there is one, and point the alias `challenger` at it.

    What was registered from changed files is registered again once they are committed: a version that can be traced
    is worth more than one that cannot.

    Raises:
        TrackingError: the store cannot be reached.
        DataError: the scores are not there.
    """
    opened = store.open_store()
    standing = _standing(candidate)
    known = find_version(opened, candidate.name, {**standing, "weights.sha256": candidate.weights_sha256})
    number = known or _log(opened, candidate, standing)
    opened.client.set_registered_model_alias(candidate.name, CHALLENGER, number)
    return Version(candidate.name, number, known is None)


def find_version(opened: store.Store, name: str, tags: Mapping[str, str]) -> str | None:
    """The newest version with these weights and scores, and no worse a provenance; tags as `_standing` gives them."""
    same = ("weights.sha256", "scores.sha256", "protocol.sha256", "scenes.sha256")
    numbers = []
    for one in opened.client.search_model_versions(f"name = '{name}'"):
        if all(one.tags.get(tag) == tags.get(tag) for tag in same):
            better = tags.get("git.dirty") == "false" and one.tags.get("git.dirty") != "false"
            better = better or (tags.get("provenance") == "ok" and one.tags.get("provenance") != "ok")
            numbers += [] if better else [one.version]
    return str(max(numbers, key=int)) if numbers else None


def _standing(candidate: Candidate) -> dict[str, str]:
    """Tags that say what the version stands on: its code, its scores, and what these were measured with and on."""
    place = store.workspace()
    outputs = [candidate.folder, *([candidate.scores] if candidate.scores else [])]
    wrong = provenance.problems(place, candidate.stages, outputs) if candidate.stages else ["no stages are known"]
    tags = {**identity.git_tags(place), "provenance": "; ".join(wrong)[:_LONGEST_TAG] or "ok"}
    if candidate.scores:
        tags["scores.sha256"] = scores_digest(candidate.scores)
        tags["protocol.sha256"] = config.digest(_protocol(candidate))
        tags["scenes.sha256"] = config.digest(sorted(candidate.evaluated))
    return tags


def scores_digest(folder: Path) -> str:
    """One digest for the files of `SCORES`.

    Raises:
        DataError: one of them is missing.
    """
    try:
        return config.digest({name: file_digest(folder / name) for name in SCORES})
    except FileNotFoundError as error:
        raise DataError(f"reading the scores of a model: {error.filename} is missing; run `dvc repro`") from None


def _protocol(candidate: Candidate) -> dict[str, Any]:
    """What decides a score beside the model and the scenes. Sizes count: scores at two sizes are of other pixels."""
    assert candidate.scores is not None
    protocol: dict[str, Any] = json.loads((candidate.scores / "protocol.json").read_text(encoding="utf-8"))
    evaluation = {k: v for k, v in protocol["evaluation"].items() if k not in ("workers", "examples")}
    return {
        "decisions": protocol["decisions"],
        "evaluation": evaluation,
        "image_size": candidate.image_size,
        "classes": candidate.class_names,
    }


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its path below it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _FETCHED)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


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


def _log(opened: store.Store, candidate: Candidate, standing: Mapping[str, str]) -> str:
    import mlflow

    tags = {
        "weights.sha256": candidate.weights_sha256,
        "license": candidate.license,
        **standing,
        **candidate.tags,
    }
    with runs.run("register", candidate.params, tags=tags) as recorder, mlflow_at(opened.uri):
        tags.update(_sources(opened, recorder))
        recorder.log_metrics(candidate.metrics)
        _log_evidence(recorder, candidate)
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
        digests = file_digests(Path(mlflow.artifacts.download_artifacts(artifact_uri=logged.model_uri)))
        recorder.log_dict(digests, DIGESTS)
        about = {name: value for name, value in _identity(opened, recorder).items() if name in _VERSION_TAGS}
        tags = {**about, **tags, "files.sha256": config.digest(digests)}
        version = mlflow.register_model(logged.model_uri, candidate.name, tags=tags)
    _describe(opened, candidate, str(version.version))
    return str(version.version)


def _describe(opened: store.Store, candidate: Candidate, number: str) -> None:
    """What MLflow's pages show above a model and a version; what somebody wrote about the model stays."""
    if not opened.client.get_registered_model(candidate.name).description:
        opened.client.update_registered_model(candidate.name, _ALIASES)
    restore = (
        f"`pano3d trace models:/{candidate.name}/{number}` prints commit, data, parameters, and how to restore them."
    )
    seen = "Report, confidence maps and tables are artifacts of its source run."
    licence = f"Licence: {candidate.license}."
    opened.client.update_model_version(candidate.name, number, f"{restore} {seen} {licence}")


def _log_evidence(recorder: runs.Recorder, candidate: Candidate) -> None:
    """What a promotion compares, what a trace restores, and what a person looks at."""
    import pandas as pd

    place = store.workspace()
    if candidate.scores:
        for name in SCORES:
            recorder.log_artifact(candidate.scores / name, "evaluate")
        classes = json.loads((candidate.scores / "classes.json").read_text(encoding="utf-8"))
        scenes = json.loads((candidate.scores / "scenes.json").read_text(encoding="utf-8"))["joint"]
        recorder.log_table(pd.DataFrame(classes), "tables/classes.json")
        recorder.log_table(
            pd.DataFrame([{"scene": one["name"], **one["values"]} for one in scenes]), "tables/scenes.json"
        )
    for folder, path in candidate.pictures.items():
        recorder.log_artifact(path, folder)
    if (place / provenance.LOCK).is_file():
        recorder.log_artifact(place / provenance.LOCK)
    patch = provenance.source_patch(place)
    if patch:
        recorder.log_text(patch.decode("utf-8", "surrogateescape"), provenance.PATCH)


def _sources(opened: store.Store, recorder: runs.Recorder) -> dict[str, str]:
    """The runs that trained and scored the model: the newest of the same reproduction and backbone, finished ones and
    those of the same commit first. The digest of the parameters does not tell: training fills in what is left open."""
    own = _identity(opened, recorder)
    wanted: dict[str, str] = {name: own[name] for name in ("reproduction", "backbone") if name in own}
    found = {}
    for stage, tag in (("joint_finetune", "source.run_id"), ("evaluate", "source.evaluate_run_id")):
        runs_of_stage = runs.search(opened, wanted | {"stage": stage})
        best = sorted(
            runs_of_stage,
            key=lambda one: (one.info.status != "FINISHED", one.data.tags.get("git.sha") != own.get("git.sha")),
        )
        if best:
            found[tag] = str(best[0].info.run_id)
    return found


_LONGEST_TAG = 4000
_ALIASES = (
    f"Images of a room to points, cameras and segments. Aliases: `{CHALLENGER}`, registered last; `{CHAMPION}`, in "
    f"use; `{PREVIOUS}`, in use before. `pano3d promote` and `pano3d rollback` move them."
)
_VERSION_TAGS = {
    *("git.sha", "git.dirty", "git.diff.sha256", "params.sha256", "data.md5", "dvc.lock.sha256"),
    *("dataset", "backbone", "seed", "reproduction"),
}


def _identity(opened: store.Store, recorder: runs.Recorder) -> dict[str, str]:
    found: dict[str, str] = opened.client.get_run(recorder.run_id).data.tags
    return found


@contextmanager
def mlflow_at(uri: str) -> Iterator[None]:
    """MLflow's model functions work on a global address; give it back afterwards. Their remarks about type hints and
    environments concern MLflow's own classes and are kept quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
    """images (V, H, W, 3) uint8 in, or the parameter `encoded`; the arrays of a PanopticScene out."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

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
        params=ParamSchema([ParamSpec("encoded", "string", [], shape=(-1,))]),
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
