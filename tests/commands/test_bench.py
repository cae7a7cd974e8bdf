"""bench: checked before timed, kept when interrupted, refused when unknown; the exponent and what it is fitted to."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import suite
from benchmarks.cases import Case, CheckError, Growth, require_close
from benchmarks.fits import fit_exponent, spread_of
from benchmarks.machine import Ceilings, measure_ceilings, metering
from pano3d import cli
from pano3d.commands.bench import ROOT, find_suite
from pano3d.types import ConfigError
from tests.commands import bench_cases


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Only the cases of `bench_cases`, as a module "small"; a folder for the results."""
    use(monkeypatch, bench_cases.cases(False))
    monkeypatch.setenv("PANO3D_TRACKING", "off")
    monkeypatch.setattr(suite.machine, "measure_ceilings", lambda device, full: Ceilings(1e11, 1e10))
    return tmp_path / "bench"


def use(monkeypatch: pytest.MonkeyPatch, cases: list[Case | Growth]) -> None:
    monkeypatch.setattr(suite, "MODULES", ("small",))
    monkeypatch.setitem(sys.modules, "benchmarks.small", SimpleNamespace(cases=lambda full: cases))  # type: ignore[arg-type]


def bench(output: Path, *words: str) -> int:
    return cli.main(["bench", "--quick", "-o", str(output), *words])


def results(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "results.json").read_text())
    return found


