"""Writes ScanNet++ scenes format-true: fisheye DSLR, iPhone with depth.bin, COLMAP and nerfstudio cameras, objects."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow
from numpy.typing import NDArray

from pano3d.data.label_spaces import label_space
from tests.data.raw.building import (
    BED,
    PILLOW,
    POSES,
    THINGS,
    BuildingMesh,
    building,
    cast,
    mesh_of,
    paint,
    pinhole_rays,
)
from tests.data.raw.scannet import encode, write_ply

DSLR_SIZE, PHONE_SIZE, DEPTH_SIZE = (180, 120), (192, 144), (256, 192)
FISHEYE = np.array([80.0, 81.0, 90.4, 60.7, 0.03, -0.01, 0.004, -0.001])  # as COLMAP writes it: centres at halves
PHONE = np.array([150.0, 151.0, 96.3, 71.9, 0.02, -0.01, 0.001, -0.001])
PHONE_FRAMES = (4, 0)  # registered, in the file's order
CHAIR, BLANKET, DROPPED, UNKNOWN = 5, 6, 7, 4

# Raw labels: map_benchmark.csv renames one and drops another, and one is no class of the benchmark.
LABELS = {0: "floor", 1: "ceiling", 2: "wall", 3: "wall", UNKNOWN: "zzz unknown", CHAIR: "chair",
          BLANKET: "stool thing", DROPPED: "remove me", BED: "bed", PILLOW: "pillow"}  # fmt: skip


@dataclass
class RawScene:
    root: Path
    scene: str
    mesh: BuildingMesh
    poses: list[NDArray[np.float64]]
    fisheye: list[NDArray[np.uint8]] = field(default_factory=list)
    depths: dict[int, NDArray[np.uint16]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / "data" / self.scene


def centred(params: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3 3) for OpenCV, which counts pixel centres as integers."""
    return np.array([[params[0], 0, params[2] - 0.5], [0, params[1], params[3] - 0.5], [0, 0, 1]])


def fisheye_rays() -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(DSLR_SIZE[0], dtype=np.float64), np.arange(DSLR_SIZE[1], dtype=np.float64))
    points = np.stack([x, y], -1).reshape(-1, 1, 2)
    straight = cv2.fisheye.undistortPoints(points, centred(FISHEYE), FISHEYE[4:]).reshape(*x.shape, 2)
    return np.concatenate([straight, np.ones((*x.shape, 1))], axis=-1)


def phone_rays() -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(PHONE_SIZE[0], dtype=np.float64), np.arange(PHONE_SIZE[1], dtype=np.float64))
    points = np.stack([x, y], -1).reshape(-1, 1, 2)
    straight = cv2.undistortPoints(points, centred(PHONE), PHONE[4:]).reshape(*x.shape, 2)
    return np.concatenate([straight, np.ones((*x.shape, 1))], axis=-1)


def quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """w x y z, by the eigenvector of Bar-Itzhack's matrix: no code shared with the reader."""
    m = rotation
    k = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
        [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
        [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m.trace()],
    ])  # fmt: skip
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]
    return np.array([w, x, y, z])


def write_colmap(folder: Path, camera: str, rows: list[tuple[int, str, NDArray[np.float64]]]) -> None:
    """rows: image id, name, scan_from_camera, in the order of the file; every other points line is empty."""
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text(f"# Camera list\n1 {camera}\n")
    lines = ["# Image list with two lines of data per image:"]
    for number, (id, name, pose) in enumerate(rows):
        camera_from_scan = np.linalg.inv(pose)
        values = [*quaternion(camera_from_scan[:3, :3]), *camera_from_scan[:3, 3]]
        lines += [f"{id} {' '.join(f'{v:.12f}' for v in values)} 1 {name}", "" if number % 2 else "1.0 2.0 -1"]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")


