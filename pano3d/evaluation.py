"""A model against scene archives: predict, compare with the truth, reduce each scene to its scores."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pano3d import config as parameters
from pano3d.data.archive import Frame, SceneArchive, read_scene
from pano3d.data.frames import fit_frame
from pano3d.data.label_spaces import label_space
from pano3d.data.preparation import file_digest
from pano3d.data.sampling import sample_connected_views, spread_views
from pano3d.files import write_whole
from pano3d.metrics.protocols.catalogue import Piece, ProtocolConfig, ProtocolScores, pool, with_label_space
from pano3d.metrics.protocols.catalogue import score_scene as score_protocol
from pano3d.metrics.scene_scores import SceneScores, SceneScoresConfig, plain_scene, scene_from_plain, score_scene
from pano3d.metrics.scenes import ScenePrediction, SceneTruth
from pano3d.model_files import read_description, read_model
from pano3d.panoptic.scene import SceneConfig
from pano3d.processes import end_with_pool, peak_bytes, restart_peak
from pano3d.reconstruction import Precision, Reconstructor
from pano3d.types import VOID, ConfigError, DataError, PanopticScene


@dataclass(frozen=True)
class EvaluationConfig:
    """split: scenes to score. views: frames per scene (all, where it has fewer), spread evenly, or, with a
    minimum_overlap above 0, a set in which every frame shares that part of its pixels with one before it, as training
    draws them. workers: processes on the CPU, 0 = one per core; where there are GPUs, each has one. examples: scenes
    whose predictions are kept for pictures. scene: how masks become segments."""

    split: Literal["train", "validation", "test"]
    views: int
    workers: int
    examples: int
    minimum_overlap: float = 0.0
    scene: SceneConfig = field(default_factory=SceneConfig)
    scores: SceneScoresConfig = field(default_factory=SceneScoresConfig)

    def __post_init__(self) -> None:
        if self.views < 1 or self.workers < 0 or self.examples < 0:
            raise ConfigError("evaluation: views must be 1 or more, workers and examples 0 or more")
        if not 0 <= self.minimum_overlap <= 1:
            raise ConfigError(f"evaluation: minimum_overlap {self.minimum_overlap}; expected a share from 0 to 1")


@dataclass(frozen=True)
class SceneViews:
    """The frames of a scene that are evaluated, at the network's size."""

    archive: SceneArchive
    frames: list[Frame]

    @property
    def colors(self) -> NDArray[np.uint8]:
        return np.stack([frame.color for frame in self.frames])


def load_views(path: Path, count: int, width: int, height: int, minimum_overlap: float = 0.0) -> SceneViews:
    """`count` frames of an archive, brought to the network's size: evenly spread ones, or, with a minimum_overlap above
    0, a connected set, the same in every call."""
    archive = read_scene(path)
    chosen = spread_views(len(archive), count)
    if minimum_overlap > 0:
        fixed = np.random.default_rng(0)
        chosen = np.sort(sample_connected_views(archive.overlap, len(chosen), fixed, minimum_overlap))
    return SceneViews(archive, [fit_frame(archive.frame(int(view)), width, height) for view in chosen])


def truth_of(views: SceneViews, label_space_name: str) -> SceneTruth:
    """What is true about the views: exact depth where the archive has it, the sensor's elsewhere.

    Raises:
        DataError: the archive is labelled in another label space.
    """
    archive = views.archive
    if archive.label_space != label_space_name:
        raise DataError(
            f"scoring {archive.name}: it is labelled in {archive.label_space}, the model predicts {label_space_name}"
        )
    labels = label_space(label_space_name)
    class_of = {name: index for index, name in enumerate(labels.names)}
    depth = [frame.depth_mm if frame.depth_exact_mm is None else frame.depth_exact_mm for frame in views.frames]
    return SceneTruth(
        name=archive.name,
        segment_id=np.stack([frame.segment_id for frame in views.frames]).astype(np.int64),
        segment_class={s.id: class_of.get(s.class_name, VOID) if s.class_name else VOID for s in archive.segments},
        depth=np.stack(depth).astype(np.float64) / 1000.0,
        scan_from_camera=np.stack([frame.scan_from_camera for frame in views.frames]),
        intrinsics=np.stack([frame.intrinsics for frame in views.frames]),
        surface_points=archive.surface.xyz.astype(np.float64),
        surface_segment=archive.surface.segment_id.astype(np.int64),
        is_thing=np.array(labels.is_thing),
    )