def test_the_quick_run_of_cheap_cases(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(small) == 0
    found = results(small)
    product, counter = found["cases"]
    assert product["name"] == "product"
    assert 0 < product["seconds"]["low"] <= product["seconds"]["median"] <= product["seconds"]["high"] < 0.1
    assert product["speedup"]["median"] > 1  # thousands of calls against one
    assert product["demand"]["flops"] == 2 * bench_cases.SIDE**2  # per row
    rate = product["demand"]["flops"] / product["seconds"]["median"]
    assert product["flops_share"] == pytest.approx(rate / found["machine"]["ceilings"]["flops"])
    assert counter["seconds"]["count"] == 20
    assert counter["figures"]["calls"] == 22  # checked once, asked for its memory once, timed 20 times
    assert counter["over_calls"]["over"] == "calls"
    assert [one["sizes"] for one in found["growth"]] == [[8, 16, 32]]
    assert found["is_finished"]
    table = (small / "table.md").read_text()
    assert "| product | row |" in table
    assert "60.00 s, kept" in table
    assert table in capsys.readouterr().out
    assert {path.name for path in small.iterdir()} == {"results.json", "table.md", "speed.png", "growth.png"}
    named = suite.metrics_of(found)
    assert named["seconds/product"] == product["seconds"]["median"]
    assert all(re.fullmatch(r"[\w\-. /:]+", name) for name in named)


@pytest.mark.parametrize("is_dying", [False, True])
def test_a_measured_process_leaves_nothing_behind(is_dying: bool, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = small.parent / "told"
    prepare = partial(bench_cases.prepare_traces, str(told), is_dying)
    use(monkeypatch, [Case("traces", prepare, counts=False, has_memory=False)])
    assert bench(small) == int(is_dying)
    process, file = told.read_text().split()
    assert not Path(file).parent.exists()
    last_moment = time.monotonic() + 20  # a killed process still has to come round on a busy machine
    while _runs(process) and time.monotonic() < last_moment:
        time.sleep(0.05)
    assert not _runs(process)


def _runs(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_only_what_is_asked_for_by_name(small: Path) -> None:
    assert bench(small, "--only", "product over rows") == 0
    assert (len(results(small)["cases"]), len(results(small)["growth"])) == (0, 1)


def test_a_wrong_result_is_not_timed_and_ends_the_run(
    small: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    product, counter, _ = bench_cases.cases(False)
    use(monkeypatch, [counter, Case("doubled", bench_cases.prepare_wrong), product])
    assert bench(small) == 1
    told = capfd.readouterr()
    assert "doubled: ones: ours is 1 off the plain twin; expected at most 0.1; nothing was timed" in told.err
    assert "timed\n" not in told.out
    assert [one["name"] for one in results(small)["cases"]] == ["counting calls"]
    assert not results(small)["is_finished"]
    assert "Interrupted" in (small / "table.md").read_text()


def test_a_process_that_dies_is_noted_and_the_others_go_on(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, [Case("too large", bench_cases.prepare_death), bench_cases.cases(False)[1]])
    assert bench(small) == 1
    assert [one["name"] for one in results(small)["cases"]] == ["counting calls"]
    assert "too large: its process died with 9; not enough memory?" in (small / "table.md").read_text()


def test_an_interrupted_run_goes_on_where_it_stopped(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = suite.measure

    def interrupted(target: Case | Growth, *rest: Any) -> dict[str, Any]:
        if isinstance(target, Growth):
            raise KeyboardInterrupt
        return measure(target, *rest)

    monkeypatch.setattr(suite, "measure", interrupted)
    assert bench(small) == cli.INTERRUPTED
    before = results(small)["cases"]
    assert len(before) == 2
    monkeypatch.setattr(suite, "measure", measure)
    assert bench(small) == 0
    assert capsys.readouterr().out.count("measured before") == 2
    assert [one["seconds"] for one in results(small)["cases"]] == [one["seconds"] for one in before]
    assert len(results(small)["growth"]) == 1


def test_parts_of_other_code_are_measured_again(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(small) == 0
    (small / "parts").mkdir()
    (small / "parts/identity.txt").write_text("other")
    shutil.copy(small / "results.json", small / "parts/product.json")
    assert bench(small) == 0
    assert "measured before" not in capsys.readouterr().out


def test_unknown_names_are_refused_with_the_known_ones(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(small, "--only", "small", "dancing") == 1
    assert "no dancing; choose modules (small) or cases (product; counting calls; product over rows)" in (
        capsys.readouterr().err
    )
    assert not small.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(small, "--device", "cuda") == 1
    assert "use --device cpu" in capsys.readouterr().err


def test_without_sources_the_command_says_where_to_get_them(tmp_path: Path) -> None:
    assert find_suite(ROOT) is suite
    with pytest.raises(ConfigError, match="clone the repository"):
        find_suite(tmp_path)


def test_the_run_is_recorded(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pano3d.tracking import store

    monkeypatch.setenv("PANO3D_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{small.parent / 'mlflow.db'}")
    assert bench(small, "--only", "product") == 0
    opened = store.open_store()
    (run,) = opened.client.search_runs([opened.experiment_id], "tags.kind = 'benchmark'")
    assert run.data.metrics["seconds/product"] == results(small)["cases"][0]["seconds"]["median"]
    assert run.data.tags["extent"] == "quick"
    assert run.info.status == "FINISHED"
    assert {one.path for one in opened.client.list_artifacts(run.info.run_id)} >= {"results.json", "table.md"}


@pytest.mark.parametrize("full", [False, True])
def test_every_module_declares_cases_under_names_of_their_own(full: bool) -> None:
    modules = [importlib.import_module(f"benchmarks.{module}") for module in suite.MODULES]
    found = [case for module in modules for case in module.cases(full)]
    titles = [case.title for case in found]
    assert len(set(titles)) == len(titles)
    assert all(re.fullmatch(r"[\w\-. /:]+", title) for title in titles)
    for case in found:
        if isinstance(case, Growth):
            assert len(case.sizes) >= 3, case.title
            assert list(case.sizes) == sorted(set(case.sizes)), case.title


def test_the_exponent_by_hand() -> None:
    square = fit_exponent([1, 2, 4], [3.0, 12.0, 48.0])
    assert (square.value, square.error, square.tail) == pytest.approx((2.0, 0.0, 2.0))
    # log2 of the values: 0, 1, 1. Slope (-1, 0, 1).(0, 1, 1) / 2 = 1/2; residuals -1/6, 1/3, -1/6, so 1/6 over 1 degree
    # of freedom and 2: sqrt(1/12).
    bent = fit_exponent([1, 2, 4], [1.0, 2.0, 2.0])
    assert (bent.value, bent.error, bent.tail) == pytest.approx((0.5, 12**-0.5, 0.0))
    for sizes, values in (([1, 2], [1.0, 2.0]), ([1, 2, 3], [1.0, 0.0, 2.0]), ([2, 2, 2], [1.0, 1.0, 1.0])):
        with pytest.raises(ValueError, match="fitting an exponent"):
            fit_exponent(sizes, values)


def test_median_and_quartiles() -> None:
    spread = spread_of([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (spread.low, spread.median, spread.high, spread.count) == (2.0, 3.0, 4.0, 5)


def test_the_ceilings_are_those_of_a_computer() -> None:
    ceilings = measure_ceilings("cpu", full=False)
    assert 1e8 < ceilings.flops < 1e15
    assert 1e7 < ceilings.bytes < 1e14


def test_what_an_operator_asks_of_the_machine() -> None:
    a, b = torch.ones(4, 8), torch.ones(8, 2)
    with metering() as demand:
        c = a @ b
        c.t()  # a view moves nothing
        c.add_(1)  # in place: read and written
    assert demand.flops == 2 * 4 * 8 * 2
    assert demand.bytes == 4 * (4 * 8 + 8 * 2 + 4 * 2) + 4 * (4 * 2 + 4 * 2)


def test_checks_tell_shapes_and_values_that_are_not_finite() -> None:
    require_close("x", torch.ones(2), [1.0, 1.0], 0.0)
    with pytest.raises(CheckError, match="shape"):
        require_close("x", torch.ones(2), torch.ones(3), 1.0)
    with pytest.raises(CheckError, match="not finite"):
        require_close("x", torch.full((2,), torch.nan), torch.ones(2), 1.0)
