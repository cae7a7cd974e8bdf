"""compare: two results, or two models on the same input, side by side: pictures and numbers."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pano3d.commands.inputs import read_input
from pano3d.commands.loading import load_model
from pano3d.commands.options import add_model_options, scene_config
from pano3d.commands.result_folder import DESCRIPTION, prepare_writing, read_result
from pano3d.data.label_spaces import label_space
from pano3d.files import write_whole
from pano3d.metrics.cameras import pair_errors
from pano3d.palette import segment_colors
from pano3d.types import ConfigError, DataError, PanopticScene
from pano3d.viz.colors import class_colors, scale_colors
from pano3d.viz.contact_sheet import contact_sheet, encode_png, named_like

SHEET_VIEWS = 8


@dataclass(frozen=True)
class Side:
    """One of the two. title: as given. label_space: its name."""

    title: str
    scene: PanopticScene
    names: tuple[str, ...]
    label_space: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", help="a folder of `pano3d reconstruct`, or a model")
    parser.add_argument("second", help="another; both are compared view by view, by name")
    parser.add_argument("--input", type=Path, nargs="+", help="what models reconstruct: photos, a video or an archive")
    parser.add_argument("--views", type=int, default=16, help="at most so many, evenly spread (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="gets compare.png and compare.json")
    add_model_options(parser, model_is_option=False)


def main(args: argparse.Namespace) -> int:
    """Print the numbers; write them and the pictures."""
    if args.views < 1:
        raise ConfigError(f"--views {args.views}: expected 1 or more")
    prepare_writing(args.output)
    first, second = same_views(_side(args.first, args), _side(args.second, args))
    numbers = compare_scenes(first.scene, second.scene)
    if first.label_space != second.label_space:
        numbers["same_class"] = None
    for name, value in numbers.items():
        print(f"{name:28} {'-' if value is None else f'{value:.4g}'}")
    write_whole(args.output / "compare.png", picture(first, second))
    content = {"first": first.title, "second": second.title, "views": list(first.names), "numbers": numbers}
    write_whole(args.output / "compare.json", f"{json.dumps(content, indent=1, allow_nan=False)}\n".encode())
    print(f"{args.output}/compare.png shows {min(len(first.names), SHEET_VIEWS)} of {len(first.names)} views")
    return 0


def _side(given: str, args: argparse.Namespace) -> Side:
    folder = Path(given)
    if (folder / DESCRIPTION).is_file():
        result = read_result(folder)
        return Side(given, result.scene, tuple(result.names), result.label_space)
    if not args.input:
        raise DataError(f"comparing: {given} is no result of `pano3d reconstruct`; a model needs --input as well")
    model = load_model(given, args.device, None, scene_config(args), args.precision).reconstructor
    photos = read_input(args.input, model.image_width, model.image_height, args.views, lambda: None).photos
    return Side(given, model.reconstruct(photos.colors), photos.names, model.labels.name)


def same_views(first: Side, second: Side) -> tuple[Side, Side]:
    """Both with the views they share, in the first one's order, at the first one's size.

    Raises:
        DataError: they share none.
    """
    shared = [name for name in first.names if name in second.names]
    if not shared:
        raise DataError(
            f"comparing: no view of {first.title} ({', '.join(first.names[:3])} ...) is one of {second.title} "
            f"({', '.join(second.names[:3])} ...); compare results of the same input"
        )
    size = first.scene.depth.shape[1:]
    return _with_views(first, shared, size), _with_views(second, shared, size)


def _with_views(side: Side, names: list[str], size: tuple[int, ...]) -> Side:
    """Some views, brought to another size by taking the nearest pixel."""
    scene, views = side.scene, [side.names.index(name) for name in names]
    height, width = scene.depth.shape[1:]
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    pick = np.ix_(views, rows, columns)
    chosen = replace(
        scene,
        **{
            name: getattr(scene, name)[pick]
            for name in ("points_world", "depth", "confidence", "segment_id", "class_id", "segment_score", "colors")
        },
        world_from_camera=scene.world_from_camera[views],
        intrinsics=scene.intrinsics[views],
    )
    return replace(side, scene=chosen, names=tuple(names))


def compare_scenes(first: PanopticScene, second: PanopticScene) -> dict[str, float | None]:
    """How alike two scenes over the same views are; neither is the truth. None where it does not apply.

    Shares are of the pixels that both label. depth_difference: median of |s b - a| / a after one scale s, the median
    ratio. rotation_difference_deg: median over pairs of views of the angle between their relative rotations.
    """
    both = (first.segment_id > 0) & (second.segment_id > 0)
    seen = (first.depth > 0) & (second.depth > 0) & np.isfinite(first.depth) & np.isfinite(second.depth)
    a, b = first.depth[seen].astype(np.float64), second.depth[seen].astype(np.float64)
    depth = float(np.median(np.abs(np.median(a / b) * b - a) / a)) if a.size else math.nan
    rotation = math.nan
    if len(first.depth) > 1:
        errors = pair_errors(second.world_from_camera, first.world_from_camera)
        rotation = float(np.median(errors.rotation_deg))
    same_segment = named_like(second.segment_id, first.segment_id) == first.segment_id
    numbers = {
        "objects_first": float(len(np.unique(first.segment_id[first.segment_id > 0]))),
        "objects_second": float(len(np.unique(second.segment_id[second.segment_id > 0]))),
        "labelled_first": float((first.segment_id > 0).mean()),
        "labelled_second": float((second.segment_id > 0).mean()),
        "labelled_both": float(both.mean()),
        "same_class": float((first.class_id == second.class_id)[both].mean()) if both.any() else math.nan,
        "same_segment": float(same_segment[both].mean()) if both.any() else math.nan,
        "depth_difference": depth,
        "rotation_difference_deg": rotation,
    }
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def picture(first: Side, second: Side) -> bytes:
    """Contact sheet: image, then segments, classes and confidence rank of both; one row per view. PNG."""
    chosen = np.unique(np.linspace(0, len(first.names) - 1, SHEET_VIEWS).round().astype(int))
    a, b = first.scene, second.scene
    named = named_like(b.segment_id, a.segment_id)
    columns = [
        ("image", a.colors[chosen]),
        ("segments, first", segment_colors(a.segment_id[chosen])),
        ("segments, second", segment_colors(named[chosen])),
        ("classes, first", class_colors(a.class_id[chosen], label_space(first.label_space).palette)),
        ("classes, second", class_colors(b.class_id[chosen], label_space(second.label_space).palette)),
        ("confidence, first", scale_colors(_rank(a.confidence)[chosen])),
        ("confidence, second", scale_colors(_rank(b.confidence)[chosen])),
    ]
    return encode_png(contact_sheet(columns))


def _rank(values: NDArray[np.float32]) -> NDArray[np.float64]:
    ranks = rankdata(values).reshape(values.shape)
    return np.asarray((ranks - 1) / max(values.size - 1, 1))
