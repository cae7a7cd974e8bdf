"""A `.sens` recording to archive resolution: as `prepare` reads it, beside a plain reader that decodes all of it whole.

    python -m benchmarks.sens_decoding [--frames 48] [--max-side 640] [--repeats 3]

Two made-up recordings of ScanNet's sizes: 1296x968 JPEG pictures and 640x480 zlib depth. Ours reads them side by side
in two processes, JPEGs decoded at the fraction of their size that suffices; the plain reader takes one after the other,
every picture at full size, and resizes. Both end with colour and depth at the archive's size. They take turns, the best
of each counts. Elapsed time needs two quiet cores; the ratio of processor seconds does not. Ours should be 3 times as
fast.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
import time
import zlib
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import ON_CPU, Case, Work, require
from pano3d.data.frame_selection import FrameSelection
from pano3d.data.scan_scenes import ViewOptions
from pano3d.data.scannet.scene import ArchiveCamera
from pano3d.data.scannet.sens import SensFile

COLOR, DEPTH = (1296, 968), (640, 480)
MAX_SIDE, RECORDINGS = 640, 2
WANTED = 3.0

# Of the last frame: colour (H W 3), depth (H W) in metres.
Frame = tuple[NDArray[np.uint8], NDArray[np.float64]]


@dataclass(frozen=True)
class Speed:
    """Seconds for both recordings. elapsed: on the clock; busy: of the processors."""

    elapsed: float
    busy: float


def cases(full: bool) -> list[Case]:
    frames = 48 if full else 16
    case = partial(Case, unit="frame", devices=ON_CPU, counts=False, has_memory=False)
    return [case(f"decoding .sens to {MAX_SIDE} pixels", partial(prepare, frames))]


def prepare(frames: int, device: str) -> Work:
    """Two recordings at a time by two processes, against one after the other."""
    folder = tempfile.TemporaryDirectory()
    executor = ProcessPoolExecutor(RECORDINGS, mp_context=get_context("forkserver"))
    paths = _write_recordings(Path(folder.name), frames)

    def ours() -> list[Frame]:
        assert folder  # lives as long as what reads it
        return [last for _, last in executor.map(read_ours, paths, [MAX_SIDE] * len(paths))]

    def plain() -> list[Frame]:
        return [read_plainly(path, MAX_SIDE)[1] for path in paths]

    return Work(ours, _check, plain, units=RECORDINGS * frames)


def _check(ours: list[Frame], plain: list[Frame]) -> None:
    """Decoded at a fraction of its size a picture differs by the noise that was in it; depth is the same samples."""
    for (color, depth), (plain_color, plain_depth) in zip(ours, plain, strict=True):
        require(color.shape == plain_color.shape, f"ours is {color.shape}, the plain reader's {plain_color.shape}")
        apart = float(np.abs(color.astype(np.int16) - plain_color).mean())
        require(apart < 5, f"colours are {apart:.1f} grey levels apart; expected below 5")
        nearest = float(np.median(np.abs(depth - plain_depth)))
        require(nearest < 0.02, f"depths are {nearest:.3f} m apart; expected below 0.02")


def _write_recordings(folder: Path, frames: int) -> list[Path]:
    paths = [folder / f"{number}.sens" for number in range(RECORDINGS)]
    for number, path in enumerate(paths):
        write_recording(path, frames, number)
    return paths


def write_recording(path: Path, frames: int, seed: int) -> None:
    """Pictures with the detail of photographs, smooth depth with sensor noise."""
    generator = np.random.default_rng(seed)
    color, depth = np.diag([1170.0, 1170, 1, 1]), np.diag([577.0, 577, 1, 1])
    color[:2, 2], depth[:2, 2] = (647.75, 483.75), (319.5, 239.5)
    y, x = np.mgrid[0 : DEPTH[1], 0 : DEPTH[0]]
    with open(path, "wb") as file:
        name = b"StructureSensor"
        file.write(struct.pack("<IQ", 4, len(name)) + name)
        for matrix in (color, np.eye(4), depth, np.eye(4)):
            file.write(matrix.astype("<f4").tobytes())
        file.write(struct.pack("<2i4IfQ", 2, 1, *COLOR, *DEPTH, 1000.0, frames))
        for number in range(frames):
            coarse = generator.integers(0, 256, (61, 81, 3), dtype=np.uint8)
            picture = cv2.resize(coarse, COLOR, interpolation=cv2.INTER_CUBIC).astype(np.float32)
            picture += generator.normal(0, 4, picture.shape).astype(np.float32)
            _, jpeg = cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
            meters = 2.0 + np.sin(x / 90 + number) * 0.4 + y / 400 + generator.normal(0, 0.003, x.shape)
            packed = zlib.compress((1000 * meters).astype("<u2").tobytes())
            file.write(np.eye(4, dtype="<f4").tobytes())
            file.write(struct.pack("<4Q", 33 * number, 33 * number, len(jpeg), len(packed)))
            file.write(jpeg.tobytes() + packed)
        file.write(struct.pack("<Q", 0))


def read_ours(path: Path, max_side: int) -> tuple[float, Frame]:
    """Processor seconds, and the last frame."""
    cv2.setNumThreads(1)
    start = time.process_time()
    views = ViewOptions(FrameSelection("every", 1, 1), max_side, "sensor", 0.05, 50, True)
    camera = ArchiveCamera(SensFile(path), views)
    for number in range(len(camera.frames)):
        frame = camera.color(number), camera.depth(number)
    return time.process_time() - start, frame


def read_plainly(path: Path, max_side: int) -> tuple[float, Frame]:
    """The file from its start to its end, each frame decoded whole, then resized."""
    cv2.setNumThreads(1)
    start = time.process_time()
    scale = max_side / max(COLOR)
    size = (round(COLOR[0] * scale), round(COLOR[1] * scale))
    with open(path, "rb") as file:
        (length,) = struct.unpack("<4xQ", file.read(12))
        file.seek(length + 256 + 8 + 16 + 4, 1)
        for _ in range(*struct.unpack("<Q", file.read(8))):
            file.seek(64, 1)
            color_bytes, depth_bytes = struct.unpack("<16x2Q", file.read(32))
            picture = cv2.imdecode(np.frombuffer(file.read(color_bytes), np.uint8), cv2.IMREAD_COLOR)
            rgb = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
            depth = np.frombuffer(zlib.decompress(file.read(depth_bytes)), "<u2").reshape(DEPTH[::-1])
            meters = cv2.resize(depth / 1000.0, size, interpolation=cv2.INTER_NEAREST)
    return time.process_time() - start, (rgb.astype(np.uint8), meters)


def measure(paths: list[Path], max_side: int, executor: Executor) -> tuple[Speed, Speed]:
    """(ours on two processes, plain on one), one after the other."""
    start = time.perf_counter()
    ours = list(executor.map(read_ours, paths, [max_side] * len(paths)))
    middle = time.perf_counter()
    plain = [read_plainly(path, max_side) for path in paths]
    end = time.perf_counter()
    return (
        Speed(middle - start, sum(busy for busy, _ in ours)),
        Speed(end - middle, sum(busy for busy, _ in plain)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=48, help="of each of the two recordings")
    parser.add_argument("--max-side", type=int, default=MAX_SIDE)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(RECORDINGS, mp_context=get_context("forkserver")) as executor,
    ):
        paths = _write_recordings(Path(folder), chosen.frames)
        measure(paths, chosen.max_side, executor)  # imports and page cache
        rounds = [measure(paths, chosen.max_side, executor) for _ in range(chosen.repeats)]
    ours, plain = (
        Speed(min(one[side].elapsed for one in rounds), min(one[side].busy for one in rounds)) for side in (0, 1)
    )
    frames = RECORDINGS * chosen.frames
    print(f"{frames} frames of {RECORDINGS} recordings to {chosen.max_side} pixels")
    print(f"ours   {frames / ours.elapsed:6.1f} frames/s on two cores  {1000 * ours.busy / frames:5.1f} CPU ms a frame")
    print(
        f"plain  {frames / plain.elapsed:6.1f} frames/s on one core   {1000 * plain.busy / frames:5.1f} CPU ms a frame"
    )
    cheaper = plain.busy / ours.busy
    print(
        f"{plain.elapsed / ours.elapsed:.1f} times as fast on the clock; {cheaper:.2f} times less processor time, "
        f"which two quiet cores make {2 * cheaper:.1f} (wanted {WANTED:.0f})"
    )


if __name__ == "__main__":
    main()