def nerfstudio_matrix(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """OpenCV axes to the file's: columns y and z negated, world rows 0 and 1 swapped, row 2 negated."""
    matrix = pose.copy()
    matrix[:3, 1] *= -1
    matrix[:3, 2] *= -1
    matrix[[0, 1]] = matrix[[1, 0]]
    matrix[2] = -matrix[2]
    return matrix


def write_root(root: Path, splits: dict[str, list[str]]) -> None:
    (root / "splits").mkdir(parents=True)
    for name, scenes in splits.items():
        (root / "splits" / f"{name}.txt").write_text("".join(f"{scene}\n" for scene in scenes))
    folder = root / "metadata" / "semantic_benchmark"
    folder.mkdir(parents=True)
    space = label_space("scannetpp100")
    (folder / "top100.txt").write_text("".join(f"{name}\n" for name in space.names))
    things = [name for name, thing in zip(space.names, space.is_thing, strict=True) if thing]
    (folder / "top100_instance.txt").write_text("".join(f"{name}\n" for name in things))
    rows = ["class,count,semantic_map_to,instance_map_to", "stool thing,3,chair,chair", "remove me,9,None,None"]
    (folder / "map_benchmark.csv").write_text("\n".join([*rows, "floor,99,,", "many chairs,4,chair,None"]) + "\n")


def write_scene(root: Path, scene: str = "0a1b2c3d4e", shift: float = 0.0) -> RawScene:
    patches = building(shift)
    raw = RawScene(root, scene, mesh_of(patches), [pose.copy() for pose in POSES[:6]])
    folder = raw.folder
    for name in ("scans", "dslr/resized_images", "dslr/resized_anon_masks", "dslr/nerfstudio", "iphone/rgb"):
        (folder / name).mkdir(parents=True)
    rays = fisheye_rays()
    for number, pose in enumerate(raw.poses):
        color, _, _ = paint(patches, pose, rays)
        raw.fisheye.append(color)
        picture = encode(np.ascontiguousarray(color[..., ::-1]), ".jpg")
        (folder / f"dslr/resized_images/DSC{number:05d}.JPG").write_bytes(picture)
        mask = np.full(DSLR_SIZE[::-1], 255, np.uint8)
        if number == 1:
            mask[50:70, 80:110] = 0
        (folder / f"dslr/resized_anon_masks/DSC{number:05d}.png").write_bytes(encode(mask, ".png"))
    order = [3, 0, 5, 1, 4, 2]
    camera = f"OPENCV_FISHEYE {DSLR_SIZE[0]} {DSLR_SIZE[1]} {' '.join(map(str, FISHEYE))}"
    write_colmap(folder / "dslr/colmap", camera, [(n + 10, f"DSC{n:05d}.JPG", raw.poses[n]) for n in order])
    keys = ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4")
    frames = [
        {"file_path": f"DSC{n:05d}.JPG", "transform_matrix": nerfstudio_matrix(raw.poses[n]).tolist()} for n in range(6)
    ]
    content = dict(zip(keys, FISHEYE.tolist(), strict=True)) | {"camera_model": "OPENCV_FISHEYE", "w": 180, "h": 120}
    content |= {"frames": frames[:4], "test_frames": frames[4:]}
    (folder / "dslr/nerfstudio/transforms.json").write_text(json.dumps(content))
    write_phone(raw, patches)
    write_annotation(raw)
    return raw


def write_phone(raw: RawScene, patches: list) -> None:
    """Five video frames, two of them registered; depth of every one, LZ4."""
    for number in range(5):
        color, _, _ = paint(patches, raw.poses[number], phone_rays())
        picture = encode(np.ascontiguousarray(color[..., ::-1]), ".jpg")
        (raw.folder / f"iphone/rgb/frame_{number:06d}.jpg").write_bytes(picture)
        intrinsics = centred(PHONE)
        scale = DEPTH_SIZE[0] / PHONE_SIZE[0]
        intrinsics[:2] *= scale
        intrinsics[:2, 2] += (scale - 1) / 2
        depth, _ = cast(patches, raw.poses[number], pinhole_rays(intrinsics, *DEPTH_SIZE))
        raw.depths[number] = np.rint(1000 * np.where(np.isfinite(depth), depth, 0)).astype(np.uint16)
    write_depth(raw, "lz4")
    camera = f"OPENCV {PHONE_SIZE[0]} {PHONE_SIZE[1]} {' '.join(map(str, PHONE))}"
    rows = [(9 - n, f"video/frame_{n:06d}.jpg", raw.poses[n]) for n in PHONE_FRAMES]
    write_colmap(raw.folder / "iphone/colmap", camera, rows)


def write_depth(raw: RawScene, packing: str) -> None:
    def deflate(data: bytes) -> bytes:
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packer.compress(data) + packer.flush()

    frames = [raw.depths[number] for number in sorted(raw.depths)]
    meters = [(depth / 1000).astype("<f4").tobytes() for depth in frames]
    if packing == "stream":
        data = deflate(b"".join(meters))
    else:
        blocks = [pyarrow.compress(depth.astype("<u2").tobytes(), codec="lz4_raw", asbytes=True) for depth in frames]
        blocks = blocks if packing == "lz4" else [deflate(one) for one in meters]
        data = b"".join(struct.pack("<I", len(block)) + block for block in blocks)
    (raw.folder / "iphone/depth.bin").write_bytes(data)


def write_annotation(raw: RawScene) -> None:
    """The bed claims the pillow's vertices too; ids count from 1; the last thing is nobody's."""
    scans, mesh = raw.folder / "scans", raw.mesh
    write_ply(scans / "mesh_aligned_0.05.ply", mesh)
    (scans / "mesh_aligned_0.05_mask.txt").write_text("0\n7\n")
    (scans / "segments.json").write_text(json.dumps({"segIndices": list(range(len(mesh.vertices)))}))
    groups = []
    for thing, label in LABELS.items():
        own = mesh.thing == thing
        if thing == BED:
            own |= mesh.thing == PILLOW
        groups.append(
            {"id": thing + 1, "objectId": thing + 1, "label": label, "segments": np.flatnonzero(own).tolist()}
        )
    (scans / "segments_anno.json").write_text(json.dumps({"segGroups": groups}))


def object_of(thing: NDArray[np.int64]) -> NDArray[np.int64]:
    known = np.array([number in LABELS for number in range(len(THINGS))] + [False])
    return np.where(known[thing], thing + 1, 0)
