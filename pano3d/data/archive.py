"""The scene archive: one uncompressed ZIP per scene, the unit of caching and of parallel work.

Members: `scene.json` (see `scene_schema.SCENE_SCHEMA`), `color/<frame>.png|jpg`, `depth/<frame>.png` (uint16 mm, what a
sensor gives), `segments/<frame>.png` (uint16 segment id, 0 = void), optional `depth_exact/`, `ambiguous/`, `shadow/`,
`overlap.npy` (V V float16) and `surface.npz` (xyz, segment_id). Writing is atomic; reading trusts nothing.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.pictures import decode_picture
from pano3d.data.scene_schema import FORMAT_VERSION, MASKS, check_header
from pano3d.types import DataError

# What zipfile and its codecs raise over damage: an odd flag reads as encryption or an unknown method (RuntimeError).
_ZIP_FAULTS = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same scene gives the same bytes


@dataclass(frozen=True)
class SceneSegment:
    """class_name is None where the dataset's label space leaves the object void; source_class keeps its own name."""

    id: int
    class_name: str | None
    source_class: str
    is_thing: bool
    pixels: int = 0
    views: int = 0


@dataclass(frozen=True)
class Frame:
    """color (H W 3) uint8; depth (H W) uint16 mm, 0 missing; segment_id (H W) uint16, 0 void."""

    name: str
    color: NDArray[np.uint8]
    depth_mm: NDArray[np.uint16]
    segment_id: NDArray[np.uint16]
    intrinsics: NDArray[np.float64]
    scan_from_camera: NDArray[np.float64]
    depth_exact_mm: NDArray[np.uint16] | None = None
    ambiguous: NDArray[np.bool_] | None = None
    shadow: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Surface:
    """Evaluation points: xyz (P 3) float32 in `scan`, segment_id (P,) uint16."""

    xyz: NDArray[np.float32]
    segment_id: NDArray[np.uint16]


@dataclass(frozen=True)
class SceneContent:
    """Everything of one scene, in memory; `write_scene` fills in the segments' pixels and views."""

    name: str
    dataset: str
    label_space: str
    frames: list[Frame]
    segments: list[SceneSegment]
    surface: Surface
    overlap: NDArray[np.float16]
    license: str
    provenance: dict[str, Any] = field(default_factory=dict)
    color_format: Literal["png", "jpg"] = "png"


@dataclass(frozen=True)
class FrameMeta:
    """One frame as `scene.json` describes it; layers are the optional members it has."""

    name: str
    color: str
    width: int
    height: int
    intrinsics: NDArray[np.float64]
    scan_from_camera: NDArray[np.float64]
    layers: tuple[str, ...]


def _encode(image: NDArray[Any], extension: str) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if extension == "jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 4]
    done, buffer = cv2.imencode(f".{extension}", image, options)
    if not done:
        raise DataError(f"encoding a {image.shape} {image.dtype} image as {extension} failed")
    return buffer.tobytes()


def _frame_members(frame: Frame, color_format: str) -> Iterator[tuple[str, bytes]]:
    yield f"color/{frame.name}.{color_format}", _encode(frame.color[..., ::-1], color_format)
    yield f"depth/{frame.name}.png", _encode(frame.depth_mm.astype(np.uint16), "png")
    yield f"segments/{frame.name}.png", _encode(frame.segment_id.astype(np.uint16), "png")
    if frame.depth_exact_mm is not None:
        yield f"depth_exact/{frame.name}.png", _encode(frame.depth_exact_mm.astype(np.uint16), "png")
    for layer in MASKS:
        mask = getattr(frame, layer)
        if mask is not None:
            yield f"{layer}/{frame.name}.png", _encode(mask.astype(np.uint8) * 255, "png")


def _frame_json(frame: Frame, color_format: str) -> dict[str, Any]:
    layers = ["depth_exact"] if frame.depth_exact_mm is not None else []
    layers += [layer for layer in MASKS if getattr(frame, layer) is not None]
    return {
        "name": frame.name,
        "color": color_format,
        "width": int(frame.color.shape[1]),
        "height": int(frame.color.shape[0]),
        "intrinsics": np.asarray(frame.intrinsics, np.float64).tolist(),
        "scan_from_camera": np.asarray(frame.scan_from_camera, np.float64).tolist(),
        "layers": layers,
    }


def _counted_segments(scene: SceneContent) -> list[dict[str, Any]]:
    pixels: dict[int, int] = {}
    views: dict[int, int] = {}
    for frame in scene.frames:
        for segment, count in zip(*np.unique(frame.segment_id, return_counts=True), strict=True):
            pixels[int(segment)] = pixels.get(int(segment), 0) + int(count)
            views[int(segment)] = views.get(int(segment), 0) + 1
    unknown = sorted(set(pixels) - {segment.id for segment in scene.segments} - {0})
    if unknown:
        raise DataError(f"writing {scene.name}: pixels carry segment ids {unknown[:5]} that `segments` does not list")
    return [
        {**asdict(segment), "pixels": pixels.get(segment.id, 0), "views": views.get(segment.id, 0)}
        for segment in scene.segments
    ]


