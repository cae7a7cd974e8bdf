"""Who may import whom, who alone may import what, and what each stage depends on: the picture kept true by `ast`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pano3d import cli
from tests.architecture import ROOT, existing_stages, graph, keys_read, stage_deps, unsafe_calls, violations, write_deps


def test_every_import_goes_down() -> None:
    assert violations(ROOT) == []


def test_nothing_executes_what_it_is_given() -> None:
    assert unsafe_calls(ROOT) == []


@pytest.mark.parametrize(
    ("place", "line", "complaint"),
    [
        ("pano3d/losses/extra.py", "from pano3d.model import Pano3D", "floor 1"),
        ("pano3d/losses/extra.py", "from pano3d.metrics import pq", "floor 1"),
        ("pano3d/losses/extra.py", "from ..metrics import pq", "floor 1"),
        ("pano3d/losses/extra.py", "def f():\n    import pano3d.stages.compose", "floor 4"),
        ("pano3d/losses/extra.py", "import logging", "pure"),
        ("pano3d/training/extra.py", "def f():\n    import mlflow", "only"),
        ("pano3d/training/extra.py", "from omegaconf import DictConfig", "only"),
        ("pano3d/stages/extra.py", "def f():\n    from prefect import flow", "only"),
        ("pano3d/tracking/extra.py", "import mlflow", "slow"),
        ("pano3d/viz/extra.py", "import open3d as o3d", "slow"),
        ("pano3d/surprise/__init__.py", "", "no floor"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, place: str, line: str, complaint: str) -> None:
    shutil.copytree(ROOT / "pano3d", tmp_path / "pano3d", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pano3d/model.py").touch()
    added = tmp_path / place
    added.parent.mkdir(exist_ok=True)
    added.write_text(line)
    assert [found for found in violations(tmp_path) if place in found and complaint in found]


@pytest.mark.parametrize(
    "line", ["eval('1')", "pickle.loads(data)", "torch.load(path)", "torch.load(path, weights_only=False)"]
)
def test_an_unsafe_call_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "pano3d").mkdir()
    (tmp_path / "pano3d/extra.py").write_text(line)
    assert unsafe_calls(tmp_path)


@pytest.mark.parametrize("stage", existing_stages(ROOT))
def test_a_stage_depends_on_exactly_the_rooms_it_imports(stage: str) -> None:
    given = [dep for dep in graph(ROOT)[stage]["deps"] if dep.startswith("pano3d/")]
    assert sorted(given) == stage_deps(ROOT, stage), (
        "`python -m tests.architecture` writes the deps on the right into dvc.yaml"
    )


@pytest.mark.parametrize("stage", existing_stages(ROOT))
def test_a_stage_depends_on_every_key_it_reads(stage: str) -> None:
    given = {key for file in graph(ROOT)[stage].get("params", []) for keys in file.values() for key in keys}
    if stage != "compose":
        assert keys_read(ROOT, stage) <= given


def test_a_stage_is_one_word_everywhere() -> None:
    """dvc.yaml, params/, the command line: no stage is missing in one of them, none is left over."""
    listed = list(graph(ROOT))
    assert [name for name in listed if name != "compose"] == [
        path for path in listed if (ROOT / f"params/{path}.yaml").is_file()
    ]
    assert list(cli.STAGES) == existing_stages(ROOT)
    for name, stage in graph(ROOT).items():
        assert stage["cmd"].startswith(f"python -m pano3d {name} ")


@pytest.mark.parametrize("stage", ["geometry_init", "joint_finetune"])
def test_drawing_does_not_retrain_but_a_loss_does(stage: str) -> None:
    rooms = stage_deps(ROOT, stage)
    assert "pano3d/viz" not in rooms
    assert "pano3d/tracking" not in rooms
    assert {"pano3d/losses", "pano3d/training", "pano3d/data", "pano3d/config.py"} <= set(rooms)


@pytest.mark.parametrize("line", ["from pano3d.viz import maps", "def f():\n    import pano3d.viz.maps"])
def test_a_new_import_of_a_stage_is_found(tmp_path: Path, line: str) -> None:
    shutil.copytree(ROOT / "pano3d", tmp_path / "pano3d", ignore=shutil.ignore_patterns("__pycache__"))
    before = stage_deps(tmp_path, "geometry_init")
    (tmp_path / "pano3d/viz/maps.py").touch()
    loop = tmp_path / "pano3d/training/loop.py"
    loop.write_text(f"{loop.read_text()}\n{line}\n")
    assert stage_deps(tmp_path, "geometry_init") == sorted([*before, "pano3d/viz"])


def test_the_deps_of_the_graph_can_be_written(tmp_path: Path) -> None:
    """What is in dvc.yaml already stays as it is; a stage that lost its deps gets them back."""
    shutil.copytree(ROOT / "pano3d", tmp_path / "pano3d", ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "dvc.yaml").read_text()
    graph_file = tmp_path / "dvc.yaml"
    graph_file.write_text(text.replace("      - pano3d/losses\n", ""))
    write_deps(tmp_path)
    assert graph_file.read_text() == text
