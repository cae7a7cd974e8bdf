"""What the stages of the newest reproduction cost, read back from their runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pano3d.tracking import benchmarks, runs
from pano3d.tracking.runs import PEAK_MEMORY
from pano3d.tracking.store import open_store

PARAMS = {"seed": 0, "backbone": {"name": "pi3"}, "dataset": {"name": "rooms"}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("PANO3D_TRACKING", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return tmp_path


def test_nothing_recorded_costs_nothing_and_makes_no_store(project: Path) -> None:
    assert benchmarks.stage_costs() == []
    assert not (project / "mlflow.db").exists()


def test_stages_in_the_order_they_ran_with_peak_memory(project: Path) -> None:
    for stage in ("prepare", "evaluate"):
        with runs.run(stage, PARAMS):
            pass
    with pytest.raises(ZeroDivisionError), runs.run("report", PARAMS):
        _ = 1 / 0
    prepare, evaluate = benchmarks.stage_costs()  # not the one that failed
    assert (prepare["name"], evaluate["name"]) == ("prepare", "evaluate@pi3")
    assert 0 <= prepare["seconds"] < 60
    assert 2**24 < prepare["peak_bytes"] < 2**36
    # A worker that held more than the stage's own process counts.
    cost = project / "reports/rooms/pi3/evaluate/cost.json"
    cost.parent.mkdir(parents=True)
    cost.write_text(json.dumps({"peak_mib": 2**17}))
    assert benchmarks.stage_costs()[1]["peak_bytes"] == 2**37
    opened = open_store()
    found = opened.client.search_runs(opened.experiments(), "tags.stage = 'prepare'")
    assert found[0].data.metrics[PEAK_MEMORY] > 10
