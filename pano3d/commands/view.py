"""view: a reconstruction in the browser, served on this machine only unless asked otherwise."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

import numpy as np

from pano3d.commands.result_folder import cloud_of, minimum_confidence, read_result
from pano3d.data.label_spaces import label_space
from pano3d.types import ConfigError, DataError
from pano3d.viz.interactive import CloudViewer

LOOPBACK = "127.0.0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("result", type=Path, help="folder of `pano3d reconstruct`")
    parser.add_argument("--host", default=LOOPBACK, help="0.0.0.0 lets everybody in (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="the next free one, where taken (default: %(default)s)")
    parser.add_argument(
        "--points", type=int, default=1_000_000, help="at most so many, evenly thinned (default: %(default)s)"
    )


def main(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    if args.points < 1:
        raise ConfigError(f"--points {args.points}: expected 1 or more")
    viewer = open_viewer(args.result, args.host, args.port, args.points)
    print(f"{viewer.drawn} points at {viewer.url} - Ctrl-C ends", flush=True)
    if args.host != LOOPBACK:
        print("note: anyone who reaches this machine can look at it; there is no password")
    try:
        threading.Event().wait()
    finally:
        viewer.stop()
    return 0


def open_viewer(folder: Path, host: str, port: int, maximum_points: int) -> CloudViewer:
    """The viewer of a result, running.

    Raises:
        DataError: not a result, or without a point.
    """
    result = read_result(folder)
    scene = result.scene
    minimum = minimum_confidence(scene, result.drop_least_sure)
    is_kept = np.isfinite(scene.points_world).all(-1) & (scene.confidence >= minimum)
    if not is_kept.any():
        raise DataError(f"showing {folder}: no point is finite and sure enough")
    cloud = cloud_of(result.title, scene, label_space(result.label_space), is_kept)
    return CloudViewer(cloud, host, port, maximum_points)