def prediction_of(scene: PanopticScene) -> ScenePrediction:
    """The part of a reconstruction that is scored."""
    return ScenePrediction(
        segment_id=scene.segment_id.astype(np.int64),
        class_id=scene.class_id.astype(np.int64),
        segment_score={segment.id: segment.score for segment in scene.segments},
        depth=scene.depth,
        points_world=scene.points_world,
        world_from_camera=scene.world_from_camera,
    )


def load_reconstructor(
    folder: Path, scene_config: SceneConfig, device: torch.device, precision: Precision = "float32"
) -> Reconstructor:
    """The model in a folder written by a training stage, ready to reconstruct."""
    model, description = read_model(folder)
    backbone = description.config.backbone
    labels = label_space(description.config.label_space)
    size = (backbone.image_width, backbone.image_height)
    return Reconstructor(model, labels, *size, scene_config, device, precision)


@dataclass(frozen=True)
class EvaluatedScene:
    """A scene's scores and what they cost: wall time, and the highest memory since the scene began, of the worker or,
    on a GPU, what PyTorch allocated there. device: where its network ran."""

    scores: SceneScores
    seconds: float
    peak_bytes: int
    device: str


def evaluation_devices() -> tuple[torch.device, ...]:
    """Every GPU this process may see, or the CPU."""
    return tuple(torch.device("cuda", number) for number in range(torch.cuda.device_count())) or (torch.device("cpu"),)


def evaluate_scenes(
    folder: Path,
    paths: Sequence[Path],
    config: EvaluationConfig,
    on_done: Callable[[int], object],
    finished: Path | None = None,
    devices: Sequence[torch.device] | None = None,
) -> list[EvaluatedScene]:
    """Score the model in `folder` on every archive, in the order of `paths`.

    Scenes are scored side by side: a process on each device takes the next one when it is done. On the one CPU there
    are `config.workers` processes.

    Args:
        on_done: called with 1 after each scene.
        finished: folder of scenes that an interrupted call has scored; they are taken from there, new ones added. The
            caller removes it once its own results are written. None: nothing is kept.
        devices: where to predict; by default `evaluation_devices`.
    """
    files = [None if finished is None else finished / f"{_scene_key(folder, path, config)}.json" for path in paths]
    done = {number: found for number, file in enumerate(files) if (found := _read_finished(file)) is not None}
    on_done(len(done))
    waiting = [number for number in range(len(paths)) if number not in done]
    calls = _side_by_side(folder, [paths[number] for number in waiting], config, _score_in_worker, devices)
    for position, scene in calls:
        done[waiting[position]] = scene
        _write_finished(files[waiting[position]], scene)
        on_done(1)
    return [done[number] for number in range(len(paths))]


def score_protocols(
    folder: Path,
    paths: Sequence[Path],
    config: EvaluationConfig,
    protocols: Sequence[ProtocolConfig],
    on_done: Callable[[int], object],
    devices: Sequence[torch.device] | None = None,
) -> list[ProtocolScores]:
    """Score the model in `folder` on every archive by published protocols, on the classes it predicts.

    Args:
        config: views per scene and processes; its own scores are not computed.
        on_done: called with 1 after each scene.
        devices: as `evaluate_scenes`.

    Returns:
        One entry per protocol, in their order.
    """
    labels = read_description(folder).config.label_space
    chosen, notes = zip(*(with_label_space(protocol, labels) for protocol in protocols))
    selection = f"ones that share {config.minimum_overlap:g}" if config.minimum_overlap else "evenly spread ones"
    note = f"views here: {config.views} {selection} of every scene, reconstructed together"
    pieces: dict[int, list[Piece]] = {}
    for number, each in _side_by_side(folder, paths, config, functools.partial(_protocols_in_worker, chosen), devices):
        pieces[number] = each
        on_done(1)
    in_order = [pieces[number] for number in range(len(paths))]
    return [
        pool(protocol, [each[index] for each in in_order], [note, *notes[index]])
        for index, protocol in enumerate(chosen)
    ]


