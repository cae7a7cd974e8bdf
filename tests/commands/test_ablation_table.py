"""The ablation table by hand: means, spreads, what is left out, and the paper's figures in columns of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pano3d.commands.ablation_table import COLUMNS, Run, cells, figure, markdown, read_runs, summarise
from pano3d.types import DataError


def run(variant: str, seed: int, failure: str = "", backbone: str = "must3r", **metrics: float | None) -> Run:
    return Run(variant, backbone, seed, metrics, failure)


def column(table: list[list[str]], row: int, name: str) -> str:
    return table[row][table[0].index(name)]


def test_mean_and_sample_deviation() -> None:
    # 10 and 14 percent: mean 12, deviations -2 and 2, sample variance 8 / 1, deviation 2.83.
    table = cells(
        summarise([run("joint", 0, pq_scene=0.10, abs_rel=0.5), run("joint", 1, pq_scene=0.14, abs_rel=None)])
    )
    assert column(table, 1, "PQ scene") == "12.0 ± 2.8"
    assert column(table, 1, "AbsRel") == "50.0"  # of one seed: no spread to speak of
    assert column(table, 1, "seeds") == "2"
    assert column(table, 1, "paper mIoU 3D") == "65.3"


def test_the_change_of_confidence_keeps_its_sign() -> None:
    scored = [run("joint", seed, change_ambiguous=change, ause_joint=0.2) for seed, change in ((0, -0.04), (1, 0.02))]
    table = cells(summarise(scored))
    assert column(table, 1, "confidence rank on glass") == "-1.0 ± 4.2"  # deviations of 3 points, times root 2
    assert column(table, 1, "AUSE") == "20.0 ± 0.0"
    unknown = cells(summarise([run("joint", 0, change_ambiguous=None)]))
    assert column(unknown, 1, "confidence rank on glass") == "-"


def test_the_papers_figures_stand_beside_must3r_only() -> None:
    table = cells(summarise([run("joint", 0, backbone="pi3", pq_scene=0.1)]))
    assert column(table, 1, "paper mIoU 3D") == "-"


def test_a_failed_seed_is_told_and_not_counted() -> None:
    table = cells(summarise([run("frozen", 0, pq_scene=0.2), run("frozen", 1, failure="memory | ran out")]))
    assert column(table, 1, "seeds") == "1"
    assert column(table, 1, "failed") == "seed 1: memory | ran out"
    assert "memory / ran out" in markdown(summarise([run("frozen", 1, failure="memory | ran out")]))


def test_a_panoptic_half_that_was_never_trained_has_no_scores() -> None:
    table = cells(summarise([run("geometry_only", 0, pq_scene=0.01, abs_rel=0.2)]))
    assert column(table, 1, "PQ scene") == "-"
    assert column(table, 1, "AbsRel") == "20.0"


def test_the_figure_draws_also_where_something_is_missing() -> None:
    rows = summarise(
        [
            run("joint", 0, **{name: 0.1 for name, _, _ in COLUMNS}),
            run("frozen", 0, failure="x"),
            run("joint", 0, backbone="pi3"),
        ]
    )
    assert figure(rows).startswith(b"\x89PNG")


@pytest.mark.parametrize("content", [[{"variant": "joint"}], {}, [], 3])
def test_a_file_that_is_no_list_of_runs_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="expected a JSON list of runs as the ablate flow writes it"):
        read_runs(path)
