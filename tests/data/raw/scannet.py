"""Writes ScanNet scenes format-true: .sens, meta file, meshes, segments, aggregation, 2D ZIPs, label map."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.data.raw.building import POSES, THINGS, BuildingMesh, Patch, building, mesh_of, paint, pinhole_rays

COLOR_SIZE, DEPTH_SIZE = (160, 120), (80, 64)
K_COLOR = np.array([[118.0, 0, 79.6], [0, 117.0, 59.3], [0, 0, 1]])
K_DEPTH = np.array([[60.0, 0, 39.7], [0, 61.0, 31.2], [0, 0, 1]])
ALIGNMENT = np.array([[0.8, -0.6, 0, 1.5], [0.6, 0.8, 0, -0.25], [0, 0, 1, 0.1], [0, 0, 0, 1.0]])

LABEL_ROWS = [
    # id, raw_category, nyu40id: two raw names share id 2; the pillow is a class of the 200, not of the 20.
    (1, "wall", "1"),
    (2, "chair", "5"),
    (2, "office chair", "5"),
    (3, "floor", "2"),
    (4, "table", "7"),
    (5, "door", "8"),
    (11, "bed", "4"),
    (13, "pillow", "18"),
    (41, "ceiling", "22"),
    (1163, "object", "40"),
    (999, "thing without class", ""),
]


@dataclass
class RawScan:
    """What was written, exactly: per frame pose, colour, depth (uint16 mm) and thing (H W) at colour size."""

    folder: Path
    label_map: Path
    mesh: BuildingMesh
    poses: list[NDArray[np.float64]]
    colors: list[NDArray[np.uint8]] = field(default_factory=list)
    depths: list[NDArray[np.uint16]] = field(default_factory=list)
    things: list[NDArray[np.int64]] = field(default_factory=list)
    segment_of_patch: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    imu: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 5, 3)))

    @property
    def scene(self) -> str:
        return self.folder.name


def instance_of(thing: NDArray[np.int64]) -> NDArray[np.int64]:
    """objectId is the thing's number, so instance ids are that + 1; 0 for what nobody annotated."""
    annotated = np.array([t.label is not None for t in THINGS] + [False])
    return np.where(annotated[thing], thing + 1, 0)


def encode(image: NDArray[np.generic], suffix: str) -> bytes:
    done, data = cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 97] if suffix == ".jpg" else [])
    assert done
    return data.tobytes()


