"""reconstruct: photos, a video or a scene archive to a labelled 3D scene, in the formats of other tools."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pano3d.commands.estimate import estimate, views_within
from pano3d.commands.inputs import Given, count_views, read_input
from pano3d.commands.loading import LoadedModel
from pano3d.commands.options import add_model_options, load_chosen_model
from pano3d.commands.result_folder import prepare_folder, write_result
from pano3d.geometry.alignment import scale_of
from pano3d.online import OnlineConfig, OnlineFrame, OnlineReconstructor
from pano3d.output.cameras import read_cameras
from pano3d.output.segments import SegmentRow
from pano3d.panoptic.scene import keep_classes
from pano3d.panoptic.stream import StreamConfig
from pano3d.processes import peak_bytes
from pano3d.reconstruction import align_to_cameras, move_scene, scale_to_length, view_agreement
from pano3d.types import ConfigError, DataError, DegenerateError, PanopticScene

DEFAULT_VIEWS = 32
INTERRUPTED = 130
LONELY = 0.02
"""Share of confirmed pixels below which a view is said to agree with no other."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input", type=Path, nargs="+", help="a folder of photos, photos, one video, or one scene archive (.zip)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder to write; an earlier result is replaced"
    )
    add_model_options(parser)
    parser.add_argument(
        "--mode",
        choices=("offline", "online"),
        default="offline",
        help="offline: all views together; online: one by one, memory bounded, MUSt3R only (default: %(default)s)",
    )
    parser.add_argument(
        "--views", type=int, default=DEFAULT_VIEWS, help="at most so many, evenly spread (default: %(default)s)"
    )
    parser.add_argument("--memory", type=float, metavar="GIB", help="at most so many views as fit into this memory")
    parser.add_argument("--classes", metavar="NAME,...", help="keep only segments of these classes")
    parser.add_argument(
        "--drop-least-sure",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of pixels, least confident first, left out of points, meshes and page (default: %(default)s)",
    )
    parser.add_argument(
        "--cameras",
        metavar="FILE",
        help="known poses: a cameras.json, or `input` for those of a scene archive; fixes frame and scale",
    )
    parser.add_argument(
        "--length",
        metavar="NAME,X1,Y1,X2,Y2,METRES",
        help="a known distance between two pixels of a photo; fixes the scale",
    )


@dataclass(frozen=True)
class Frame:
    """What is known about the frame of a result: its name, unit, how it came about."""

    name: str
    unit: str
    source: str
    target_from_world: NDArray[np.float64]
    residual: float | None = None


def main(args: argparse.Namespace) -> int:
    """Reconstruct and write; 130 when interrupted, with what was finished kept."""
    _check(args)
    available = count_views(args.input)
    prepare_folder(args.output)
    model = load_chosen_model(args)
    network = model.reconstructor
    width, height = network.image_width, network.image_height
    views = min(available or args.views, args.views)
    if args.memory is not None:
        fitting = views_within(network, width, height, args.memory * 2**30)
        if fitting < 1:
            raise ConfigError(f"--memory {args.memory:g}: not even one view fits; allow more, or take a smaller model")
        views = min(views, fitting)
    online = (
        OnlineReconstructor(network, OnlineConfig(segments=_stream_config(args))) if args.mode == "online" else None
    )
    print(f"{model.folder}: {model.remark}")
    print(f"{views} views of {width}x{height} on {args.device}: {estimate(network, width, height, views)}", flush=True)
    with tqdm(total=views, desc="reading", unit="view", disable=None) as progress:
        given = read_input(args.input, width, height, views, progress.update)
    remarks = [*given.photos.notes, *(f"left out {path}: {why}" for path, why in given.photos.left_out.items())]
    for remark in remarks:
        print(f"note: {remark}")
    known = _known_cameras(args, given)
    started = time.perf_counter()
    if online is None:
        print(f"reconstructing {len(given.photos.colors)} views", flush=True)
        scene, interrupted = network.reconstruct(given.photos.colors), False
    else:
        scene, interrupted = _one_by_one(online, given.photos.colors)
        given = _first(given, len(scene.depth))
        known = None if known is None else known[: len(scene.depth)]
    seconds = time.perf_counter() - started
    scene, frame = _fix_frame(args, scene, given, known)
    if args.classes:
        scene = keep_classes(scene, _names(args.classes))
    found = _remarks(scene, interrupted)
    for remark in found:
        print(f"note: {remark}")
    remarks = [model.remark, *remarks, *found]
    description = _description(args, model, given, scene, frame, seconds, remarks)
    with tqdm(total=11, desc="writing", unit="file", disable=None) as progress:
        rows = write_result(
            args.output,
            scene,
            given.photos,
            network.labels,
            args.drop_least_sure,
            description,
            remarks,
            lambda _: progress.update(),
        )
    print(summary(rows, scene, frame, seconds))
    print(f"{args.output}/scene.html shows it in a browser; `pano3d view {args.output}` interactively")
    return INTERRUPTED if interrupted else 0