def write_scene(path: Path, scene: SceneContent) -> None:
    """Write one scene atomically: a reader sees the whole archive or none.

    Raises:
        DataError: frames disagree with segments, overlap or each other's names, or nothing to write.
    """
    path = Path(path)
    count = len(scene.frames)
    if count == 0 or scene.overlap.shape != (count, count):
        raise DataError(f"writing {scene.name}: {count} frames with an overlap matrix of shape {scene.overlap.shape}")
    header = {
        "format_version": FORMAT_VERSION,
        "name": scene.name,
        "dataset": scene.dataset,
        "label_space": scene.label_space,
        "license": scene.license,
        "provenance": scene.provenance,
        "frames": [_frame_json(frame, scene.color_format) for frame in scene.frames],
        "segments": _counted_segments(scene),
    }
    check_header(header, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            _store(archive, "scene.json", json.dumps(header, indent=1, allow_nan=False).encode())
            for frame in scene.frames:
                for name, data in _frame_members(frame, scene.color_format):
                    _store(archive, name, data)
            _store(archive, "overlap.npy", _npy(scene.overlap.astype(np.float16)))
            _store(archive, "surface.npz", _npz(scene.surface))
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"writing {path}: {error.strerror or error}; free space or choose another folder") from error
    finally:
        partial.unlink(missing_ok=True)


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _npz(surface: Surface) -> bytes:
    """An npz written by hand: numpy stamps members with the clock, and equal scenes must give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _store(archive, "xyz.npy", _npy(surface.xyz.astype(np.float32)))
        _store(archive, "segment_id.npy", _npy(surface.segment_id.astype(np.uint16)))
    return buffer.getvalue()


class SceneArchive:
    """One scene on disk. Frames are decoded when asked for; every fault names the archive and the member."""

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                infos = archive.infolist()
                self._check_stored(infos)
                raw = archive.read("scene.json")
        except FileNotFoundError:
            raise DataError(f"reading {self.path}: no such scene archive") from None
        except KeyError:
            # A cut archive may end inside surface.npz, itself a ZIP, whose directory is then taken for the whole.
            raise DataError(f"reading {self.path}: not a whole archive (no scene.json); prepare it again") from None
        except (*_ZIP_FAULTS, ValueError) as error:
            raise DataError(f"reading {self.path}: not a whole scene archive ({error}); prepare it again") from error
        self._members = {info.filename for info in infos}
        unsafe = [name for name in self._members if name.startswith(("/", "\\")) or ".." in Path(name).parts]
        if unsafe:
            raise DataError(f"reading {self.path}: member {unsafe[0]!r} leads out of the archive; refused")
        if len(self._members) != len(infos):
            raise DataError(f"reading {self.path}: a member name occurs twice")
        try:
            self._header = json.loads(raw, parse_constant=lambda text: float(text))
        except ValueError as error:
            raise DataError(f"reading {self.path}: scene.json is not JSON ({error})") from error
        check_header(self._header, str(self.path))
        self.name: str = self._header["name"]
        self.dataset: str = self._header["dataset"]
        self.label_space: str = self._header["label_space"]
        self.license: str = self._header["license"]
        self.provenance: dict[str, Any] = self._header["provenance"]
        self.frames = [self._frame_meta(frame) for frame in self._header["frames"]]
        self.segments = [
            SceneSegment(s["id"], s["class_name"], s["source_class"], bool(s["is_thing"]), s["pixels"], s["views"])
            for s in self._header["segments"]
        ]
        self._check_members()

    def _check_stored(self, infos: list[zipfile.ZipInfo]) -> None:
        """Members are kept as they are: a compressed one could unfold to any size."""
        for info in infos:
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise DataError(
                    f"reading {self.path}: member {info.filename!r} is compressed; scene archives store their members"
                )

    @staticmethod
    def _frame_meta(frame: dict[str, Any]) -> FrameMeta:
        return FrameMeta(
            name=frame["name"],
            color=frame["color"],
            width=frame["width"],
            height=frame["height"],
            intrinsics=np.array(frame["intrinsics"], np.float64),
            scan_from_camera=np.array(frame["scan_from_camera"], np.float64),
            layers=tuple(frame.get("layers", [])),
        )

    def _check_members(self) -> None:
        wanted = {"scene.json", "overlap.npy", "surface.npz"}
        for frame in self.frames:
            wanted |= {f"color/{frame.name}.{frame.color}", f"depth/{frame.name}.png", f"segments/{frame.name}.png"}
            wanted |= {f"{layer}/{frame.name}.png" for layer in frame.layers}
        missing = sorted(wanted - self._members)
        if missing:
            raise DataError(f"reading {self.path}: member {missing[0]} is missing ({len(missing)} in all)")

    def __len__(self) -> int:
        return len(self.frames)

    def _read(self, member: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(member)
        except (*_ZIP_FAULTS, KeyError, ValueError) as error:
            raise DataError(f"reading {self.path}: member {member} is damaged ({error}); prepare it again") from error

    def _image(self, member: str, frame: FrameMeta, flags: int) -> NDArray[Any]:
        image = decode_picture(self._read(member), flags)
        if image is None:
            raise DataError(f"reading {self.path}: member {member} is not an image")
        if image.shape[:2] != (frame.height, frame.width):
            raise DataError(
                f"reading {self.path}: member {member} is {image.shape[1]}x{image.shape[0]}, scene.json says "
                f"{frame.width}x{frame.height}"
            )
        return image

    def _image16(self, member: str, frame: FrameMeta) -> NDArray[np.uint16]:
        image = self._image(member, frame, cv2.IMREAD_UNCHANGED)
        if image.dtype != np.uint16 or image.ndim != 2:
            raise DataError(f"reading {self.path}: member {member}: expected one 16-bit channel, got {image.dtype}")
        return image

    def color(self, index: int) -> NDArray[np.uint8]:
        frame = self.frames[index]
        image = self._image(f"color/{frame.name}.{frame.color}", frame, cv2.IMREAD_COLOR)
        return np.ascontiguousarray(image[..., ::-1])

    def depth_mm(self, index: int) -> NDArray[np.uint16]:
        return self._image16(f"depth/{self.frames[index].name}.png", self.frames[index])

    def segment_id(self, index: int) -> NDArray[np.uint16]:
        frame = self.frames[index]
        ids = self._image16(f"segments/{frame.name}.png", frame)
        known = np.zeros(65536, bool)
        known[[0, *(segment.id for segment in self.segments)]] = True
        if not known[ids].all():
            stray = int(ids[~known[ids]][0])
            raise DataError(f"reading {self.path}: frame {frame.name} has segment id {stray}, unknown to scene.json")
        return ids

    def layer(self, name: Literal["depth_exact", "ambiguous", "shadow"], index: int) -> NDArray[Any] | None:
        """uint16 mm for `depth_exact`, bool for the masks, None where the frame has no such layer."""
        frame = self.frames[index]
        if name not in frame.layers:
            return None
        member = f"{name}/{frame.name}.png"
        if name == "depth_exact":
            return self._image16(member, frame)
        return self._image(member, frame, cv2.IMREAD_GRAYSCALE) > 127

    def frame(self, index: int) -> Frame:
        meta = self.frames[index]
        return Frame(
            name=meta.name,
            color=self.color(index),
            depth_mm=self.depth_mm(index),
            segment_id=self.segment_id(index),
            intrinsics=meta.intrinsics,
            scan_from_camera=meta.scan_from_camera,
            depth_exact_mm=self.layer("depth_exact", index),
            ambiguous=self.layer("ambiguous", index),
            shadow=self.layer("shadow", index),
        )

    @cached_property
    def overlap(self) -> NDArray[np.float16]:
        """(V V) share of the pixels of view i that view j sees."""
        matrix = self._array("overlap.npy", self._read("overlap.npy"))
        if matrix.shape != (len(self), len(self)) or matrix.dtype.kind != "f" or not np.isfinite(matrix).all():
            found = f"{matrix.dtype} {matrix.shape}"
            raise DataError(f"reading {self.path}: overlap.npy is {found} for {len(self)} frames, or not finite")
        return matrix

    @cached_property
    def surface(self) -> Surface:
        data = self._read("surface.npz")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as inner:
                self._check_stored(inner.infolist())
                arrays = [self._array("surface.npz", inner.read(name)) for name in ("xyz.npy", "segment_id.npy")]
        except (*_ZIP_FAULTS, KeyError, ValueError) as error:
            raise DataError(f"reading {self.path}: surface.npz is damaged ({error})") from error
        xyz, segment_id = arrays
        numeric = xyz.dtype.kind == "f" and segment_id.dtype.kind in "ui"
        if not numeric or xyz.ndim != 2 or xyz.shape[1] != 3 or segment_id.shape != xyz.shape[:1]:
            raise DataError(f"reading {self.path}: surface.npz holds {xyz.shape} points and {segment_id.shape} ids")
        if not np.isfinite(xyz).all():
            raise DataError(f"reading {self.path}: surface.npz has points that are not finite")
        return Surface(xyz=xyz.astype(np.float32), segment_id=segment_id.astype(np.uint16))

    def _array(self, member: str, data: bytes) -> NDArray[Any]:
        try:
            return np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"reading {self.path}: member {member} is not an array ({error})") from error


def read_scene(path: Path) -> SceneArchive:
    """Open a scene archive and check its header and members.

    Raises:
        DataError: missing, truncated, inconsistent or hostile; the message names archive and member.
    """
    return SceneArchive(path)
