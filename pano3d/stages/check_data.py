"""check_data: measure every archive, judge, tell, and stop before training where a rule is broken."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from pano3d import config, tracking
from pano3d.data.contracts import CheckDataConfig, judge, told
from pano3d.data.data_report import metrics, write_report
from pano3d.data.facts import Facts, collect_facts
from pano3d.data.label_spaces import label_space
from pano3d.data.preparation import read_manifest
from pano3d.processes import end_with_pool
from pano3d.types import DataError


def run(params: Path, data: Path, output: Path) -> None:
    """Check a prepared dataset.

    Args:
        params: the composed parameters; `check_data` and `dataset.label_space` are read.
        data: folder with manifest.parquet and the archives.
        output: folder written as a whole: validation.json, metrics.json, summary.html, class_table.csv and .json,
            scenes.csv, frames.csv and data_docs/. Written also where a rule is broken.

    Raises:
        DataError: a rule is broken; names the first scenes, frames and rules. Or there is nothing to check.
    """
    settings = config.read(params)
    checks = config.load(params, CheckDataConfig, "check_data")
    space = label_space(config.load(params, str, "dataset.label_space"))
    with tracking.run("check_data", settings) as recorder:
        facts = _measure(data, checks)
        partial = output.with_name(f".{output.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        verdict = judge(facts, checks, space, partial / "data_docs" if checks.data_docs else None)
        write_report(partial, facts, verdict, checks, data.name)
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
        recorder.log_metrics(metrics(facts, verdict, checks))
        for name in ("validation.json", "summary.html", "class_table.csv"):
            recorder.log_artifact(output / name)
        if verdict.violations:
            broken = len({violation.rule for violation in verdict.violations})
            raise DataError(
                f"checking {data}: {len(verdict.violations)} violations of {broken} rules:\n  "
                f"{told(verdict.violations)}\nAll of them are in {output / 'summary.html'}. Prepare these scenes "
                "again, or, where the data are right, change the bounds in check_data"
            )


def _measure(data: Path, checks: CheckDataConfig) -> Facts:
    manifest = read_manifest(data)
    frames = int(manifest["frames"].sum()) if "frames" in manifest else None
    with (
        tqdm(total=frames, desc="check_data", unit="frame", mininterval=2.0) as progress,
        _executor(checks.workers) as executor,
    ):

        def advance(count: int) -> None:
            progress.update(count)

        return collect_facts(data, manifest, checks.reprojection, executor, advance)


def _executor(workers: int) -> Executor:
    """Not forked: the parent runs threads of its own, which a fork would leave half alive. One worker needs no pool."""
    count = workers or os.cpu_count() or 1
    if count == 1:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(count, mp_context=get_context("forkserver"), initializer=_start_worker)


def _start_worker() -> None:
    """Scenes are measured side by side: threads inside each would only fight. None outlives the stage."""
    import cv2

    end_with_pool()
    cv2.setNumThreads(1)
