"""The source read with `ast`: who imports whom, which rooms a stage needs, which keys it reads.

`python -m tests.architecture` writes the source dependencies of every stage into dvc.yaml.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]

# Down only; rooms on one floor do not know each other. `types` lies below them all but the colours it draws with.
FLOORS = {
    "palette": -2,
    "types": -1,
    "processes": -1,
    "files": -1,
    "photos": -0.5,  # files of a user to arrays
    "geometry": 0,
    "config": 0,
    "data": 1,
    "backbones": 1,
    "panoptic": 1,
    "losses": 1,
    "metrics": 1,
    "model": 2,
    "model_files": 2.3,  # the model on disk
    "growth": 2.5,  # a larger model that answers alike
    "reconstruction": 2.6,  # the model on a user's photos
    "online": 2.7,  # the same, frame by frame
    "evaluation": 2.8,  # the model on scene archives
    "training": 3,
    "viz": 3,
    "tracking": 3,
    "output": 3,  # a scene in the formats of other tools
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


@dataclass(frozen=True)
class Module:
    """A source file: where it lies, its text, and every name it imports with line and whether it does so at once."""

    path: Path
    text: str
    imports: tuple[tuple[str, int, bool], ...]


Modules = dict[str, Module]


@cache
def tree_of(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def imports_of(text: str, module: str, is_package: bool) -> tuple[tuple[str, int, bool], ...]:
    """Every imported name, dotted and absolute: `from a import b` gives `a.b`, which may be a module or a member."""
    tree = tree_of(text)
    at_top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) in at_top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [(f"{base}.{alias.name}", node.lineno, id(node) in at_top) for alias in node.names]
    return tuple(found)


def read_modules(root: Path) -> Modules:
    modules = {}
    for path in sources(root):
        name, text = module_name(root, path), path.read_text()
        modules[name] = Module(path, text, imports_of(text, name, path.name == "__init__.py"))
    return modules


def resolve(name: str, modules: Modules) -> str:
    """The module behind a dotted name: the longest prefix that is one."""
    parts = name.split(".")
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts)


def own_imports(module: str, modules: Modules) -> set[str]:
    found = {resolve(name, modules) for name, _, _ in modules[module].imports}
    return found - {"", module}


def violations(root: Path) -> list[str]:
    """One line for each import that the rooms do not allow."""
    modules = read_modules(root)
    found: list[str] = []
    for module, source in modules.items():
        place = source.path.relative_to(root).as_posix()
        room = room_of(module)
        if room not in FLOORS:
            found.append(f"{place}: the room {room!r} has no floor")
            continue
        floor = 6 if place in RUN_BY_TOOLS else FLOORS[room]
        for other in sorted(own_imports(module, modules)):
            target = room_of(other)
            if target != room and FLOORS.get(target, 99) >= floor:
                found.append(f"{place}: {room} (floor {floor}) imports {other} (floor {FLOORS.get(target)})")
        for name, line, at_top in source.imports:
            found += [f"{place}:{line}: {complaint}" for complaint in _outside(place, room, name, at_top)]
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
        for node in ast.walk(tree_of(path.read_text())):
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
    modules = read_modules(root)
    waiting, seen = [f"pano3d.stages.{stage}"], set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += [other for other in own_imports(module, modules) if room_of(other) not in OBSERVERS]
    deps = set()
    for module in seen:
        room, path = room_of(module), modules[module].path
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


def existing_stages(root: Path) -> list[str]:
    return [name for name in graph(root) if (root / f"pano3d/stages/{name}.py").is_file()]


def keys_read(root: Path, stage: str) -> set[str]:
    """Sections of the composed file that a stage names: `config.load(params, X, "section")` and `settings["section"]`,
    in its own file and in the other files of stages/ it imports."""
    files = [root / dep for dep in stage_deps(root, stage) if dep.startswith("pano3d/stages/")]
    keys: set[str] = set()
    for path in files:
        for node in ast.walk(tree_of(path.read_text())):
            texts: list[ast.expr] = []
            if isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] == "settings":
                texts = [node.slice]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "config.load":
                texts = [*node.args[2:], *(word.value for word in node.keywords if word.arg == "section")]
            keys |= {text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)}
    return {key.split(".")[0] for key in keys}


def write_deps(root: Path) -> None:
    """Replace the pano3d/ entries under `deps:` of each stage in dvc.yaml by what the stage imports."""
    path, lines, stage, in_deps = root / "dvc.yaml", [], "", False
    stages = existing_stages(root)
    for line in path.read_text().splitlines():
        if line.startswith("  ") and line[2] != " " and line.endswith(":"):
            stage = line.strip(" :")
        if in_deps and not line.startswith("      - "):
            lines += [f"      - {dep}" for dep in stage_deps(root, stage)]
            in_deps = False
        known = stage in stages
        if not (in_deps and known and line.startswith("      - pano3d/")):
            lines.append(line)
        in_deps = in_deps or (line == "    deps:" and known)
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_deps(ROOT)
