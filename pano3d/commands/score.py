"""score: the metrics of the stage `evaluate`, or of published protocols, of any model on any scene archives."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pano3d import config
from pano3d.commands.loading import MODEL_HELP, find_model
from pano3d.commands.result_folder import prepare_writing
from pano3d.data.archive import SceneContent, read_scene, write_scene
from pano3d.data.augmentation import flatten_segments, recolor_segments
from pano3d.data.label_spaces import LabelSpace, label_space
from pano3d.data.patterns import pattern_segments
from pano3d.evaluation import EvaluationConfig, evaluate_scenes, rounded_metrics, score_protocols
from pano3d.files import write_whole
from pano3d.metrics.protocols.catalogue import ProtocolConfig, ProtocolScores
from pano3d.metrics.scene_scores import (
    DECISIONS,
    GEOMETRY_METRICS,
    PANOPTIC_METRICS,
    SceneScores,
    aggregate_scenes,
    plain_scene,
)
from pano3d.model_files import read_description
from pano3d.types import ConfigError, DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("scenes", type=Path, nargs="+", metavar="SCENE.zip", help="scene archives, or folders of them")
    parser.add_argument("-o", "--output", type=Path, help="metrics.json to write: totals and every scene")
    parser.add_argument(
        "--protocol",
        action="append",
        default=[],
        metavar="NAME",
        help="instead of evaluate's metrics those of a published protocol: a name in params/protocol/, or a file like "
        "those; may be repeated",
    )
    parser.add_argument("--views", type=int, default=8, help="frames per scene, evenly spread (default: %(default)s)")
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="instead of evenly spread frames a set in which every frame shares this part of its pixels with one "
        "before it, as training draws them (default: spread)",
    )
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 = one per core (default: %(default)s)")
    parser.add_argument(
        "--recolor",
        action="store_true",
        help="first give every segment of every scene a colour of its own, as augmentation.recolor does in training: "
        "what is left of the scores was not learnt from colours",
    )
    parser.add_argument(
        "--flatten",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="first take this share of texture and shading, from 0 to 1, from every segment, as augmentation.flatten "
        "does in training; 1 leaves one colour on each (default: %(default)s)",
    )
    parser.add_argument(
        "--pattern",
        action="store_true",
        help="first cover half of the segments of every scene by a pattern each, as augmentation.pattern does in "
        "training",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the intervals' resampling, --recolor and --pattern (default: %(default)s)",
    )


def main(args: argparse.Namespace) -> int:
    """Score every archive, print the totals."""
    if not 0 <= args.flatten <= 1:
        raise ConfigError(f"--flatten {args.flatten}: expected a share from 0 to 1")
    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed}: expected 0 or more")
    evaluation = EvaluationConfig("test", args.views, args.workers, examples=0, minimum_overlap=args.overlap)
    protocols = [_protocol(name) for name in args.protocol]
    paths = _archives(args.scenes)
    folder = find_model(args.model)
    labels = label_space(read_description(folder).config.label_space)
    for path in paths:  # a wrong archive fails now, not after the others were scored
        found = read_scene(path).label_space
        if found != labels.name:
            raise DataError(f"scoring {path}: it is labelled in {found}, the model predicts {labels.name}")
    if args.output:
        prepare_writing(args.output.parent)
        if args.output.is_dir():
            raise DataError(f"writing {args.output}: it is a folder; name a file, such as {args.output}/metrics.json")
    with tempfile.TemporaryDirectory() as folder_of_copies:
        if args.recolor or args.flatten or args.pattern:
            paths = _changed(paths, Path(folder_of_copies), args)
        content = _scored(folder, paths, evaluation, protocols, labels, args.seed)
    changes = [f"flattened by {args.flatten}"] * bool(args.flatten) + ["recolored"] * args.recolor
    changes += ["patterned"] * args.pattern
    changes += [f"frames that share {args.overlap:g}"] * bool(args.overlap)
    print(", ".join([f"{len(paths)} scenes", *changes, f"up to {args.views} views each"]))
    if args.output:
        content.update(scenes=len(paths), flattened=args.flatten, recolored=args.recolor, patterned=args.pattern)
        content.update(minimum_overlap=args.overlap)
        write_whole(args.output, f"{json.dumps(content, indent=1, sort_keys=True, allow_nan=False)}\n".encode())
    return 0


def _changed(paths: list[Path], folder: Path, args: argparse.Namespace) -> list[Path]:
    """Copies of the archives, flattened first; colours and patterns are drawn for (seed, position in the list)."""
    copies = []
    for index, path in enumerate(tqdm(paths, desc="changing colours", unit="scene", disable=None)):
        scene = read_scene(path)
        frames = [scene.frame(number) for number in range(len(scene))]
        segment_id = np.stack([frame.segment_id for frame in frames])
        generator = np.random.default_rng([args.seed, index])
        colors = flatten_segments(np.stack([frame.color for frame in frames]), segment_id, args.flatten)
        if args.recolor:
            colors = recolor_segments(colors, segment_id, generator)
        if args.pattern:
            colors = pattern_segments(
                colors,
                segment_id,
                np.stack([frame.depth_mm for frame in frames]).astype(np.float32) / np.float32(1000),
                np.stack([frame.intrinsics for frame in frames]),
                np.stack([frame.scan_from_camera for frame in frames]),
                generator,
            )
        content = SceneContent(
            scene.name,
            scene.dataset,
            scene.label_space,
            [replace(frame, color=color) for frame, color in zip(frames, colors, strict=True)],
            scene.segments,
            scene.surface,
            scene.overlap,
            scene.license,
            scene.provenance,
        )
        copies.append(folder / str(index) / path.name)
        write_scene(copies[-1], content)
    return copies


def _scored(
    folder: Path,
    paths: list[Path],
    evaluation: EvaluationConfig,
    protocols: list[ProtocolConfig],
    labels: LabelSpace,
    seed: int,
) -> dict[str, object]:
    with tqdm(total=len(paths), desc="scoring", unit="scene", disable=None) as progress:
        if protocols:
            return _by_protocols(score_protocols(folder, paths, evaluation, protocols, progress.update))
        scores = [each.scores for each in evaluate_scenes(folder, paths, evaluation, progress.update)]
        return _as_evaluate(scores, labels, seed, evaluation.scores.resamples)


def _as_evaluate(scores: list[SceneScores], labels: LabelSpace, seed: int, resamples: int) -> dict[str, object]:
    """Print evaluate's numbers with their intervals over scenes; what goes into the file."""
    totals = aggregate_scenes(scores, np.array(labels.is_thing), seed, resamples).values
    names = (*GEOMETRY_METRICS, *PANOPTIC_METRICS)
    metrics = rounded_metrics(totals, names)
    for name in names:
        value, low, high = (metrics[f"{name}{end}"] for end in ("", "_low", "_high"))
        print(f"{name:24} {_shown(value)}  [{low}, {high}]")
    return {**metrics, "per_scene": [plain_scene(score) for score in scores], "decisions": dict(DECISIONS)}


