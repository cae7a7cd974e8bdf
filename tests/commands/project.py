"""A small reproduction on disk, for the commands that read one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pano3d import config
from tests.project import call, commit


def write(root: Path, backbone: str, stage: str, metrics: dict[str, Any]) -> None:
    path = root / f"results/rooms/{backbone}/{stage}/metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics))


def reproduction(root: Path) -> Path:
    """Committed metrics of both stages that are verified, for both backbones."""
    (root / "params").mkdir()
    (root / "params/run.yaml").write_text("dataset: rooms\n")
    tolerances = [{"metrics": "*_low", "absolute": None}, {"metrics": "*", "absolute": 0.01}]
    config.write(root / "params/verify.yaml", {"stages": ["evaluate"], "tolerances": tolerances})
    for backbone in ("must3r", "pi3"):
        config.write(root / f"results/rooms/{backbone}/params.yaml", {"seed": 0, "backbone": {"name": backbone}})
        metrics = {"pq_scene": 0.5, "pq_scene_low": 0.4, "pq_scene_high": 0.6, "abs_rel": 0.1, "miou": None}
        write(root, backbone, "evaluate", {**metrics, "geometry_init": {"abs_rel": 0.2}})
    call(root, "git", "init", "-q")
    commit(root)
    return root
