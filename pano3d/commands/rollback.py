"""rollback: make the previous champion the champion again."""

from __future__ import annotations

import argparse

from pano3d.commands.promote import require_tracking, user


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a registered model, such as pano3d-must3r")
    parser.add_argument("--why", default="", help="your reason, kept with the version that is taken back")
    parser.add_argument("--by", default=None, help="who decides; default: the user on this machine")


def main(args: argparse.Namespace) -> int:
    """Move the aliases and say so."""
    from pano3d.tracking import promotion

    require_tracking("rolling back")
    outcome = promotion.roll_back(args.name, promotion.Request(args.by or user(), args.why))
    print(f"{args.name} version {outcome.number} is the champion again, instead of version {outcome.champion}")
    return 0