def evaluate_scene(
    reconstructor: Reconstructor, path: Path, config: EvaluationConfig
) -> tuple[SceneScores, PanopticScene, SceneViews]:
    """Predict and score one archive."""
    width, height = reconstructor.image_width, reconstructor.image_height
    views = load_views(path, config.views, width, height, config.minimum_overlap)
    scene = reconstructor.reconstruct(views.colors)
    truth = truth_of(views, reconstructor.labels.name)
    return score_scene(prediction_of(scene), truth, config.scores), scene, views


def rounded_metrics(values: Mapping[str, float], names: Sequence[str]) -> dict[str, float | None]:
    """Values and intervals to four digits, null for undefined: metrics.json holds no NaN and no noise of last bits."""
    chosen = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    return {name: round(values[name], 4) if math.isfinite(values[name]) else None for name in chosen}


_worker: list[Reconstructor] = []
Result = TypeVar("Result")


def _side_by_side(
    folder: Path,
    paths: Sequence[Path],
    config: EvaluationConfig,
    call: Callable[[Path, EvaluationConfig], Result],
    devices: Sequence[torch.device] | None,
) -> Iterator[tuple[int, Result]]:
    """`call` of every archive in worker processes that hold the model; (position, result) as they end."""
    if not paths:
        return
    places = list(evaluation_devices() if devices is None else devices)
    if places == [torch.device("cpu")]:
        places *= config.workers or torch.get_num_threads()
    processes = min(len(places), len(paths))
    context = get_context("forkserver")
    free = context.Queue()
    for place in places[:processes]:
        free.put(str(place))
    with ProcessPoolExecutor(
        processes,
        mp_context=context,
        initializer=_load_worker,
        initargs=(folder, config, max(1, torch.get_num_threads() // len(places)), free),
    ) as executor:
        tasks = {executor.submit(call, path, config): number for number, path in enumerate(paths)}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)  # what has not begun need not be waited for
            raise


def _load_worker(folder: Path, config: EvaluationConfig, threads: int, free: Queue[str]) -> None:
    """Once per process, on a device of its own: the network is read there, not sent. None outlives the command."""
    end_with_pool()
    torch.set_num_threads(threads)
    _worker.append(load_reconstructor(folder, config.scene, torch.device(free.get())))


def _score_in_worker(path: Path, config: EvaluationConfig) -> EvaluatedScene:
    device = _worker[0].device
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        restart_peak()
    start = time.perf_counter()
    scores = evaluate_scene(_worker[0], path, config)[0]
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else peak_bytes()
    return EvaluatedScene(scores, time.perf_counter() - start, peak, str(device))


def _protocols_in_worker(protocols: Sequence[ProtocolConfig], path: Path, config: EvaluationConfig) -> list[Piece]:
    width, height = _worker[0].image_width, _worker[0].image_height
    views = load_views(path, config.views, width, height, config.minimum_overlap)
    prediction = prediction_of(_worker[0].reconstruct(views.colors))
    truth = truth_of(views, _worker[0].labels.name)
    return [score_protocol(protocol, prediction, truth) for protocol in protocols]


def _scene_key(folder: Path, path: Path, config: EvaluationConfig) -> str:
    """What a scene's scores follow from: weights, archive, parameters and the code; the same for nothing else."""
    return parameters.digest(
        {
            "weights": read_description(folder).weights_sha256,
            "archive": file_digest(path),
            "settings": {name: getattr(config, name) for name in ("views", "minimum_overlap", "scene", "scores")},
            "source": _source_digest(),
        }
    )


@functools.cache
def _source_digest() -> str:
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\0{file_digest(file)}\n".encode())
    return digest.hexdigest()


def _read_finished(file: Path | None) -> EvaluatedScene | None:
    """A scene scored before, or None; a file that cannot be read is as good as none."""
    if file is None or not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        costs = {name: content[name] for name in ("seconds", "peak_bytes", "device")}
        return EvaluatedScene(scene_from_plain(content["scores"]), **costs)
    except (ValueError, KeyError, TypeError):
        return None


def _write_finished(file: Path | None, scene: EvaluatedScene) -> None:
    if file is not None:
        costs = {"seconds": scene.seconds, "peak_bytes": scene.peak_bytes, "device": scene.device}
        content = {"scores": plain_scene(scene.scores), **costs}
        write_whole(file, json.dumps(content, allow_nan=False).encode())
