"""completion: what a shell needs to complete `pano3d`.

bash: `source <(pano3d completion bash)`; zsh: `pano3d completion zsh > ~/.zsh/_pano3d` in a folder of $fpath.
"""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def main(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    print(shtab.complete(args.whole_parser(), shell=args.shell))
    return 0
