"""stream: photos are reconstructed as they arrive in a folder; nothing of earlier ones but a bounded memory is kept."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pano3d.backbones.must3r_streaming import StreamingConfig
from pano3d.commands.description import Frame, describe
from pano3d.commands.inputs import UNREAD_ENDINGS
from pano3d.commands.loading import LoadedModel
from pano3d.commands.options import add_model_options, load_chosen_model
from pano3d.commands.result_folder import STREAMED, Contents, clear_folder, hold_folder, write_result
from pano3d.files import write_whole
from pano3d.online import OnlineConfig, OnlineFrame, OnlineReconstructor, camera_remarks
from pano3d.output.cameras import trajectory_line
from pano3d.panoptic.stream import StreamConfig
from pano3d.photos import PHOTO_ENDINGS, Crop, Photos, different_names, fit_image, read_photo
from pano3d.types import ConfigError, DataError

POLL_SECONDS = 0.2
SCENE_VIEWS = 32
"""The scene that is written at the end shows at most so many frames, evenly spread over the capture."""
DROP_LEAST_SURE = 0.1
MARK = "stream.json"
OWN = Contents(MARK, files=("trajectory.txt", "segments.csv"), folders=("frames", STREAMED))
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where photos arrive; their order is that of arrival, then of names")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="gets stream.json, frames/NAME.npz, trajectory.txt, segments.csv, and at the end scene/, as reconstruct "
        "writes it; an earlier stream is replaced",
    )
    add_model_options(parser, default_size="tiny")  # a frame takes 66 ms on two cores, not 400
    parser.add_argument(
        "--keyframes", type=int, default=24, help="at most so many are remembered (default: %(default)s)"
    )
    parser.add_argument(
        "--idle", type=float, metavar="SECONDS", help="end when nothing arrived for so long (default: wait for Ctrl-C)"
    )


def main(args: argparse.Namespace) -> int:
    """One line per frame: pose, points, ids, latency, memory. Ctrl-C ends it with a scene; 130 then."""
    if not args.folder.is_dir():
        raise DataError(f"streaming {args.folder}: not a folder; make it first, then fill it")
    if args.keyframes < 2:
        raise ConfigError(f"--keyframes {args.keyframes}: expected 2 or more")
    if args.idle is not None and not 0 < args.idle < math.inf:
        raise ConfigError(f"--idle {args.idle:g}: expected a positive number of seconds; without it only Ctrl-C ends")
    with hold_folder(args.output, [args.folder], OWN):
        model = load_chosen_model(args)
        geometry = StreamingConfig(maximum_keyframes=args.keyframes)
        segments = StreamConfig(maximum_keyframes=args.keyframes)
        online = OnlineReconstructor(model.reconstructor, OnlineConfig(geometry, segments))
        print(f"{model.folder}: {model.remark}\nwaiting for photos in {args.folder}", flush=True)
        capture = _Capture(args.output)
        interrupted = False
        try:
            _take_all(args, online, model, capture)
        except KeyboardInterrupt:
            interrupted = True
        print(f"{capture.count} frames, {len(online.segments)} objects: {_listed(online)}", flush=True)
        if capture.shown:
            _write_scene(args, online, model, capture)
            where = f"{args.output / STREAMED}/scene.html"
            print(f"{where} shows {len(capture.shown)} of the frames in a browser; `pano3d view {args.output}` too")
    return INTERRUPTED if interrupted else 0


@dataclass(frozen=True)
class Shown:
    """A frame that is kept for the scene at the end."""

    name: str
    crop: Crop
    frame: OnlineFrame


@dataclass
class _Capture:
    """What was taken so far. count: frames. seen_in: frames by segment id. shown: every `step`-th frame."""

    output: Path
    count: int = 0
    seconds: float = 0.0
    left_out: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    seen_in: Counter[int] = field(default_factory=Counter)
    shown: list[Shown] = field(default_factory=list)
    step: int = 1

    def add(self, path: Path, crop: Crop, frame: OnlineFrame, online: OnlineReconstructor) -> None:
        """Write a frame, the objects so far, and one more line of the trajectory."""
        stem = different_names([path.stem])[0]
        name, number = stem, 2
        while name in self.names:
            name, number = f"{stem}-{number}", number + 1
        self.names.add(name)
        write_whole(self.output / "frames" / f"{name}.npz", _arrays(frame))
        with (self.output / "trajectory.txt").open("a", encoding="ascii") as file:
            file.write(trajectory_line(self.count, frame.world_from_camera))
        self.seen_in.update(set(np.unique(frame.segment_id).tolist()) - {0})
        write_whole(self.output / "segments.csv", _segments(online, self.seen_in))
        if self.count % self.step == 0:
            self.shown.append(Shown(name, crop, frame))
        if len(self.shown) > SCENE_VIEWS:
            self.shown, self.step = self.shown[::2], 2 * self.step
        self.count += 1


def _take_all(args: argparse.Namespace, online: OnlineReconstructor, model: LoadedModel, capture: _Capture) -> None:
    network = model.reconstructor
    size: tuple[int, int] | None = None
    for path in arriving(args.folder, args.idle, capture.left_out):
        started = time.perf_counter()
        try:
            image, photo = read_photo(path, max(network.image_width, network.image_height))
        except DataError as error:
            capture.left_out[path.name] = str(error)
            print(f"{path.name}: left out, {error}", flush=True)
            continue
        capture.left_out.pop(path.name, None)
        if size is None:
            size = (network.image_width, network.image_height)
            size = size if photo[0] >= photo[1] else (size[1], size[0])
        fitted, crop = fit_image(image, photo, *size)
        frame = online.step(fitted)
        if not capture.count:  # an earlier stream stays until there is something to replace it by
            clear_folder(args.output, OWN)
            _write_mark(args, model)
        capture.add(path, crop, frame, online)
        seconds = time.perf_counter() - started
        capture.seconds += seconds
        print(line(path.name, frame, online, seconds), flush=True)


def arriving(
    folder: Path, idle: float | None, left_out: Collection[str] = (), sleep: Callable[[float], object] = time.sleep
) -> Iterator[Path]:
    """Photos of a folder as they come, each once and only when it has stood still; until idle for so long.

    left_out: names of those that could not be read; each comes again when it has changed, as a photo does that was
        written so slowly that it seemed whole.
    """
    taken: dict[str, tuple[int, int]] = {}
    before: dict[str, tuple[int, int]] = {}
    last = time.monotonic()
    while idle is None or time.monotonic() - last < idle:
        now = _photos(folder, {name for name in taken if name not in left_out})
        new = {name: state for name, state in now.items() if taken.get(name) != state}
        ready = [name for name, state in new.items() if before.get(name) == state]
        before = new
        for name in sorted(ready, key=lambda each: (now[each][1], each)):
            taken[name] = now[name]
            yield folder / name
            last = time.monotonic()
        if not ready:
            sleep(POLL_SECONDS)


def _photos(folder: Path, known: Collection[str]) -> dict[str, tuple[int, int]]:
    """Size and time of change of every photo that is not known and not empty."""
    found = {}
    for path in folder.iterdir():
        if (
            path.suffix.lower() not in (*PHOTO_ENDINGS, *UNREAD_ENDINGS)
            or path.name.startswith(".")
            or path.name in known
        ):
            continue
        try:
            state = path.stat()
        except FileNotFoundError:  # renamed or removed since it was listed
            continue
        if state.st_size:
            found[path.name] = (state.st_size, state.st_mtime_ns)
    return found


def _write_scene(args: argparse.Namespace, online: OnlineReconstructor, model: LoadedModel, capture: _Capture) -> None:
    """The frames that were kept, as `pano3d reconstruct` writes a scene."""
    frames = [shown.frame for shown in capture.shown]
    scene = online.scene(frames)
    photos = Photos(
        scene.colors,
        tuple(shown.name for shown in capture.shown),
        tuple(shown.crop for shown in capture.shown),
        dict(capture.left_out),
    )
    remarks = [model.remark, f"{len(frames)} of the {capture.count} frames of a stream", *camera_remarks(frames)]
    options = {"keyframes": args.keyframes, "score": args.score, "drop_least_sure": DROP_LEAST_SURE}
    title = args.folder.resolve().name
    description = describe(model, title, "stream", photos, options, scene, Frame.own(), capture.seconds, remarks)
    folder = args.output / STREAMED
    with hold_folder(folder):
        write_result(
            folder,
            scene,
            photos,
            model.reconstructor.labels,
            DROP_LEAST_SURE,
            description,
            remarks,
            lambda _: None,
        )


def _write_mark(args: argparse.Namespace, model: LoadedModel) -> None:
    """What says of the folder, from before its first frame on, that a stream writes it."""
    content = {"input": str(args.folder), "model": str(model.folder), "keyframes": args.keyframes}
    write_whole(args.output / MARK, f"{json.dumps(content, indent=1)}\n".encode())


def _segments(online: OnlineReconstructor, seen_in: Counter[int]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", "class_id", "class", "is_thing", "frames", "score"])
    for segment in online.segments:
        numbers = [int(segment.is_thing), seen_in[segment.id], f"{segment.score:.4f}"]
        table.writerow([segment.id, segment.class_id, segment.class_name, *numbers])
    return text.getvalue().encode()


def line(name: str, frame: OnlineFrame, online: OnlineReconstructor, seconds: float) -> str:
    """What is printed of one frame."""
    ids = sorted(set(np.unique(frame.segment_id).tolist()) - {0})
    x, y, z = frame.world_from_camera[:3, 3]
    where = f"at {x:+.3f} {y:+.3f} {z:+.3f}" if frame.is_located else "not located"
    kind = "keyframe" if frame.is_keyframe else "        "
    points = int(np.isfinite(frame.points_world).all(-1).sum())
    return (
        f"{name}  {kind}  {where}  {points} points  ids {','.join(map(str, ids)) or '-'}  "
        f"{1000 * seconds:.0f} ms  memory {online.memory_bytes / 2**20:.1f} MiB"
    )


def _listed(online: OnlineReconstructor) -> str:
    return ", ".join(f"{segment.id} {segment.class_name}" for segment in online.segments) or "none"


def _arrays(frame: OnlineFrame) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        points_world=frame.points_world,
        depth=frame.depth,
        confidence=frame.confidence,
        segment_id=frame.segment_id,
        colors=frame.colors,
        world_from_camera=frame.world_from_camera,
        intrinsics=frame.intrinsics,
    )
    return buffer.getvalue()
