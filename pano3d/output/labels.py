"""A `PanopticScene` in the formats other tools read: COCO panoptic, the ScanNet benchmark, PLY.

Every writer makes the folders it needs and replaces what is there; a file appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from pano3d.files import write_whole
from pano3d.panoptic.lifting import LabelledPoints, LabelledVertices
from pano3d.types import DataError, PanopticScene


def write_coco_panoptic(scene: PanopticScene, folder: Path, names: Sequence[str] | None = None) -> Path:
    """`panoptic.json` and `panoptic/<name>.png`, ids R + 256 G + 65536 B; ids are consistent over the views.
    Its images are `<name>.jpg`, which the caller writes.

    names: of the views, without ending; their numbers otherwise.

    Returns:
        path of the JSON file.
    """
    names = [f"{view:06d}" for view in range(len(scene.segment_id))] if names is None else list(names)
    if len(names) != len(scene.segment_id) or len(set(names)) != len(names):
        raise DataError(f"writing COCO panoptic: expected {len(scene.segment_id)} different view names, got {names}")
    height, width = scene.segment_id.shape[1:]
    images, annotations = [], []
    for view, name in enumerate(names):
        ids = scene.segment_id[view]
        write_whole(folder / "panoptic" / f"{name}.png", _png(_id_colors(ids)))
        images.append({"id": view, "file_name": f"{name}.jpg", "width": width, "height": height})
        segments = [_coco_segment(ids, segment.id, segment.class_id) for segment in scene.segments]
        annotations.append(
            {
                "image_id": view,
                "file_name": f"{name}.png",
                "segments_info": [segment for segment in segments if segment["area"]],
            }
        )
    is_thing = {segment.class_id: segment.is_thing for segment in scene.segments}
    categories = [
        {"id": class_id, "name": name, "isthing": int(is_thing[class_id])}
        for class_id, name in enumerate(scene.class_names)
        if class_id in is_thing
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "panoptic.json"
    write_whole(path, json.dumps(content, indent=1).encode())
    return path


def write_scannet_benchmark(
    scene: PanopticScene, vertices: LabelledVertices, class_ids: Sequence[int], folder: Path, name: str
) -> None:
    """What the ScanNet evaluation server takes, for one scan.

    `semantic/<name>.txt` holds a label id per vertex (0 = none); `instance/<name>.txt` one line per thing: mask file,
    label id, score; masks in `instance/predicted_masks/`.

    Args:
        vertices: labels of the scan's mesh vertices, from `lift_vertices`.
        class_ids: the benchmark's label id of each of our classes.
    """
    if len(class_ids) != len(scene.class_names):
        raise DataError(
            f"writing {name} for the ScanNet benchmark: expected a label id for each of the {len(scene.class_names)} "
            f"classes, got {len(class_ids)}"
        )
    labels = np.append(np.asarray(class_ids, np.int64), 0)[vertices.class_id]  # VOID = -1 is the last: 0
    write_whole(folder / "semantic" / f"{name}.txt", _lines(labels))
    rows: list[str] = []
    for segment in scene.segments:
        mask = vertices.segment_id == segment.id
        if segment.is_thing and mask.any():
            relative = f"predicted_masks/{name}_{len(rows):03d}.txt"
            write_whole(folder / "instance" / relative, _lines(mask.astype(np.int64)))
            rows.append(f"{relative} {class_ids[segment.class_id]} {segment.score:.6f}")
    write_whole(folder / "instance" / f"{name}.txt", "".join(f"{row}\n" for row in rows).encode())


def write_ply(points: LabelledPoints, path: Path) -> None:
    """Binary PLY: position, colour, class (-1 none), segment (0 none), geometry confidence and label score."""
    columns = [
        ("x", "<f4", "float", points.points_world[:, 0]),
        ("y", "<f4", "float", points.points_world[:, 1]),
        ("z", "<f4", "float", points.points_world[:, 2]),
        ("red", "u1", "uchar", points.colors[:, 0]),
        ("green", "u1", "uchar", points.colors[:, 1]),
        ("blue", "u1", "uchar", points.colors[:, 2]),
        ("class_id", "<i4", "int", points.class_id),
        ("segment_id", "<i4", "int", points.segment_id),
        ("confidence", "<f4", "float", points.confidence),
        ("score", "<f4", "float", points.score),
    ]
    table = np.zeros(len(points.points_world), dtype=[(name, kind) for name, kind, _, _ in columns])
    for name, _, _, values in columns:
        table[name] = values
    properties = "".join(f"property {ply_type} {name}\n" for name, _, ply_type, _ in columns)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n{properties}end_header\n"
    write_whole(path, header.encode() + table.tobytes())


def _coco_segment(ids: Int[np.ndarray, "h w"], segment_id: int, class_id: int) -> dict[str, object]:
    rows, columns = np.nonzero(ids == segment_id)
    box = [0, 0, 0, 0]
    if len(rows):
        x, y = int(columns.min()), int(rows.min())
        box = [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1]
    return {"id": segment_id, "category_id": class_id, "area": len(rows), "bbox": box, "iscrowd": 0}


def _id_colors(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def _png(image: NDArray[np.uint8]) -> bytes:
    import cv2

    fine, encoded = cv2.imencode(".png", image[..., ::-1])
    if not fine:
        raise DataError(f"writing COCO panoptic: an image of shape {image.shape} cannot be stored as PNG")
    return bytes(encoded)


def _lines(values: NDArray[np.int64]) -> bytes:
    return "".join(f"{value}\n" for value in values.tolist()).encode()
