"""trace: the commit, the data and the parameters behind a registered version, and the commands that restore them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pano3d.commands.promote import require_tracking
from pano3d.tracking.store import masked

if TYPE_CHECKING:
    from pano3d.tracking.lineage import Lineage

_SHOWN = ("pq_scene", "pq_coco", "miou", "ap50_agnostic", "abs_rel", "inlier_103", "rotation_auc30")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("--fetch", type=Path, metavar="FOLDER", help="only write its dvc.lock (and patch) into FOLDER")


def main(args: argparse.Namespace) -> int:
    """Print, or fetch."""
    from pano3d.tracking import lineage

    require_tracking("tracing")
    found = lineage.trace(args.model)
    if args.fetch:
        for path in lineage.fetch(found, args.fetch):
            print(f"wrote {path}")
    else:
        print("\n".join(describe(found)))
    return 0


def describe(found: Lineage) -> list[str]:
    """What is known, then the parameters, then how to get back there."""
    tags = found.tags
    promoted = " ".join(tags.get(f"promotion.{part}", "") for part in ("at", "by", "why")).strip()
    rows = [
        ("model", f"{found.name} version {found.number}"),
        ("commit", f"{tags.get('git.sha', 'unknown')} ({_tree(tags)})"),
        ("provenance", tags.get("provenance", "unknown")),
        ("dvc.lock", f"sha256 {tags.get('dvc.lock.sha256', 'unknown')}"),
        ("data", f"{tags.get('dataset', 'unknown')}, md5 {tags.get('data.md5', 'unknown')}"),
        ("scored on", f"scenes sha256 {tags.get('scenes.sha256', 'unknown')}"),
        ("protocol", f"sha256 {tags.get('protocol.sha256', 'unknown')}"),
        ("parameters", f"sha256 {tags.get('params.sha256', 'unknown')}, listed below"),
        ("weights", f"sha256 {tags.get('weights.sha256', 'unknown')}"),
        ("licence", tags.get("license", "unknown")),
        ("registered", f"by run {found.run_id}"),
        ("trained", f"by run {tags.get('source.run_id', 'unknown: restored by DVC without a run')}"),
        ("promoted", promoted or "never"),
        ("scores", ", ".join(f"{name} {found.scores[name]:.4f}" for name in _SHOWN if name in found.scores)),
    ]
    lines = [f"{heading:12}{text}" for heading, text in rows]
    return [*lines, "", "Parameters", *_indented(found.params), "", "Restore", *(f"  {one}" for one in restore(found))]


def restore(found: Lineage) -> list[str]:
    """The commands, to be given in a clone of the project that knows the commit."""
    commit = found.tags.get("git.sha")
    if commit is None:
        return ["# registered outside a git repository: there is no commit to go back to"]
    place = f"../pano3d-{commit[:10]}"
    uri = f"models:/{found.name}/{found.number}"
    lines = [
        f"git worktree add --detach {place} {commit}",
        f"export MLFLOW_TRACKING_URI={masked(found.address)}",
        f"python -m pano3d trace {uri} --fetch {place}" + " " * 4 + f"# its {' and '.join(found.files)}",
        f"cd {place}",
    ]
    if "source.patch" in found.files:
        lines.append("git apply source.patch" + " " * 4 + "# what was not committed; new files are not in it")
    return [
        *lines,
        "dvc pull --allow-missing" + " " * 4 + "# from a shared remote, where there is one",
        "dvc repro" + " " * 4 + "# makes again what was not pulled; runs nothing where all was",
    ]


def _tree(tags: Mapping[str, str]) -> str:
    if tags.get("git.dirty") == "false":
        return "clean"
    return f"changed: source.patch, sha256 {tags.get('git.diff.sha256', 'unknown')}"


def _indented(params: object) -> list[str]:
    import yaml

    return [f"  {line}" for line in yaml.safe_dump(params, sort_keys=False).splitlines()]
