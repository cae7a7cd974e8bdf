"""torch.compile runs both backbones and changes nothing but rounding."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOLERANCE = 1e-5  # of the largest value

has_compiler = shutil.which(os.environ.get("CXX", "g++")) is not None or shutil.which("clang++") is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "count"),
    [
        ("networks", 8),
        pytest.param("blocks", 2, marks=pytest.mark.skipif(not has_compiler, reason="inductor needs a C++ compiler")),
    ],
)
def test_compiled_agrees(what: str, count: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.backbones.compiled_networks", what],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == count
    assert {name: value for name, value in found.items() if not value <= TOLERANCE} == {}
