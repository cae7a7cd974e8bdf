"""reconstruct: photos, a video or a scene archive to a labelled 3D scene, in the formats of other tools."""

from __future__ import annotations

import argparse
import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pano3d.commands.description import Frame, describe
from pano3d.commands.estimate import estimate, free_bytes, memory_bytes, views_within
from pano3d.commands.inputs import Given, count_views, read_input
from pano3d.commands.options import add_model_options, load_chosen_model
from pano3d.commands.result_folder import hold_folder, write_result
from pano3d.online import OnlineConfig, OnlineFrame, OnlineReconstructor, camera_remarks
from pano3d.output.cameras import read_cameras
from pano3d.output.segments import SegmentRow
from pano3d.panoptic.scene import keep_classes
from pano3d.photos import PHOTO_ENDINGS, different_names
from pano3d.reconstruction import Reconstructor, align_to_cameras, move_scene, scale_to_length, view_agreement
from pano3d.types import ConfigError, DataError, DegenerateError, PanopticScene

DEFAULT_VIEWS = 32
INTERRUPTED = 130
OPTIONS = ("mode", "views", "memory", "classes", "drop_least_sure", "merging", "score", "device", "precision")
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
        help="offline: all views together; online: one by one, memory bounded, only MUSt3R with standard merging and "
        "float32 (default: %(default)s)",
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


def main(args: argparse.Namespace) -> int:
    """Reconstruct and write; 130 when interrupted, with what was finished kept."""
    _check(args)
    available = count_views(args.input)
    with hold_folder(args.output, args.input):
        return _reconstruct(args, available)


def _reconstruct(args: argparse.Namespace, available: int | None) -> int:
    model = load_chosen_model(args)
    network = model.reconstructor
    classes = _classes(args, network.labels.names)
    width, height = network.image_width, network.image_height
    views = min(available or args.views, args.views)
    views = _within_memory(args, network, views)
    online = OnlineReconstructor(network, OnlineConfig()) if args.mode == "online" else None
    print(f"{model.folder}: {model.remark}")
    expected = estimate(network, width, height, views)
    print(f"{views} views of {width}x{height} on {args.device}: {expected}", flush=True)
    with tqdm(total=views, desc="reading", unit="view", disable=None) as progress:
        given = read_input(args.input, width, height, views, progress.update)
    remarks = [*given.photos.notes, *(f"left out {path}: {why}" for path, why in given.photos.left_out.items())]
    for remark in remarks:
        print(f"note: {remark}")
    known, length = _known_cameras(args, given), _known_length(args, given)
    started = time.perf_counter()
    frames: list[OnlineFrame] = []
    interrupted = False
    if online is None:
        print(f"reconstructing {len(given.photos.colors)} views", flush=True)
        with _expecting(expected.seconds * len(given.photos.colors) / views):
            scene = network.reconstruct(given.photos.colors)
    else:
        frames, interrupted = _one_by_one(online, given.photos.colors)
        scene = online.scene(frames)
        given = _first(given, len(scene.depth))
        known = None if known is None else known[: len(scene.depth)]
    seconds = time.perf_counter() - started
    scene, frame = _fix_frame(scene, known, length)
    if classes:
        scene = keep_classes(scene, classes)
    found = [*_remarks(scene, interrupted), *camera_remarks(frames)]
    for remark in found:
        print(f"note: {remark}")
    remarks = [model.remark, *remarks, *found]
    title = args.input[0].resolve().name if len(args.input) == 1 else f"{len(args.input)} photos"
    options = {name: getattr(args, name) for name in OPTIONS}
    description = describe(model, title, given.kind, given.photos, options, scene, frame, seconds, remarks)
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
    if args.memory is not None and not 0 < args.memory < math.inf:
        raise ConfigError(f"--memory {args.memory:g}: expected a positive number of GiB")
    if not 0 <= args.drop_least_sure < 1:
        raise ConfigError(f"--drop-least-sure {args.drop_least_sure}: expected a share from 0 to less than 1")
    if args.cameras and args.length:
        raise ConfigError("--cameras and --length both fix the scale; give one of them")
    if args.length:
        _length(args.length)


