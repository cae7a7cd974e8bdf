"""What MLflow runs to serve a registered model: loaded from safetensors and JSON, nothing pickled.

MLflow copies this file beside the model and executes it; nothing of ours imports it.
"""

import base64
import binascii
import functools
import io
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from PIL import Image

# Checked before anything is computed: memory grows with views times pixels, and a worker that runs out of it dies.
MAX_VIEWS = 64
MAX_SIDE = 1024  # pixels
MAX_PIXELS = 64 * 512 * 384  # of all views together
MAX_REQUEST = 256 * 2**20  # bytes of JSON: the most pixels there may be, written by json.dumps, take 204 MiB
MAX_BYTES = 64 * 2**20  # of all encoded images together
MAX_PHOTO_PIXELS = 64_000_000  # of one encoded image, by its header: a few bytes can unfold to any number of them
ENCODINGS = ("JPEG", "PNG", "WEBP")


class ServedModel(mlflow.pyfunc.PythonModel):
    """images (V, H, W, 3) uint8 -> the arrays of one PanopticScene.

    Or photos of any size, as base64 of JPEG, PNG or WebP files, in the parameter `encoded`. MLflow insists on an input:
    it is one pixel then, (1, 1, 1, 3), and not looked at.
    """

    def load_context(self, context: Any) -> None:
        import pano3d

        _guard_server()
        self._reconstructor = pano3d.load(context.artifacts["model"])

    # MLflow would read type hints as the model's signature, which is given where the model is logged.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        from pano3d.types import Pano3DError

        encoded = (params or {}).get("encoded")
        encoded = [] if encoded is None else list(encoded)
        if encoded and np.shape(model_input) != (1, 1, 1, 3):
            raise _refusal(f"expected one pixel as input beside encoded images, got {np.shape(model_input)}")
        try:
            images = _checked(self._decoded(encoded) if encoded else model_input)
            scene = self._reconstructor.reconstruct(images)
        except Pano3DError as error:  # such as a size the network cannot take
            raise _refusal(str(error)) from error
        return {
            "points_world": scene.points_world,
            "depth": scene.depth,
            "confidence": scene.confidence,
            "segment_id": scene.segment_id,
            "class_id": scene.class_id,
            "segment_score": scene.segment_score,
            "world_from_camera": scene.world_from_camera,
            "intrinsics": scene.intrinsics,
            # One entry per segment; class_id indexes the class names in the model's metadata.
            "segments_id": np.array([segment.id for segment in scene.segments], dtype=np.int64),
            "segments_class_id": np.array([segment.class_id for segment in scene.segments], dtype=np.int64),
            "segments_is_thing": np.array([segment.is_thing for segment in scene.segments], dtype=bool),
            "segments_score": np.array([segment.score for segment in scene.segments], dtype=np.float64),
        }

    def _decoded(self, encoded: list[Any]) -> Any:
        """(V, H, W, 3) uint8 at the network's size; one photo that cannot be read refuses all."""
        from pano3d.photos import read_photos

        if len(encoded) > MAX_VIEWS:
            raise _refusal(f"{len(encoded)} encoded images are too many: at most {MAX_VIEWS}")
        if sum(map(len, encoded)) * 3 // 4 > MAX_BYTES:
            raise _refusal(f"the encoded images have more than {MAX_BYTES} bytes together; send fewer or smaller ones")
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"image_{number}" for number in range(len(encoded))]
            for path, text in zip(paths, encoded, strict=True):
                path.write_bytes(_unwrapped(text, path.name))
            width, height = self._reconstructor.image_width, self._reconstructor.image_height
            photos = read_photos(paths, width, height)
        if photos.left_out:
            raise _refusal("; ".join(f"{Path(path).name}: {why}" for path, why in photos.left_out.items()))
        return photos.colors


