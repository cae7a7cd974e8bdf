"""What MLflow runs to serve a registered model: loaded from safetensors and JSON, nothing pickled.

MLflow copies this file beside the model and executes it; nothing of ours imports it.
"""

from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

# Checked before anything is computed: memory grows with views times pixels, and a worker that runs out of it dies.
MAX_VIEWS = 64
MAX_SIDE = 1024  # pixels
MAX_PIXELS = 64 * 512 * 384  # of all views together


class ServedModel(mlflow.pyfunc.PythonModel):
    """images (V, H, W, 3) uint8 -> the arrays of one PanopticScene."""

    def load_context(self, context: Any) -> None:
        import pano3d

        self._reconstructor = pano3d.load(context.artifacts["model"])

    # MLflow would read type hints as the model's signature, which is given where the model is logged.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        from pano3d.types import Pano3DError

        images = _checked(model_input)
        try:
            scene = self._reconstructor.reconstruct(images)
        except Pano3DError as error:  # such as a size the network cannot take
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
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


def _checked(model_input: Any) -> Any:
    """The images as an array within the limits; an answer of the 400s for anything else."""
    images = np.asarray(model_input)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or images.size == 0:
        raise MlflowException(
            f"expected uint8 images (V, H, W, 3) of one scene, got {images.dtype} {images.shape}",
            error_code=INVALID_PARAMETER_VALUE,
        )
    views, height, width = images.shape[:3]
    if views > MAX_VIEWS or max(height, width) > MAX_SIDE or views * height * width > MAX_PIXELS:
        raise MlflowException(
            f"{views} images of {width}x{height} are too much: at most {MAX_VIEWS} images, {MAX_SIDE} pixels a side "
            f"and {MAX_PIXELS} pixels together; send fewer or smaller ones",
            error_code=INVALID_PARAMETER_VALUE,
        )
    return images


mlflow.models.set_model(ServedModel())
