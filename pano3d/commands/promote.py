"""promote: make a registered version the champion, if the gate of params/promote.yaml lets it."""

from __future__ import annotations

import argparse
import getpass
import platform

from pano3d import config
from pano3d.tracking import store
from pano3d.types import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a registered model, such as pano3d-must3r")
    parser.add_argument("--version", required=True, help="its number, or an alias such as challenger")
    parser.add_argument("--why", default="", help="your reason, kept with the version")
    parser.add_argument("--by", default=None, help="who decides; default: the user on this machine")
    parser.add_argument("--target", help="what it is for, of params/promote.yaml; default: as the present champion")
    parser.add_argument("--dry-run", action="store_true", help="judge only: change and record nothing")


def main(args: argparse.Namespace) -> int:
    """Print the comparison and the verdict; 1 when the gate refuses."""
    from pano3d.tracking import promotion
    from pano3d.tracking.gate import GateConfig

    require_tracking("promoting")
    settings = config.load(store.workspace() / "params/promote.yaml", GateConfig)
    number = version_number(args.name, args.version)
    request = promotion.Request(args.by or user(), args.why, args.target)
    outcome = promotion.promote(args.name, number, settings, request, args.dry_run)
    verdict = outcome.verdict
    for one in verdict.comparisons:
        print(
            f"  {'WORSE' if one.is_worse else 'ok   '} {one.metric:16} {one.champion:8.4f} -> {one.challenger:8.4f}  "
            f"gain {one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
        )
    for reason in verdict.reasons:
        print(f"  refused: {reason}")
    subject = f"{args.name} version {number}"
    if not verdict.accepted:
        print(f"{subject} is not promoted; champion: {outcome.champion or 'none'}")
        return 1
    if outcome.champion == number:
        print(f"{subject} is the champion already")
    elif not outcome.changed:
        print(f"{subject} would be promoted; champion: {outcome.champion or 'none'}")
    else:
        before = f"; previous: {outcome.champion}" if outcome.champion else ""
        print(f"{subject} is the champion{before}")
    return 0


def require_tracking(doing: str) -> None:
    """Champions live in the tracking store."""
    if not store.is_on():
        raise ConfigError(f"{doing} needs the tracking store, and PANO3D_TRACKING is off; unset it")


def version_number(name: str, version: str) -> str:
    """The number of a version, also when it is given by its alias.

    Raises:
        WeightsError: no version has this alias.
    """
    from pano3d.tracking import promotion
    from pano3d.types import WeightsError

    if version.isdecimal():
        return version
    known = promotion.aliases(store.open_store(), name)
    if version not in known:
        raise WeightsError(f"finding version {version!r} of {name!r}: its aliases are {sorted(known) or 'none'}")
    return known[version]


def user() -> str:
    """Who runs this, and where."""
    return f"{getpass.getuser()}@{platform.node()}"
