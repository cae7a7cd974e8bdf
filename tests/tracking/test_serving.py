"""The served model over HTTP: a documented answer, and a refusal for whatever else comes."""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import pano3d
from pano3d.tracking import registry, store
from tests.tracking.conftest import make_project
from tests.tracking.test_registry import candidate, stand_in

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What came through to the model last."""
    return {}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, migrated: Path, seen: dict[str, Any]) -> Iterator[Any]:
    """MLflow's own scoring application around a registered model, as `mlflow models serve` runs it. One for all tests:
    whatever one of them did to it, the others notice."""
    project = make_project(tmp_path_factory.mktemp("served") / "project")
    shutil.copy(migrated, project / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "PANO3D_TRACKING", "DVC_EXP_NAME"):
            patch.delenv(name, raising=False)
        patch.chdir(project)
        patch.setattr(pano3d, "load", stand_in(seen))
        # Imports mlflow.pyfunc, whose remarks about itself it keeps quiet.
        registry.register(candidate(project / "a"))
        import mlflow
        from mlflow.pyfunc import scoring_server
        from starlette.testclient import TestClient

        patch.setattr(scoring_server, "invocations", scoring_server.invocations)  # to be put back afterwards
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        with registry.mlflow_at(store.address()):
            model = mlflow.pyfunc.load_model("models:/pano3d-must3r@challenger")
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
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
        "nested a million times": b'{"inputs": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
        "a number of many digits": b'{"inputs": [[[[' + b"9" * 5000 + b", 0, 0]]]]}",
        "a number beyond 64 bits": b'{"inputs": [[[[' + b"9" * 30 + b", 0, 0]]]]}",
        "fractions": {"inputs": (image + 0.5).tolist()},
        "truth values": {"inputs": (image > 0).tolist()},
        "numbers as texts": {"inputs": image.astype(str).tolist()},
        "a long text among short ones": {"inputs": [[[["a" * 10_000_000, "b", "c"], *[["a", "b", "c"]] * 1000]]]},
        "a list": image.tolist(),
        "the server's other formats": {"instances": image.tolist()},
        "a chat": {"inputs": image.tolist(), "messages": [{"role": "user", "content": "images"}]},
    }


@pytest.mark.parametrize("name", list(hostile()))
def test_whatever_else_comes_is_refused_and_the_worker_lives(client: Any, name: str) -> None:
    payload = hostile()[name]
    content = payload if isinstance(payload, bytes) else json.dumps(payload)
    answer = client.post("/invocations", content=content, headers=JSON)
    assert 400 <= answer.status_code < 500, answer.text
    assert is_well(client)


def photo(width: int, height: int, kind: str) -> bytes:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels, all of them black."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    content = zlib.compressobj(9)
    rows = content.compress(bytes(min(width, 1000)) * 1000) + content.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def send_encoded(client: Any, *files: bytes | str, inputs: Any = ((((0, 0, 0),),),)) -> Any:
    encoded = [one if isinstance(one, str) else base64.b64encode(one).decode() for one in files]
    return client.post(
        "/invocations", content=json.dumps({"inputs": inputs, "params": {"encoded": encoded}}), headers=JSON
    )


def test_encoded_photos_of_different_sizes_are_one_scene(client: Any, seen: dict[str, Any]) -> None:
    answer = send_encoded(client, photo(64, 48, "JPEG"), photo(90, 60, "PNG"), photo(300, 200, "WEBP"))
    assert answer.status_code == 200, answer.text
    assert seen["shape"] == (3, 28, 42, 3)
    assert np.shape(answer.json()["predictions"]["depth"]) == (3, 28, 42)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["no base64!"], "base64"),
        ([base64.b64encode(photo(64, 48, "JPEG")).decode()[:-3]], "base64"),
        ([b"\x80\x04K\x01."], "expected an image"),
        ([photo(64, 48, "PNG")[:20]], "expected an image"),
        ([photo(64, 48, "BMP")], "expected an image"),
        ([photo(64, 48, "JPEG"), photo(64, 48, "PNG")[:200]], "damaged"),
        ([photo(16, 16, "PNG")], "at least 32"),
        ([bomb(9000, 9000)], "more than 64000000 pixels"),
        ([bomb(60_000, 60_000)], "more than 64000000 pixels"),
        ([bomb(100_000, 100_000)], "more than 64000000 pixels"),
        ([photo(64, 48, "PNG")] * 65, "at most 64"),
        (["A" * 90_000_000], "bytes together"),
    ],
    ids=[
        *("text", "cut base64", "pickle", "cut header", "bmp", "damaged", "tiny"),
        *("bomb", "huge bomb", "hugest bomb", "too many", "too long"),
    ],
)
def test_encoded_content_that_is_no_scene_is_refused(client: Any, files: list[Any], reason: str) -> None:
    answer = send_encoded(client, *files)
    assert answer.status_code == 400, answer.text[:500]
    assert reason in answer.text
    assert is_well(client)


@pytest.mark.parametrize("encoded", [1, "text", {"a": 1}, [1, 2], [["a"]], [None]])
def test_encoded_of_another_type_is_refused(client: Any, encoded: Any) -> None:
    content = json.dumps({"inputs": [[[[0, 0, 0]]]], "params": {"encoded": encoded}})
    answer = client.post("/invocations", content=content, headers=JSON)
    assert answer.status_code == 400, answer.text[:500]
    assert is_well(client)


def test_images_and_encoded_images_at_once_are_refused(client: Any) -> None:
    answer = send_encoded(client, photo(64, 48, "PNG"), inputs=np.zeros((2, 14, 28, 3), int).tolist())
    assert answer.status_code == 400
    assert "one pixel" in answer.text


def table(kind: str) -> bytes:
    file = io.BytesIO()
    frame = pd.DataFrame({"inputs": np.zeros(3, np.int64)})
    frame.to_parquet(file) if kind == "parquet" else frame.to_csv(file)
    return file.getvalue()


@pytest.mark.parametrize("broken", [True, False], ids=["broken", "whole"])
@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        ("text/csv", table("csv")),
        # Never unfolded: a few kilobytes of Parquet make any number of rows.
        ("application/vnd.apache.parquet", table("parquet")),
        ("application/octet-stream", b"\x80\x04K\x01."),
        ("application/x-python-pickle", b"\x80\x04K\x01."),
        ("", b'{"inputs": [[[[0, 0, 0]]]]}'),
        (None, b'{"inputs": [[[[0, 0, 0]]]]}'),
    ],
)
def test_other_content_is_refused(client: Any, kind: str | None, whole: bytes, broken: bool) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = client.post("/invocations", content=whole[: len(whole) // 2] if broken else whole, headers=headers)
    assert answer.status_code == 415, answer.text
    assert is_well(client)


@pytest.fixture(scope="module")
def serving() -> Any:
    with warnings.catch_warnings():  # MLflow's remarks about type hints
        warnings.simplefilter("ignore")
        from pano3d.tracking import serving
    return serving


@pytest.mark.parametrize("kind", ["application/json; x=1", "application/json; charset=utf-16"])
def test_json_of_another_kind_is_refused(client: Any, kind: str) -> None:
    for content in (b'{"inputs": [[[[0, 0, 0]]]]}', '{"inputs": [[[[0, 0, 0]]]]}'.encode("utf-16")[:-1]):
        answer = client.post("/invocations", content=content, headers={"content-type": kind})
        assert answer.status_code in (400, 415), answer.text
    assert is_well(client)


def test_a_request_of_too_many_bytes_is_refused(client: Any, serving: Any) -> None:
    content = b'{"inputs": [[[[0, 0, 0]]]]' + b" " * serving.MAX_REQUEST + b"}"
    answer = client.post("/invocations", content=content, headers=JSON)
    assert answer.status_code == 413, answer.text
    assert is_well(client)


def test_the_most_that_is_allowed_fits_into_a_request(serving: Any) -> None:
    assert serving.MAX_PIXELS * len("[255, 255, 255], ") < serving.MAX_REQUEST
    assert serving.MAX_BYTES * 4 / 3 < serving.MAX_REQUEST
