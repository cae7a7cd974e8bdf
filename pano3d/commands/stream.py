"""stream: photos are reconstructed as they arrive in a folder; nothing of earlier ones but a bounded memory is kept."""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pano3d.backbones.must3r_streaming import StreamingConfig
from pano3d.commands.options import add_model_options, load_chosen_model
from pano3d.commands.result_folder import prepare_writing
from pano3d.files import write_whole
from pano3d.online import OnlineConfig, OnlineFrame, OnlineReconstructor
from pano3d.output.cameras import trajectory_line
from pano3d.panoptic.stream import StreamConfig
from pano3d.photos import PHOTO_ENDINGS, fit_image, read_photo
from pano3d.types import ConfigError, DataError

POLL_SECONDS = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where photos arrive; their order is that of arrival, then of names")
    parser.add_argument("-o", "--output", type=Path, required=True, help="gets frames/NAME.npz and trajectory.txt")
    add_model_options(parser)
    parser.add_argument(
        "--keyframes", type=int, default=24, help="at most so many are remembered (default: %(default)s)"
    )
    parser.add_argument(
        "--idle", type=float, metavar="SECONDS", help="end when nothing arrived for so long (default: wait for Ctrl-C)"
    )


def main(args: argparse.Namespace) -> int:
    """One line per frame: pose, points, ids, latency, memory."""
    if not args.folder.is_dir():
        raise DataError(f"streaming {args.folder}: not a folder; make it first, then fill it")
    if args.keyframes < 2:
        raise ConfigError(f"--keyframes {args.keyframes}: expected 2 or more")
    prepare_writing(args.output)
    model = load_chosen_model(args)
    network = model.reconstructor
    score = {} if args.score is None else {"score_threshold": args.score}
    config = OnlineConfig(
        StreamingConfig(maximum_keyframes=args.keyframes), StreamConfig(maximum_keyframes=args.keyframes, **score)
    )
    online = OnlineReconstructor(network, config)
    print(f"{model.folder}: {model.remark}\nwaiting for photos in {args.folder}", flush=True)
    size: tuple[int, int] | None = None
    trajectory: list[str] = []
    for path in arriving(args.folder, args.idle):
        started = time.perf_counter()
        try:
            image, photo = read_photo(path, max(network.image_width, network.image_height))
        except DataError as error:
            print(f"{path.name}: left out, {error}", flush=True)
            continue
        if size is None:
            size = (network.image_width, network.image_height)
            size = size if photo[0] >= photo[1] else (size[1], size[0])
        frame = online.step(fit_image(image, photo, *size)[0])
        trajectory.append(trajectory_line(len(trajectory), frame.world_from_camera))
        write_whole(args.output / "frames" / f"{path.stem}.npz", _arrays(frame))
        write_whole(args.output / "trajectory.txt", "".join(trajectory).encode())
        print(line(path.name, frame, online, time.perf_counter() - started), flush=True)
    print(f"{len(trajectory)} frames, {len(online.segments)} objects: {_listed(online)}")
    return 0


def arriving(folder: Path, idle: float | None, sleep: Callable[[float], object] = time.sleep) -> Iterator[Path]:
    """Photos of a folder as they come, each once and only when its size has stood still; until idle for so long."""
    seen: set[str] = set()
    sizes: dict[str, int] = {}
    last = time.monotonic()
    while idle is None or time.monotonic() - last < idle:
        new = [p for p in folder.iterdir() if p.suffix.lower() in PHOTO_ENDINGS and p.name not in seen]
        ready = []
        for path in new:
            size = path.stat().st_size
            if size and sizes.get(path.name) == size:
                ready.append(path)
            sizes[path.name] = size
        for path in sorted(ready, key=lambda each: (each.stat().st_mtime_ns, each.name)):
            seen.add(path.name)
            sizes.pop(path.name)
            yield path
            last = time.monotonic()
        if not ready:
            sleep(POLL_SECONDS)


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
