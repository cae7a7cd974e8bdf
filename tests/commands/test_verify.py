"""verify: agreement within tolerance, and a name for each disagreement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pano3d import cli
from pano3d.commands import verify
from pano3d.types import ConfigError
from tests.commands.project import reproduction, write

EVERYTHING = (verify.Tolerance("*", 0.01),)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(reproduction(tmp_path))
    (tmp_path / "models/rooms").mkdir(parents=True)
    return tmp_path


def changed(project: Path, **metrics: Any) -> int:
    base = {"pq_scene": 0.5, "pq_scene_low": 0.4, "pq_scene_high": 0.6, "abs_rel": 0.1, "miou": None}
    write(project, "pi3", "evaluate", {**base, "geometry_init": {"abs_rel": 0.2}, **metrics})
    return cli.main(["verify"])


def test_the_same_metrics_agree(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify"]) == 0
    # pq_scene, pq_scene_high, abs_rel, miou and geometry_init.abs_rel of two backbones; pq_scene_low is not compared.
    assert "10 metrics compared with HEAD, 0 out of tolerance" in capsys.readouterr().out


def test_committed_metrics_alone_are_no_reproduction(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fresh clone. Metrics that differ were made somewhere, and are compared."""
    (project / "models/rooms").rmdir()
    assert cli.main(["verify"]) == 1
    assert "nothing was reproduced here" in capsys.readouterr().err
    assert changed(project, pq_scene=0.509) == 0


def test_a_small_difference_is_within_and_an_interval_is_not_compared(project: Path) -> None:
    assert changed(project, pq_scene=0.509, pq_scene_low=0.1) == 0


@pytest.mark.parametrize(
    "metrics",
    [
        {"pq_scene": 0.52},
        {"pq_scene": float("nan")},
        {"pq_scene": None},
        {"miou": 0.3},
        {"geometry_init": {"abs_rel": 0.3}},
        {"surplus": 0.0},
    ],
)
def test_a_difference_is_named_and_1(
    project: Path, capsys: pytest.CaptureFixture[str], metrics: dict[str, Any]
) -> None:
    assert changed(project, **metrics) == 1
    printed = capsys.readouterr().out
    assert f"WRONG {next(iter(metrics))}" in printed
    assert "1 out of tolerance" in printed


def test_a_metric_that_is_gone_is_wrong() -> None:
    lines, wrong = verify.compare({"a": 1.0, "b": 1.0}, {"a": 1.0}, EVERYTHING)
    assert wrong == 1
    assert "absent" in lines[1]


def test_every_metric_needs_a_tolerance() -> None:
    with pytest.raises(ConfigError, match="no tolerance fits 'a'"):
        verify.compare({"a": 1.0}, {"a": 1.0}, (verify.Tolerance("b", 0.1),))


def test_nothing_to_compare_with(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "swin", "evaluate", {})
    (project / "results/rooms/swin/params.yaml").write_text("seed: 0\n")
    assert cli.main(["verify"]) == 1
    assert "commit the metrics of a run first" in capsys.readouterr().err
