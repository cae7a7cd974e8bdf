"""The gate under DVC itself: data that break a rule stop the graph before training, and MLflow shows nothing after."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pano3d.data.preparation import SceneTask, prepare_scenes
from tests.data.box_room import make_box_room
from tests.project import STAND_IN, call, clone, environment

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

# `check_data` is the real one, `prepare` delivers four rooms of which one has a flipped byte.
GATED = STAND_IN.replace(
    'if stage == "compose":',
    """if stage == "prepare":
    import shutil
    shutil.copytree("delivered", sys.argv[4])
    sys.exit()
if stage in ("compose", "check_data"):""",
)
RUNS = """
import json
from pano3d.tracking import store
opened = store.open_store()
runs = opened.client.search_runs(opened.experiments())
print(json.dumps([[run.info.run_name, run.info.status] for run in runs]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = clone(tmp_path)
    (folder / "pano3d/__main__.py").write_text(GATED)
    deliver(folder / "delivered")
    return folder


def deliver(folder: Path) -> None:
    places = [("train", "a"), ("train", "b"), ("validation", "c"), ("test", "d")]
    tasks = [SceneTask(s, n, partial(make_box_room, n, 3, 7 * i)) for i, (s, n) in enumerate(places)]
    with ThreadPoolExecutor(1) as executor:
        prepare_scenes(tasks, folder.parent / "work", folder, executor, lambda frames: None)
    archive = folder / "train/b.zip"
    content = bytearray(archive.read_bytes())
    content[content.index(b"depth/000001.png") + 60] ^= 1
    archive.write_bytes(content)


def test_no_training_starts_after_a_violation(project: Path) -> None:
    done = subprocess.run(["dvc", "repro"], cwd=project, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "train/b frame 000001: frame_readable: reading train/b.zip: member depth/000001.png is damaged" in said
    assert "train/b: archive_digest" in said
    assert (project / "visited.log").read_text().split() == ["compose", "prepare", "check_data"]
    runs = json.loads(call(project, sys.executable, "-c", RUNS))
    assert {name.split()[0] for name, _ in runs} == {"check_data", "reproduction"}  # the stage and its parent
    assert {status for _, status in runs} == {"FAILED"}
    assert not list(project.glob("models/**/*.safetensors"))
