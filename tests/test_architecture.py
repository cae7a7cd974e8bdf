"""Who may import whom, who alone may import what, and what each stage depends on: the picture kept true by `ast`."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pano3d import cli

ROOT = Path(__file__).parents[1]

# Down only; rooms on one floor do not know each other. `types` lies below them all.
FLOORS = {
    "types": -1,
    "processes": -1,
    "geometry": 0,
    "config": 0,
    "data": 1,
    "backbones": 1,
    "panoptic": 1,
    "losses": 1,
    "metrics": 1,
    "model": 2,
    "model_files": 2.3,  # the model on disk
    "reconstruction": 2.6,  # the model on a user's photos
    "training": 3,
    "viz": 3,
    "tracking": 3,
    "stages": 4,
    "commands": 4,
    "cli": 5,
    "__init__": 5,
    "__main__": 6,
    "flows": 5,
}
# Run by a tool and imported by none of our modules: MLflow loads it beside the model and it calls `pano3d.load`.
RUN_BY_TOOLS = {"pano3d/tracking/serving.py"}

ONLY_IMPORTERS = {
    "hydra": ("pano3d/config.py",),
    "omegaconf": ("pano3d/config.py",),
    "mlflow": ("pano3d/tracking/",),
    "great_expectations": ("pano3d/data/contracts",),
    "prefect": ("flows/",),
    "dvc": (),
    "torchvision": (),
}
# Seconds to import: inside the functions that use them.
HEAVY = {"open3d", "mlflow", "great_expectations", "matplotlib"}

PURE = {"model", "losses", "metrics", "geometry"}
IMPURE = {"os", "pathlib", "logging", "time", "datetime", "random", "shutil", "tempfile", "subprocess"}
EXECUTES = {"eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"}

# Tracking is told and never asked: it cannot change what a stage writes, so it does not re-run one.
OBSERVERS = {"tracking", "processes"}


def sources(root: Path) -> list[Path]:
    return sorted(path for top in ("pano3d", "flows") for path in (root / top).rglob("*.py"))


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return "flows" if parts[0] == "flows" else (parts[1] if len(parts) > 1 else "__init__")


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[str, ast.stmt]]:
    """Every imported name, dotted and absolute: `from a import b` gives `a.b`, which may be a module or a member."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level or None] if node.level else []
            if node.level and is_package:
                above = module.split(".")[: len(module.split(".")) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}", node


def parsed(root: Path) -> dict[str, tuple[Path, ast.Module]]:
    return {module_name(root, path): (path, ast.parse(path.read_text())) for path in sources(root)}


def resolve(name: str, modules: dict[str, tuple[Path, ast.Module]]) -> str:
    """The module behind a dotted name: the longest prefix that is one."""
    parts = name.split(".")
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts)


def own_imports(module: str, modules: dict[str, tuple[Path, ast.Module]]) -> set[str]:
    path, tree = modules[module]
    found = {resolve(name, modules) for name, _ in imports(tree, module, path.name == "__init__.py")}
    return found - {"", module}


def violations(root: Path) -> list[str]:
    """One line for each import that the rooms do not allow."""
    modules = parsed(root)
    found: list[str] = []
    for module, (path, tree) in modules.items():
        place = path.relative_to(root).as_posix()
        room = room_of(module)
        if room not in FLOORS:
            found.append(f"{place}: the room {room!r} has no floor")
            continue
        floor = 5 if place in RUN_BY_TOOLS else FLOORS[room]
        for other in sorted(own_imports(module, modules)):
            target = room_of(other)
            if target != room and FLOORS.get(target, 99) >= floor:
                found.append(f"{place}: {room} (floor {floor}) imports {other} (floor {FLOORS.get(target)})")
        for name, node in imports(tree, module, path.name == "__init__.py"):
            found += [f"{place}:{node.lineno}: {line}" for line in _outside(place, room, name, node in tree.body)]
    return found


def _outside(place: str, room: str, name: str, at_top: bool) -> Iterator[str]:
    package = name.split(".")[0]
    if package in ONLY_IMPORTERS and not place.startswith(ONLY_IMPORTERS[package] or ("nobody",)):
        yield f"only {ONLY_IMPORTERS[package] or 'nobody'} may import {package}"
    if package in HEAVY and at_top and place not in RUN_BY_TOOLS:
        yield f"{package} is slow to import: import it in the function that uses it"
    if room in PURE and package in IMPURE:
        yield f"{room} is pure: no {package}"


def unsafe_calls(root: Path) -> list[str]:
    """Calls that would execute what they are given."""
    found = []
    for path in sources(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            place, called = f"{path.relative_to(root).as_posix()}:{node.lineno}", ast.unparse(node.func)
            if called in EXECUTES:
                found.append(f"{place}: {called}")
            safe = any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords)
            if called == "torch.load" and not safe:
                found.append(f"{place}: torch.load without weights_only=True")
    return found


def stage_deps(root: Path, stage: str) -> list[str]:
    """The source dependencies of a stage: its own file, and every room it imports, directly or through others."""
    modules = parsed(root)
    waiting, seen = [f"pano3d.stages.{stage}"], set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += [other for other in own_imports(module, modules) if room_of(other) not in OBSERVERS]
    deps = set()
    for module in seen:
        room, path = room_of(module), modules[module][0]
        if room == "stages" and path.name != "__init__.py":
            deps.add(path.relative_to(root).as_posix())
        elif room not in ("stages", "__init__"):
            folder = root / "pano3d" / room
            deps.add(f"pano3d/{room}" if folder.is_dir() else f"pano3d/{room}.py")
    return sorted(deps)


def graph(root: Path) -> dict[str, dict[str, list[str]]]:
    """The stages of dvc.yaml, a matrix or foreach stage once."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def existing_stages() -> list[str]:
    return [name for name in graph(ROOT) if (ROOT / f"pano3d/stages/{name}.py").is_file()]


def keys_read(root: Path, stage: str) -> set[str]:
    """Sections of the composed file that a stage names: `config.load(params, X, "section")` and `settings["section"]`,
    in its own file and in the other files of stages/ it imports."""
    modules = parsed(root)
    files = [root / dep for dep in stage_deps(root, stage) if dep.startswith("pano3d/stages/")]
    keys: set[str] = set()
    for path in files:
        for node in ast.walk(modules[module_name(root, path)][1]):
            texts: list[ast.expr] = []
            if isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] == "settings":
                texts = [node.slice]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "config.load":
                texts = [*node.args[2:], *(word.value for word in node.keywords if word.arg == "section")]
            keys |= {text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)}
    return {key.split(".")[0] for key in keys}


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


@pytest.mark.parametrize("stage", existing_stages())
def test_a_stage_depends_on_exactly_the_rooms_it_imports(stage: str) -> None:
    given = [dep for dep in graph(ROOT)[stage]["deps"] if dep.startswith("pano3d/")]
    assert sorted(given) == stage_deps(ROOT, stage), f"in dvc.yaml, give {stage} the deps on the right"


@pytest.mark.parametrize("stage", existing_stages())
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
    assert list(cli.STAGES) == existing_stages()
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
