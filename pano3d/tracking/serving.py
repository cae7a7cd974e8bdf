"""What MLflow runs to serve a registered model: loaded from safetensors and JSON, nothing pickled.

MLflow copies this file beside the model and executes it; nothing of ours imports it.
"""

from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np


class ServedModel(mlflow.pyfunc.PythonModel):
    """images (V, H, W, 3) uint8 -> the arrays of one PanopticScene."""

    def load_context(self, context: Any) -> None:
        import pano3d

        self._reconstructor = pano3d.load(context.artifacts["model"])

    # MLflow would read type hints as the model's signature, which is given where the model is logged.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        scene = self._reconstructor.reconstruct(np.asarray(model_input, dtype=np.uint8))
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


mlflow.models.set_model(ServedModel())
