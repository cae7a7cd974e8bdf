"""Door: raw scenes as the project's readers see them, for fixtures made elsewhere. No arithmetic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pano3d.data.meshes import read_ply
from pano3d.data.scannet.exported import ExportedFrames
from pano3d.data.scannet.label_map import read_label_map
from pano3d.data.scannet.scan import (
    ScanFolder,
    axis_alignment,
    label_images,
    open_frames,
    read_annotation,
    read_mesh,
    transform,
    usable_frames,
)
from pano3d.data.scannetpp.annotation import (
    read_class_table,
    read_ignored_vertices,
    read_mesh_annotation,
    vertex_classes,
    vertex_objects,
)
from pano3d.data.scannetpp.iphone_depth import read_depth
from pano3d.data.scannetpp.scene import SceneFolder, read_mask, read_picture, video_number
from pano3d.data.scannetpp.undistortion import Undistortion


def scannet(scene_dir: str | Path, label_map: str | Path) -> dict[str, Any]:
    """Everything of one ScanNet scene. Per-frame entries cover all N frames; `usable_frames` are those with a pose.

    Annotation entries are None for scenes without annotation files (the test split), `label` and `instance` without
    the ZIPs, `imu` and the times without the `.sens` file.
    """
    scan = ScanFolder(Path(scene_dir))
    frames = open_frames(scan)
    mesh = read_mesh(scan)
    alignment = axis_alignment(scan.file(".txt"))
    header = frames.header
    count = len(frames)
    out: dict[str, Any] = {
        "vertices": mesh.vertices,
        "vertices_aligned": transform(alignment, mesh.vertices),
        "faces": mesh.faces,
        "colors": mesh.colors,
        "axis_alignment": alignment,
        "intrinsic_color": header.intrinsic_color,
        "intrinsic_depth": header.intrinsic_depth,
        "poses": frames.poses,
        "usable_frames": usable_frames(frames.poses),
        "color": np.stack([frames.color(frame) for frame in range(count)]),
        "depth": np.stack([frames.depth(frame) for frame in range(count)]),
    }
    annotation = read_annotation(scan, mesh, read_label_map(Path(label_map))) if scan.has_annotation else None
    for name in ("segments", "instance_id", "raw_id", "nyu40_id"):
        out[name] = None if annotation is None else getattr(annotation, name)
    for kind in ("label", "instance"):
        images = label_images(scan, kind, header.color_size)
        out[kind] = None if images is None else np.stack([images.read(frame) for frame in range(count)])
    is_exported = isinstance(frames, ExportedFrames)
    out["imu"], out["imu_t"] = (None, None) if is_exported else frames.imu()
    out["t_color"], out["t_depth"] = (None, None) if is_exported else (frames.t_color, frames.t_depth)
    return out


def scannetpp(root: str | Path, scene: str) -> dict[str, Any]:
    """Everything of one ScanNet++ scene.

    Images in order of their COLMAP id, iPhone entries for the registered frames only; sizes are (width, height);
    principal points have pixel centres at integers (0.5 less than COLMAP's). `vertex_class` is -100 and `vertex_object`
    0 where there is none. Entries of a device or annotation that was not downloaded are None.
    """
    place = SceneFolder(Path(root) / "data" / scene)
    mesh = read_ply(place.mesh)
    out: dict[str, Any] = {
        "vertices": mesh.vertices,
        "faces": mesh.faces,
        "colors": mesh.colors,
        "ignored_vertices": read_ignored_vertices(place.ignored, len(mesh.vertices)),
        **dict.fromkeys(("group_ids", "group_labels", "vertex_class", "vertex_object")),
        **dict.fromkeys(
            f"dslr_{key}" for key in ("names", "c2w", "params", "size", "mask", "undist_K", "undist_images")
        ),
        **dict.fromkeys(f"iphone_{key}" for key in ("names", "colmap_names", "c2w", "K", "depth_mm")),
    }
    if place.has_annotation:
        annotation = read_mesh_annotation(place.folder / "scans", len(mesh.vertices))
        out["group_ids"] = [one.id for one in annotation.objects]
        out["group_labels"] = [one.label for one in annotation.objects]
        out["vertex_class"] = vertex_classes(annotation, read_class_table(Path(root) / "metadata"))
        out["vertex_object"] = vertex_objects(annotation)
    if (place.folder / "dslr").is_dir():
        out |= _dslr(place)
    if (place.folder / "iphone").is_dir():
        out |= _iphone(place)
    return out


def _dslr(place: SceneFolder) -> dict[str, Any]:
    images = place.posed_images("dslr")
    camera = images[0].camera
    undistortion = Undistortion(camera)
    pictures = [read_picture(place.picture("dslr", image.name), image.camera.size) for image in images]
    return {
        "dslr_names": [image.name for image in images],
        "dslr_c2w": np.stack([image.scan_from_camera for image in images]),
        "dslr_params": camera.params,
        "dslr_size": camera.size,
        "dslr_mask": np.stack([read_mask(place.mask("dslr", image.name), image.camera.size) for image in images]),
        "dslr_undist_K": undistortion.intrinsics,
        "dslr_undist_images": np.stack([undistortion.image(picture) for picture in pictures]),
    }


def _iphone(place: SceneFolder) -> dict[str, Any]:
    images = place.posed_images("iphone")
    numbers = [video_number(image.name) for image in images]
    path = place.folder / "iphone" / "depth.bin"
    depth = read_depth(path, numbers) if path.exists() else None
    return {
        "iphone_names": [image.name for image in images],
        "iphone_colmap_names": [image.listed_name for image in images],
        "iphone_c2w": np.stack([image.scan_from_camera for image in images]),
        "iphone_K": images[0].camera.intrinsics,
        "iphone_depth_mm": None if depth is None else np.stack([depth[number] for number in numbers]),
    }
