"""bench: how fast, how lean, how it grows; every result is checked before it is timed.

What is measured lives in benchmarks/, beside the package: only a source checkout has it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="tiny presets, under 3 minutes on two cores (default)")
    extent.add_argument("--full", action="store_true", help="released sizes too, more repeats; may be interrupted")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="modules of benchmarks/, or cases")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("reports/bench"), help="folder of the results (default: %(default)s)"
    )


def main(args: argparse.Namespace) -> int:
    """Measure, write results.json, table.md and plots, record them as an MLflow run; 1 where a process failed."""
    from pano3d.tracking import benchmarks as tracked
    from pano3d.tracking import identity

    suite = find_suite(ROOT)
    tags = identity.git_tags(ROOT)
    code = tags.get("git.sha", "unknown code")[:10] + (
        f"+{tags['git.diff.sha256'][:6]}" if "git.diff.sha256" in tags else ""
    )
    choice = suite.Choice(args.full, args.device, tuple(args.only), code)
    results = suite.run(choice, args.output, tracked.stage_costs)
    print((args.output / "table.md").read_text(encoding="utf-8"))
    about = results["machine"]
    extent = "full" if args.full else "quick"
    named = {**tags, "device": args.device, "device.name": about["name"], "extent": extent}
    artifacts = [path for path in sorted(args.output.iterdir()) if path.suffix in (".json", ".md", ".png")]
    tracked.record(f"bench {extent} {args.device}", named, suite.metrics_of(results), artifacts)
    print(f"results in {args.output}")
    return 1 if results["failures"] else 0


def find_suite(root: Path) -> ModuleType:
    """The module benchmarks.suite of the checkout that this package is imported from.

    Raises:
        ConfigError: the package is installed without its sources, or another package of that name hides ours.
    """
    from pano3d.types import ConfigError

    if not (root / "benchmarks/suite.py").is_file():
        raise ConfigError(
            f"bench: no benchmarks/ beside the package in {root}; they are not installed with it: clone the "
            "repository, run ./bootstrap and call `python -m pano3d bench` there"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    suite = importlib.import_module("benchmarks.suite")
    if Path(str(suite.__file__)) != root / "benchmarks/suite.py":
        raise ConfigError(f"bench: {suite.__file__} is another package named benchmarks; take it off PYTHONPATH")
    return suite
