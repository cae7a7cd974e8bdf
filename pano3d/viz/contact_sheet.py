"""Contact sheets: one row per view, one captioned column per kind of picture, as one image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.palette import segment_colors
from pano3d.types import DataError
from pano3d.viz.colors import class_colors, depth_colors, scale_colors

Image = NDArray[np.uint8]
_GAP, _HEADER, _INK, _PAPER = 4, 22, (50, 50, 56), 255


def contact_sheet(columns: Sequence[tuple[str, Image]], tile_width: int = 200) -> Image:
    """Lay out columns of V pictures (V, H, W, 3), each under its caption; tiles are resized to `tile_width`.

    Raises:
        DataError: there is no picture, or the columns differ in number or shape of pictures.
    """
    shapes = {images.shape for _, images in columns}
    if len(shapes) != 1 or 0 in next(iter(shapes)) or len(next(iter(shapes))) != 4:
        raise DataError(f"drawing a contact sheet: expected columns of one shape (V, H, W, 3), got {sorted(shapes)}")
    views, height, width, _ = next(iter(shapes))
    tile_height = max(round(tile_width * height / width), 1)
    sheet = np.full(
        (_HEADER + views * (tile_height + _GAP), len(columns) * (tile_width + _GAP) - _GAP, 3), _PAPER, np.uint8
    )
    for column, (caption, images) in enumerate(columns):
        left = column * (tile_width + _GAP)
        cv2.putText(sheet, caption, (left + 2, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
        for view, image in enumerate(images):
            top = _HEADER + view * (tile_height + _GAP)
            shrinks = width > tile_width
            tile = cv2.resize(
                image, (tile_width, tile_height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
            )
            sheet[top : top + tile_height, left : left + tile_width] = tile
    return sheet


def prediction_columns(
    colors: Image,
    pred_segment: NDArray[np.integer],
    true_segment: NDArray[np.integer],
    pred_class: NDArray[np.integer],
    true_class: NDArray[np.integer],
    confidence_rank: NDArray[np.floating],
    palette: Sequence[tuple[int, int, int]],
) -> list[tuple[str, Image]]:
    """RGB, predicted and true segments, predicted and true classes, confidence rank; all (V, H, W[, 3]).

    A predicted segment takes the colour of the true one it overlaps most, so that agreement is seen at a glance.
    """
    return [
        ("image", colors),
        ("segments, predicted", segment_colors(named_like(pred_segment, true_segment))),
        ("segments, true", segment_colors(true_segment)),
        ("classes, predicted", class_colors(pred_class, palette)),
        ("classes, true", class_colors(true_class, palette)),
        ("confidence rank", scale_colors(confidence_rank)),
    ]


def named_like(pred: NDArray[np.integer], true: NDArray[np.integer]) -> NDArray[np.int64]:
    """Predicted ids renamed to the true id each overlaps most; a true id is given once, others get unused ids."""
    pairs, count = np.unique(np.stack([pred.ravel(), true.ravel()]).astype(np.int64), axis=1, return_counts=True)
    name: dict[int, int] = {0: 0}
    taken = {0}
    for position in np.argsort(-count, kind="stable"):
        source, target = (int(value) for value in pairs[:, position])
        if source not in name and target not in taken:
            name[source] = target
            taken.add(target)
    unused = int(true.max(initial=0)) + 1
    for source in np.unique(pred).tolist():
        if source not in name:
            name[source], unused = unused, unused + 1
    distinct, index = np.unique(pred, return_inverse=True)
    return np.array([name[int(i)] for i in distinct], np.int64)[index].reshape(pred.shape)


def dataset_columns(
    colors: Image,
    depth: NDArray[np.floating],
    segment_id: NDArray[np.integer],
    class_id: NDArray[np.integer],
    ambiguous: NDArray[np.bool_] | None,
    palette: Sequence[tuple[int, int, int]],
) -> list[tuple[str, Image]]:
    """RGB, depth (one scale over all views), segments, classes and, where known, ambiguous pixels in magenta."""
    known = depth[depth > 0]
    near, far = np.percentile(known, [1, 99]) if known.size else (0.0, 1.0)
    columns = [
        ("image", colors),
        ("depth", depth_colors(depth, float(near), float(far))),
        ("segments", segment_colors(segment_id)),
        ("classes", class_colors(class_id, palette)),
    ]
    if ambiguous is not None:
        marked = np.where(ambiguous[..., None], np.array([255, 0, 200], np.uint8), colors // 2)
        columns.append(("ambiguous", marked.astype(np.uint8)))
    return columns


def encode_png(image: Image) -> bytes:
    """RGB (H, W, 3) as PNG; the same image gives the same bytes."""
    return _encode(image, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 9])


def encode_jpeg(image: Image, quality: int = 85) -> bytes:
    """RGB (H, W, 3) as JPEG."""
    return _encode(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(image: Image, kind: str, options: list[int]) -> bytes:
    done, data = cv2.imencode(kind, np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise DataError(f"encoding a picture of shape {image.shape} as {kind} failed")
    return bytes(data)
