"""Every reference case of public implementations, through the same door that replays them with other seeds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.doors.metrics import compute

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())["families"]
CASES = [(family, name) for family, cases in EXPECTED.items() for name in cases]
ABSOLUTE = {"depth": 1e-6}  # the reference computes in single precision
RELATIVE = {"pq_image": 1e-9, "pq_scene": 1e-9, "depth": 1e-4, "scannet_instance": 1e-9, "scannetpp_instance": 1e-9}


def compare(path: str, got: Any, want: Any, relative: float, absolute: float) -> None:
    if isinstance(want, dict) and "error" in want:  # the public code raised: ours says "undefined"
        assert got.get("n", 0) == 0, path
        assert all(math.isnan(value) for key, value in got.items() if key != "n"), path
    elif isinstance(want, dict):
        for key, value in want.items():
            if key.startswith("full_pipeline"):
                compare(f"{path}.{key}", got[key], value, 1e-3, 1e-3)
            else:
                degrees = "deg" in key
                compare(f"{path}.{key}", got[key], value, relative, 1e-3 if degrees else absolute)
    elif isinstance(want, list):
        assert len(got) == len(want), path
        for index, (a, b) in enumerate(zip(got, want)):
            compare(f"{path}[{index}]", a, b, relative, absolute)
    elif want is None:
        assert math.isnan(got), f"{path}: expected undefined, got {got}"
    else:
        assert got == pytest.approx(want, rel=relative, abs=absolute), path


@pytest.mark.parametrize(("family", "name"), CASES, ids=[f"{f}-{n}" for f, n in CASES])
def test_reproduces_public_implementation(family: str, name: str) -> None:
    with np.load(GOLDEN / "cases" / f"{family}__{name}.npz") as stored:
        case = {key: stored[key] for key in stored.files}
    copies = {key: value.copy() for key, value in case.items()}
    compare(name, compute(family, case), EXPECTED[family][name], RELATIVE.get(family, 1e-6), ABSOLUTE.get(family, 1e-9))
    for key, value in copies.items():
        np.testing.assert_array_equal(case[key], value, err_msg=f"{key} was modified")