def four(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    whole = np.eye(4, dtype=np.float32)
    whole[:3, :3] = matrix
    return whole


def write_sens(
    path: Path,
    scan: RawScan,
    color_codec: int = 2,
    depth_codec: int = 1,
    version: int = 4,
    promised: int | None = None,
    extrinsic_depth: NDArray[np.float64] | None = None,
) -> None:
    """promised: the frame count that the header tells."""
    name = b"StructureSensor"
    out = io.BytesIO()
    out.write(struct.pack("<IQ", version, len(name)) + name)
    extrinsic = np.eye(4) if extrinsic_depth is None else extrinsic_depth
    for matrix in (four(K_COLOR), np.eye(4), four(K_DEPTH), extrinsic):
        out.write(np.asarray(matrix, "<f4").tobytes())
    count = len(scan.poses) if promised is None else promised
    out.write(struct.pack("<2i4IfQ", color_codec, depth_codec, *COLOR_SIZE, *DEPTH_SIZE, 1000.0, count))
    for number, (pose, color, depth) in enumerate(zip(scan.poses, scan.colors, scan.depths, strict=True)):
        bgr = np.ascontiguousarray(color[..., ::-1])
        color_bytes = encode(bgr, (".png", ".jpg")[color_codec - 1]) if color_codec else color.tobytes()
        depth_bytes = depth.astype("<u2").tobytes()
        if depth_codec == 1:
            depth_bytes = zlib.compress(depth_bytes)
        out.write(np.asarray(pose, "<f4").tobytes())
        out.write(struct.pack("<4Q", 1000 + 33 * number, 1010 + 33 * number, len(color_bytes), len(depth_bytes)))
        out.write(color_bytes + depth_bytes)
    out.write(struct.pack("<Q", len(scan.imu)))
    for number, record in enumerate(scan.imu):
        out.write(record.astype("<f8").tobytes() + struct.pack("<Q", 5000 + number))
    path.write_bytes(out.getvalue())


def write_ply(path: Path, mesh: BuildingMesh, label: NDArray[np.int64] | None = None, extra: bool = False) -> None:
    """label: NYU40 id per vertex, as in .labels.ply; extra: a property that no reader asked for."""
    fields: list[tuple[str, str]] = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if extra:
        fields.append(("quality", "<f4"))
    fields += [(name, "u1") for name in ("red", "green", "blue", "alpha")]
    if label is not None:
        fields.append(("label", "<u2"))
    rows = np.zeros(len(mesh.vertices), fields)
    for axis, name in enumerate("xyz"):
        rows[name] = mesh.vertices[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        rows[name] = mesh.colors[:, channel]
    if label is not None:
        rows["label"] = label
    faces = np.zeros(len(mesh.faces), [("n", "u1"), ("corners", "<i4", (3,))])
    faces["n"], faces["corners"] = 3, mesh.faces
    kinds = {"<f4": "float", "u1": "uchar", "<u2": "ushort"}
    header = ["ply", "format binary_little_endian 1.0", "comment made by a test", f"element vertex {len(rows)}"]
    header += [f"property {kinds[kind]} {name}" for name, kind in fields]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header\n"]
    path.write_bytes("\n".join(header).encode() + rows.tobytes() + faces.tobytes())


def write_label_map(path: Path) -> Path:
    """Columns in another order than the published file: they are to be read by name."""
    lines = ["id\tcategory\traw_category\tnyuClass\tnyu40id"]
    lines += [f"{id}\t{name}\t{name}\t{name}\t{nyu40}" for id, name, nyu40 in LABEL_ROWS]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def raw_id(label: str | None) -> int:
    return next((id for id, name, _ in LABEL_ROWS if name == label), 0)


def nyu40_id(label: str | None) -> int:
    return next((int(nyu or 40) for _, name, nyu in LABEL_ROWS if name == label), 0)


def holes(depth: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Millimetres with a hole in a corner, and nothing where no surface was met."""
    millimetres = np.where(np.isfinite(depth), np.rint(1000 * np.where(np.isfinite(depth), depth, 0)), 0)
    millimetres[:6, :8] = 0
    return millimetres.astype(np.uint16)


def write_scan(
    root: Path,
    scene: str = "scene0000_00",
    frames: int = 6,
    lost: tuple[int, ...] = (2,),
    aligned: bool = True,
    shift: float = 0.0,
    folder: str = "scans",
) -> RawScan:
    """A whole scene below `root`, and the label map beside it. lost: frames whose tracking failed."""
    place = root / folder / scene
    place.mkdir(parents=True)
    patches = building(shift)
    mesh = mesh_of(patches)
    poses = [POSES[number % len(POSES)].copy() for number in range(frames)]
    scan = RawScan(place, write_label_map(root / "scannetv2-labels.combined.tsv"), mesh, poses)
    for number in range(frames):
        color, _, things = paint(patches, poses[number], pinhole_rays(K_COLOR, *COLOR_SIZE))
        _, depth, _ = paint(patches, poses[number], pinhole_rays(K_DEPTH, *DEPTH_SIZE))
        scan.colors.append(color)
        scan.depths.append(holes(depth))
        scan.things.append(things)
    for number in lost:
        poses[number][:] = -np.inf
    scan.imu = np.arange(30.0).reshape(2, 5, 3)
    write_sens(place / f"{scene}.sens", scan)
    meta = {"colorWidth": COLOR_SIZE[0], "sceneType": "Bedroom / Hotel"}
    if aligned:
        meta["axisAlignment"] = " ".join(f"{x:.6f}" for x in ALIGNMENT.ravel())
    (place / f"{scene}.txt").write_text("".join(f"{key} = {value}\n" for key, value in meta.items()))
    write_ply(place / f"{scene}_vh_clean_2.ply", mesh)
    labels = np.array([nyu40_id(thing.label) for thing in THINGS])
    write_ply(place / f"{scene}_vh_clean_2.labels.ply", mesh, labels[mesh.thing])
    write_annotation(scan, patches)
    write_label_zips(scan)
    return scan


def write_annotation(scan: RawScan, patches: list[Patch]) -> None:
    """One segment per patch, with ids that have gaps; object ids as ints and as text."""
    scan.segment_of_patch = np.array([17 + 101 * number for number in range(len(patches))])
    segments = scan.segment_of_patch[scan.mesh.patch]
    scene = scan.scene
    content = {"sceneId": f"scannet.{scene}", "params": {}, "segIndices": segments.tolist()}
    (scan.folder / f"{scene}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(content))
    groups = []
    for number, thing in enumerate(THINGS):
        if thing.label is None:
            continue
        own = [int(s) for s, patch in zip(scan.segment_of_patch, patches, strict=True) if patch.thing == number]
        id = str(number) if number % 2 else number
        groups.append({"id": id, "objectId": id, "segments": own, "label": thing.label})
    aggregation = {"sceneId": f"scannet.{scene}", "segGroups": groups}
    (scan.folder / f"{scene}.aggregation.json").write_text(json.dumps(aggregation))


def write_label_zips(scan: RawScan) -> None:
    """The 2D annotation of every frame; all 0 where the pose is lost."""
    raw = np.array([raw_id(thing.label) for thing in THINGS] + [0])
    for kind in ("label", "instance"):
        with zipfile.ZipFile(scan.folder / f"{scan.scene}_2d-{kind}-filt.zip", "w") as archive:
            archive.writestr(f"{kind}-filt/", "")
            for number, things in enumerate(scan.things):
                image = raw[things].astype(np.uint16) if kind == "label" else instance_of(things).astype(np.uint8)
                if not np.isfinite(scan.poses[number]).all():
                    image = np.zeros_like(image)
                archive.writestr(f"{kind}-filt/{number}.png", encode(image, ".png"))


def export_text(scan: RawScan) -> None:
    """Replace the .sens file by its text export."""
    for name in ("color", "depth", "pose", "intrinsic"):
        (scan.folder / name).mkdir()
    for number, pose in enumerate(scan.poses):
        bgr = np.ascontiguousarray(scan.colors[number][..., ::-1])
        (scan.folder / f"color/{number}.jpg").write_bytes(encode(bgr, ".jpg"))
        (scan.folder / f"depth/{number}.png").write_bytes(encode(scan.depths[number], ".png"))
        rows = [" ".join(f"{x:.9g}" for x in row) for row in pose]
        (scan.folder / f"pose/{number}.txt").write_text("\n".join(rows) + "\n")
    for camera, matrix in (("color", K_COLOR), ("depth", K_DEPTH)):
        for kind, value in (("intrinsic", four(matrix)), ("extrinsic", np.eye(4))):
            np.savetxt(scan.folder / f"intrinsic/{kind}_{camera}.txt", value, fmt="%.6f")
    (scan.folder / f"{scan.scene}.sens").unlink()