def _check(args: argparse.Namespace) -> None:
    if args.views < 1:
        raise ConfigError(f"--views {args.views}: expected 1 or more")
    if not 0 <= args.drop_least_sure < 1:
        raise ConfigError(f"--drop-least-sure {args.drop_least_sure}: expected a share from 0 to less than 1")
    if args.cameras and args.length:
        raise ConfigError("--cameras and --length both fix the scale; give one of them")
    if args.length:
        _length(args.length)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _stream_config(args: argparse.Namespace) -> StreamConfig:
    bounded = OnlineConfig().segments
    return bounded if args.score is None else replace(bounded, score_threshold=args.score)


def _one_by_one(online: OnlineReconstructor, colors: NDArray[np.uint8]) -> tuple[PanopticScene, bool]:
    """The scene of all frames, or of those finished when Ctrl-C came."""
    frames: list[OnlineFrame] = []
    interrupted = False
    try:
        for image in tqdm(colors, desc="reconstructing", unit="view", disable=None):
            frames.append(online.step(image))
    except KeyboardInterrupt:
        if not frames:
            raise
        interrupted = True
        print(f"interrupted: the {len(frames)} views done so far are kept", file=sys.stderr)
    return online.scene(frames), interrupted


def _first(given: Given, count: int) -> Given:
    photos = given.photos
    kept = replace(photos, colors=photos.colors[:count], names=photos.names[:count], crops=photos.crops[:count])
    return replace(given, photos=kept)


def _known_cameras(args: argparse.Namespace, given: Given) -> NDArray[np.float64] | None:
    """Poses (V 4 4) in the order of the views.

    Raises:
        DataError: a view has none.
    """
    if not args.cameras:
        return None
    if args.cameras == "input":
        if given.scan_from_camera is None:
            raise DataError("--cameras input: only scene archives know their cameras; give a cameras.json")
        return given.scan_from_camera
    names, poses, _ = read_cameras(Path(args.cameras))
    missing = [name for name in given.photos.names if name not in names]
    if missing:
        raise DataError(f"--cameras {args.cameras}: no camera is called {missing[0]!r} ({len(missing)} are missing)")
    return poses[[names.index(name) for name in given.photos.names]]


def _length(text: str) -> tuple[str, tuple[tuple[float, float], tuple[float, float]], float]:
    """Name of a photo, two pixels of it, and their distance in metres."""
    name, *numbers = text.rsplit(",", 5)
    try:
        x1, y1, x2, y2, metres = (float(number) for number in numbers)
    except ValueError:
        raise ConfigError(
            f"--length {text!r}: expected NAME,X1,Y1,X2,Y2,METRES, such as IMG_1,120,300,120,900,2.1"
        ) from None
    return name, ((x1, y1), (x2, y2)), metres


