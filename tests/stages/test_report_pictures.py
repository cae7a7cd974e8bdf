"""The report shows the data themselves, from what `evaluate` kept of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import load_file

from pano3d.data.archive import write_scene
from pano3d.data.label_spaces import label_space
from pano3d.evaluation import EvaluationConfig
from pano3d.stages.evaluate import write_example
from pano3d.stages.report import ReportConfig, _dataset_sheets
from tests.data.scenes import make_scene
from tests.small_model import write_small_model


def test_data_sheets_show_ambiguous_pixels_where_they_are_known(tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "model")
    known = make_scene("known", height=32, width=48)
    unknown = dataclasses.replace(
        known, name="unknown", frames=[dataclasses.replace(frame, ambiguous=None) for frame in known.frames]
    )
    for content in (known, unknown):
        path = tmp_path / f"{content.name}.zip"
        write_scene(path, content)
        write_example(tmp_path / f"examples/{content.name}.safetensors", model, path, EvaluationConfig("test", 2, 1, 1))
    kept = load_file(tmp_path / "examples/known.safetensors")
    np.testing.assert_allclose(kept["true_depth"], 2.0)
    assert kept["ambiguous"].any()
    sheets = _dataset_sheets(tmp_path / "examples", ReportConfig(2, 0, 1, 2), label_space("scannet20"))
    assert [sheet.caption.split(":")[0] for sheet in sheets] == ["known", "unknown"]
    five, four = (cv2.imdecode(np.frombuffer(sheet.data, np.uint8), cv2.IMREAD_COLOR) for sheet in sheets)
    assert (five.shape[1], four.shape[1]) == (5 * 204 - 4, 4 * 204 - 4)