def _guard_server() -> None:
    """Put a door before MLflow's scoring server, where this process is one.

    The server offers no place for it, so its function is replaced. Left alone it answers 500 to JSON nested too deeply,
    to a number of thousands of digits and to a request without a content type, cuts off fractions, and unfolds Parquet
    before anybody can look: a few kilobytes of that make any number of rows, and a worker without memory.
    """
    server: Any = sys.modules.get("mlflow.pyfunc.scoring_server")
    if server is None or hasattr(server.invocations, "__wrapped__"):
        return
    answer = server.invocations

    @functools.wraps(answer)
    def invocations(data, content_type, model, input_schema):  # type: ignore[no-untyped-def]
        if (content_type or "").partition(";")[0].strip().lower() != "application/json":
            reason, status = f"expected Content-Type: application/json, got {content_type}", 415
        elif len(data) > MAX_REQUEST:
            reason, status = f"expected at most {MAX_REQUEST} bytes of JSON, got {len(data)}; send fewer images", 413
        else:
            return answer(_parsed(data), content_type, model, input_schema)
        return server.InvocationsResponse(reason, status, "text/plain")

    server.invocations = invocations


def _parsed(data: bytes) -> dict[str, Any]:
    """The object in a request, its images as arrays. MLflow takes it as it takes the text, without parsing again."""
    try:
        content = json.loads(data)
    except RecursionError:
        raise _refusal("expected images (V, H, W, 3), got JSON that is nested too deeply") from None
    except ValueError as error:  # broken, not UTF-8, or a number of thousands of digits
        raise _refusal(f"expected JSON: {error}") from None
    if not isinstance(content, dict) or not {"inputs"} <= content.keys() <= {"inputs", "params"}:
        raise _refusal('expected a JSON object with "inputs" and, if wanted, "params", and nothing else')
    # Of objects: numpy would make texts as long as the longest of them, and numbers of what is none.
    images = np.array(content["inputs"], dtype=object)
    if images.ndim != 4 or images.shape[-1] != 3 or images.size == 0:
        raise _refusal(f"expected images (V, H, W, 3) of one scene, got an array {images.shape}")
    kinds = set(map(type, images.flat))
    if kinds != {int} or images.min() < 0 or images.max() > 255:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise _refusal(f"expected whole numbers from 0 to 255 as pixels, got others, of type {found}")
    return {**content, "inputs": list(images.astype(np.uint8))}  # MLflow takes a list and no array


def _refusal(reason: str) -> MlflowException:
    return MlflowException(reason, error_code=INVALID_PARAMETER_VALUE)


def _unwrapped(text: str, name: str) -> bytes:
    """The bytes behind base64, once their header shows an image of a size that may be decoded."""
    try:
        content = base64.b64decode(text, validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are judged here
            with Image.open(io.BytesIO(content), formats=ENCODINGS) as image:
                width, height = image.size
    except (binascii.Error, ValueError) as error:
        raise _refusal(f"{name}: expected base64 of a file ({error})") from None
    except Image.DecompressionBombError:
        raise _refusal(f"{name}: more than {MAX_PHOTO_PIXELS} pixels; shrink it") from None
    except (OSError, SyntaxError, EOFError):  # what Pillow raises for what is none
        raise _refusal(f"{name}: expected an image, one of {', '.join(ENCODINGS)}") from None
    if width * height > MAX_PHOTO_PIXELS:
        raise _refusal(f"{name}: {width}x{height} is more than {MAX_PHOTO_PIXELS} pixels; shrink it")
    return content


def _checked(model_input: Any) -> Any:
    """The images as an array within the limits; an answer of the 400s for anything else."""
    images = np.asarray(model_input)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or images.size == 0:
        raise _refusal(f"expected uint8 images (V, H, W, 3) of one scene, got {images.dtype} {images.shape}")
    views, height, width = images.shape[:3]
    if views > MAX_VIEWS or max(height, width) > MAX_SIDE or views * height * width > MAX_PIXELS:
        raise _refusal(
            f"{views} images of {width}x{height} are too much: at most {MAX_VIEWS} images, {MAX_SIDE} pixels a side "
            f"and {MAX_PIXELS} pixels together; send fewer or smaller ones"
        )
    return images


mlflow.models.set_model(ServedModel())
