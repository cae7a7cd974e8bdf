"""Compiled blocks train as they do uncompiled, with the same few graphs whatever the number of views."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pano3d.types import ConfigError
from tests.training import small


def test_compiled_training_is_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.compiled_training", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"must3r", "pi3"}
    for backbone, runs in found.items():
        assert len(runs["plain"]) == 6
        assert runs["compiled"] == pytest.approx(runs["plain"], rel=1e-4), backbone
        first, last = runs["graphs"][0], runs["graphs"][-1]
        assert first >= 4, "blocks, memory and fusion are graphs of their own"
        assert last <= first + 2, f"{backbone}: other numbers of views were compiled anew: {runs['graphs']}"


def test_compiled_blocks_are_not_sharded() -> None:
    with pytest.raises(ConfigError, match="compiled blocks were never tried sharded"):
        replace(small.training(), compile=True, sharding="fsdp")
