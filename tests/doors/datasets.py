"""Door: raw scenes as the project's readers see them, for fixtures made elsewhere. No arithmetic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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
