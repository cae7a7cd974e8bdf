"""The served model over HTTP: a documented answer, and a refusal for whatever else comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pano3d.tracking import registry, store
from tests.tracking.test_registry import candidate, seen

__all__ = ["seen"]

JSON = {"content-type": "application/json"}


@pytest.fixture
def client(opened: store.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]) -> Iterator[Any]:
    """MLflow's own scoring application around a registered model, as `mlflow models serve` runs it."""
    import mlflow
    from mlflow.pyfunc import scoring_server
    from starlette.testclient import TestClient

    registry.register(candidate(tmp_path / "a"))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with registry.mlflow_at(opened.uri):
        model = mlflow.pyfunc.load_model("models:/pano3d-must3r@challenger")
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    with TestClient(scoring_server.init(model), raise_server_exceptions=False) as client:
        yield client


def is_well(client: Any) -> bool:
    images = np.full((2, 14, 28, 3), 128, np.uint8).tolist()
    answer = client.post("/invocations", content=json.dumps({"inputs": images}), headers=JSON)
    found = answer.json()["predictions"]
    return answer.status_code == 200 and np.shape(found["points_world"]) == (2, 14, 28, 3)


def hostile() -> dict[str, Any]:
    image = np.zeros((1, 14, 14, 3), int)
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    return {
        "nothing": b"",
        "not json": b"{",
        "not utf-8": b"\xff\xfe",
        "another key": {"images": image.tolist()},
        "a text": {"inputs": "images"},
        "texts": {"inputs": [[[["a", "b", "c"]]]]},
        "null": {"inputs": None},
        "ragged": {"inputs": [[[[1, 2, 3]], [[1, 2]]]]},
        "too few axes": {"inputs": image[0].tolist()},
        "four channels": {"inputs": np.zeros((1, 14, 14, 4), int).tolist()},
        "no image": {"inputs": []},
        "above 255": {"inputs": (image + 256).tolist()},
        "below 0": {"inputs": (image - 1).tolist()},
        "a huge number": b'{"inputs": [[[[1e400, 0, 0]]]]}',
        "nan": b'{"inputs": [[[[NaN, 0, 0]]]]}',
        "too many images": {"inputs": np.zeros((65, 1, 1, 3), int).tolist()},
        "too wide": {"inputs": np.zeros((1, 1, 1025, 3), int).tolist()},
        "nested deeply": {"inputs": deep},
        "a table": {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
        "a pickle": {"inputs": {"__reduce__": "os.system"}},
    }


@pytest.mark.parametrize("name", list(hostile()))
def test_whatever_else_comes_is_refused_and_the_worker_lives(client: Any, name: str) -> None:
    payload = hostile()[name]
    content = payload if isinstance(payload, bytes) else json.dumps(payload)
    answer = client.post("/invocations", content=content, headers=JSON)
    assert 400 <= answer.status_code < 500, answer.text
    assert is_well(client)


def test_other_content_is_refused(client: Any) -> None:
    for kind in ("application/octet-stream", "application/x-python-pickle", "text/csv", "application/json; x=1"):
        answer = client.post("/invocations", content=b"\x80\x04K\x01.", headers={"content-type": kind})
        assert 400 <= answer.status_code < 500, (kind, answer.text)
    assert is_well(client)