def _classes(args: argparse.Namespace, known: Sequence[str]) -> list[str]:
    """What --classes names; nothing without it."""
    wanted = [name.strip() for name in (args.classes or "").split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(f"--classes: {', '.join(unknown)} unknown; the model knows {', '.join(known)}")
    return wanted


def _within_memory(args: argparse.Namespace, network: Reconstructor, views: int) -> int:
    """As many views as --memory allows; without it, those asked for must fit into what is free.

    Raises:
        ConfigError: they do not, or not even one does.
    """
    width, height = network.image_width, network.image_height
    budget = float(free_bytes(network)) if args.memory is None else args.memory * 2**30
    fitting = views_within(network, width, height, budget)
    if fitting < 1:
        raise ConfigError(
            f"not even one view fits into {budget / 2**30:.2g} GiB of memory; allow more, or take a smaller model"
        )
    if args.memory is None and views > fitting:
        needed = memory_bytes(network, width, height, views)
        raise ConfigError(
            f"{views} views need about {needed / 2**30:.0f} GiB of memory, {budget / 2**30:.0f} are free: take --views "
            f"{fitting} or less, or --memory {0.8 * budget / 2**30:.1f} for as many as fit"
        )
    return min(views, fitting)


@contextmanager
def _expecting(seconds: float) -> Iterator[None]:
    """A bar that fills within the time that was estimated: the network itself cannot tell how far it is."""
    done = threading.Event()
    total = max(1, math.ceil(seconds))

    def fill() -> None:
        with tqdm(total=total, desc="of the estimated time", unit="s", disable=None) as progress:
            while not done.wait(1) and not progress.disable:
                progress.update(min(1, total - progress.n))

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _one_by_one(online: OnlineReconstructor, colors: NDArray[np.uint8]) -> tuple[list[OnlineFrame], bool]:
    """All frames, or those finished when Ctrl-C came, and whether it came."""
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
    return frames, interrupted


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
    names = [_view_name(name) for name in names]
    missing = [name for name in given.photos.names if name not in names]
    if missing:
        raise DataError(f"--cameras {args.cameras}: no camera is called {missing[0]!r} ({len(missing)} are missing)")
    return poses[[names.index(name) for name in given.photos.names]]


def _view_name(given: str) -> str:
    """What the view of a photo is called, by the photo's name with or without its ending, or its own."""
    photo = Path(given)
    return different_names([photo.stem if photo.suffix.lower() in PHOTO_ENDINGS else photo.name])[0]


def _length(text: str) -> tuple[str, tuple[tuple[float, float], tuple[float, float]], float]:
    """Name of a photo, two pixels of it, and their distance in metres."""
    name, *numbers = text.rsplit(",", 5)
    try:
        x1, y1, x2, y2, metres = (float(number) for number in numbers)
    except ValueError:
        raise ConfigError(
            f"--length {text!r}: expected NAME,X1,Y1,X2,Y2,METRES, such as IMG_1,120,300,120,900,2.1"
        ) from None
    if not 0 < metres < math.inf:
        raise ConfigError(f"--length {text!r}: expected a positive number of metres")
    return name, ((x1, y1), (x2, y2)), metres


@dataclass(frozen=True)
class KnownLength:
    """A distance in metres between two pixels of a view of the network's size; text: as given."""

    text: str
    view: int
    pixels: tuple[tuple[float, float], tuple[float, float]]
    metres: float


def _known_length(args: argparse.Namespace, given: Given) -> KnownLength | None:
    """What --length says.

    Raises:
        DataError: no view is called so, or a pixel lies outside of what is left of the photo.
    """
    if not args.length:
        return None
    name, ends, metres = _length(args.length)
    if _view_name(name) not in given.photos.names:
        raise DataError(f"--length: no view is called {name!r}; there are {', '.join(given.photos.names[:5])} ...")
    view = given.photos.names.index(_view_name(name))
    crop = given.photos.crops[view]
    height, width = given.photos.colors.shape[1:3]
    pixels = (crop.to_image(*ends[0]), crop.to_image(*ends[1]))
    for end, (x, y) in zip(ends, pixels, strict=True):
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise DataError(
                f"--length: pixel {end[0]:g},{end[1]:g} is not in the part of {name} that is used, columns {crop.left} "
                f"to {crop.left + width / crop.scale_x - 1:.0f}, rows {crop.top} to "
                f"{crop.top + height / crop.scale_y - 1:.0f}"
            )
    return KnownLength(args.length, view, pixels, metres)


def _fix_frame(
    scene: PanopticScene, known: NDArray[np.float64] | None, length: KnownLength | None
) -> tuple[PanopticScene, Frame]:
    """The scene in the frame and scale that is known, where one is."""
    if known is not None:
        try:
            target_from_world, residual = align_to_cameras(scene, known)
        except DegenerateError as error:
            raise DataError(f"--cameras: {error}") from error
        moved = move_scene(scene, target_from_world)
        return moved, Frame("that of the known cameras", "theirs", "known cameras", target_from_world, residual)
    if length is not None:
        scene, factor = scale_to_length(scene, length.view, length.pixels, length.metres)
        grown = np.diag([factor, factor, factor, 1.0])
        return scene, replace(Frame.own(), unit="metres", source=f"known length {length.text}", target_from_world=grown)
    return scene, Frame.own()


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


def summary(rows: list[SegmentRow], scene: PanopticScene, frame: Frame, seconds: float) -> str:
    """A few lines for the terminal: the largest objects first."""
    labelled = float(np.mean(scene.segment_id > 0))
    lines = [f"{len(scene.depth)} views in {seconds:.1f} s, {len(rows)} objects, {labelled:.0%} of the pixels labelled"]
    unit = " m" if frame.unit == "metres" else ""
    for row in sorted(rows, key=lambda each: -each.points)[:12]:
        size = " x ".join(f"{side:.2f}" for side in row.extent) + unit if row.points else "no point is sure enough"
        lines.append(f"  {row.class_name:16} {row.points:8} points  {row.views:3} views  score {row.score:.2f}  {size}")
    return "\n".join(lines)
