"""Two runs of one training share its checkpoints, and so take turns."""

from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd
import pytest

from pano3d.files import locked
from pano3d.stages import fitting
from pano3d.stages.fitting import Fit
from tests.training import small


def test_a_second_run_of_the_same_training_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fitting, "work_folder", lambda: tmp_path)
    monkeypatch.setattr(fitting, "read_manifest", lambda _: pd.DataFrame({"sha256": ["1"]}))
    trained = threading.Event()
    monkeypatch.setattr(fitting, "_fit_and_write", lambda *_: trained.set())
    job = Fit(
        stage="geometry_init",
        settings={"seed": 0, "backbone": {}, "head": {}, "geometry_init": {}},
        model=small.model(),
        model_config=small.MODEL,
        objective=small.objective(),
        training=None,
        data=tmp_path,
        start_digest="",
        licenses=[],
        output=tmp_path / "model",
        results=tmp_path / "results",
    )
    key = fitting._key(job, ["1"])[:16]
    thread = threading.Thread(target=fitting.fit, args=(job,))
    with locked(tmp_path / "training" / f"geometry_init-{key}.lock"):
        thread.start()
        assert not trained.wait(0.5)
    thread.join()
    assert trained.is_set()
    assert "another run trains the same; waiting" in capsys.readouterr().err