def _by_protocols(scored: list[ProtocolScores]) -> dict[str, object]:
    """Print every protocol's decisions and numbers; what goes into the file."""
    content: dict[str, object] = {}
    for protocol in scored:
        values = {name: round(value, 4) if math.isfinite(value) else None for name, value in protocol.values.items()}
        print("\n".join([protocol.name, *(f"  {line}" for line in protocol.decisions)]))
        print("\n".join(f"  {name:22} {_shown(value)}" for name, value in values.items()), end="\n\n")
        content[protocol.name] = {"values": values, "decisions": list(protocol.decisions)}
    return {"protocols": content}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _protocol(name: str) -> ProtocolConfig:
    """A name of params/protocol/, or a file.

    Raises:
        ConfigError: there is no such protocol, or its file says what it cannot.
    """
    known = sorted(Path("params/protocol").glob("*.yaml"))
    path = Path(name) if name.endswith(".yaml") else Path("params/protocol") / f"{name}.yaml"
    if not path.exists():
        choices = ", ".join(one.stem for one in known) or "none here: run it in a checkout, or give a file"
        raise ConfigError(f"scoring: there is no protocol {name!r}; choose among {choices}")
    protocol: ProtocolConfig = config.load(path, ProtocolConfig)
    return protocol


def _archives(given: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        found += sorted(path.glob("*.zip")) if path.is_dir() else [path]
    if not found:
        raise DataError(f"scoring: no scene archive in {', '.join(map(str, given))}")
    return found