def _fix_frame(
    args: argparse.Namespace, scene: PanopticScene, given: Given, known: NDArray[np.float64] | None
) -> tuple[PanopticScene, Frame]:
    """The scene in the frame and scale that is known, where one is."""
    if known is not None:
        try:
            target_from_world, residual = align_to_cameras(scene, known)
        except DegenerateError as error:
            raise DataError(f"--cameras: {error}") from error
        moved = move_scene(scene, target_from_world)
        return moved, Frame("that of the known cameras", "theirs", "known cameras", target_from_world, residual)
    own = "the reconstruction's own"
    if args.length:
        name, ends, metres = _length(args.length)
        stems = [Path(name).stem, name]
        views = [view for view, each in enumerate(given.photos.names) if each in stems]
        if not views:
            raise DataError(f"--length: no view is called {name!r}; there are {', '.join(given.photos.names[:5])} ...")
        crop = given.photos.crops[views[0]]
        pixels = (crop.to_image(*ends[0]), crop.to_image(*ends[1]))
        scene, factor = scale_to_length(scene, views[0], pixels, metres)
        return scene, Frame(own, "metres", f"known length {args.length}", np.diag([factor, factor, factor, 1.0]))
    return scene, Frame(own, "unknown", "the network's own scale", np.eye(4))


def _remarks(scene: PanopticScene, interrupted: bool) -> list[str]:
    """What the result itself says about how far to trust it."""
    remarks = ["interrupted: the scene holds the views that were done"] if interrupted else []
    if len(scene.depth) > 1:
        lonely = int((view_agreement(scene) < LONELY).sum())
        if lonely:
            remarks.append(
                f"{lonely} of {len(scene.depth)} views agree with no other: they may show another place, overlap too "
                "little, or be beyond the model"
            )
    if not scene.segments:
        remarks.append("no segment was found: every mask fell below the thresholds; a lower --score shows more")
    return remarks


def _description(
    args: argparse.Namespace,
    model: LoadedModel,
    given: Given,
    scene: PanopticScene,
    frame: Frame,
    seconds: float,
    remarks: list[str],
) -> dict[str, Any]:
    """What reconstruction.json says."""
    peak = torch.cuda.max_memory_allocated() if torch.device(args.device).type == "cuda" else peak_bytes()
    return {
        "frame": {
            "name": frame.name,
            "axes": "OpenCV: x right, y down, z forward, of the camera that anchors it",
            "unit": frame.unit,
            "scale": scale_of(frame.target_from_world),
            "source": frame.source,
            "target_from_world": frame.target_from_world.tolist(),
            "alignment_rms": frame.residual,
        },
        "model": {
            "folder": str(model.folder),
            "backbone": model.description.config.backbone.name,
            "license": model.description.license,
            "weights_sha256": model.description.weights_sha256,
            "provenance": model.description.provenance,
            "label_space": model.description.config.label_space,
        },
        "input": {
            "title": args.input[0].resolve().name if len(args.input) == 1 else f"{len(args.input)} photos",
            "kind": given.kind,
            "views": list(given.photos.names),
            "left_out": given.photos.left_out,
        },
        "options": {
            name: getattr(args, name)
            for name in (
                "mode",
                "views",
                "memory",
                "classes",
                "drop_least_sure",
                "merging",
                "score",
                "device",
                "precision",
            )
        },
        "precision": model.reconstructor.precision,
        "confidence_kind": scene.confidence_kind,
        "segments": len(scene.segments),
        "seconds": round(seconds, 2),
        "peak_bytes": peak,
        "remarks": remarks,
        "versions": {name: metadata.version(name) for name in ("pano3d", "torch", "numpy")},
    }


def summary(rows: list[SegmentRow], scene: PanopticScene, frame: Frame, seconds: float) -> str:
    """A few lines for the terminal: the largest objects first."""
    labelled = float(np.mean(scene.segment_id > 0))
    lines = [f"{len(scene.depth)} views in {seconds:.1f} s, {len(rows)} objects, {labelled:.0%} of the pixels labelled"]
    unit = " m" if frame.unit == "metres" else ""
    for row in sorted(rows, key=lambda each: -each.points)[:12]:
        size = " x ".join(f"{side:.2f}" for side in row.extent) + unit
        lines.append(f"  {row.class_name:16} {row.points:8} points  {row.views:3} views  score {row.score:.2f}  {size}")
    return "\n".join(lines)
