"""The nouns of Pano3D: what flows from room to room, and the errors a user can cause.

Letters used for shapes, the same in every file:

    B scenes      V views        H W pixels     h w token grid   T = h*w tokens per view   C channels
    Q queries     K classes, without "no object"                 M true segments           P points   L layers
    hm wm         the mask grid, 4 times the token grid

Frames: `camera` (OpenCV axes: x right, y down, z forward), `world` (the reconstruction's own frame), `scan` (the
dataset's frame). A transform is `target_from_source`, 4x4, acting on column vectors. Pixel centres are integers.
Metres, radians, RGB in [0, 1], scores in [0, 1]; depth runs along the optical axis.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from pano3d.palette import segment_colors

VOID = -1
"""Class of a pixel or point that carries no label, in memory. On disk `segment_id` 0 is void."""

ConfidenceKind = Literal["confidence", "conf_logits"]


class Pano3DError(Exception):
    """Root of every error that a user can cause. The message says what was expected, what came and what to do.

    exit_code: what a command that ends by it returns.
    """

    exit_code = 1


class ConfigError(Pano3DError):
    """A parameter is unknown, mistyped or inconsistent."""


class DataError(Pano3DError):
    """Input data are missing, damaged or inconsistent; the message names scene, frame or member and the rule."""


class WeightsError(Pano3DError):
    """A checkpoint is damaged, of another model, or would have to execute code to be read."""


class TrainingError(Pano3DError):
    """Training cannot go on: a non-finite loss, no memory, a lost process."""


class Interrupted(Pano3DError):
    """A long stage was asked to stop and has saved its state; the same command goes on from there."""

    exit_code = 143  # as if SIGTERM had ended it


class DegenerateError(Pano3DError):
    """Geometry without a unique answer, such as aligning points that lie on one line."""


@dataclass(frozen=True)
class Views:
    """Photos of one room per batch entry, in the caller's order.

    images: (B V 3 H W) RGB in [0, 1].
    reference: index of the view whose camera frame MUSt3R takes as the world frame.
    """

    images: Float[Tensor, "b v 3 h w"]
    reference: int = 0


@dataclass(frozen=True)
class GeometryTarget:
    """What the sensor saw, aligned with `Views`.

    depth: (B V H W) metres along the optical axis; 0 where missing.
    intrinsics: (B V 3 3) pixels, pixel centres at integers.
    scan_from_camera: (B V 4 4).
    """

    depth: Float[Tensor, "b v h w"]
    intrinsics: Float[Tensor, "b v 3 3"]
    scan_from_camera: Float[Tensor, "b v 4 4"]


@dataclass(frozen=True)
class PanopticTarget:
    """True segments of each scene, as one object over all its views.

    segment_index: (B V H W) index into the scene's segments, VOID where unlabelled.
    class_id: per scene (M,) class of each segment, in [0, K).
    is_thing: per scene (M,).
    class_allowed: (B K) classes that each scene's dataset annotates: of the others it cannot say that they are absent.
        None: all.
    """

    segment_index: Int[Tensor, "b v h w"]
    class_id: list[Int[Tensor, " _"]]
    is_thing: list[Bool[Tensor, " _"]]
    class_allowed: Bool[Tensor, "b k"] | None = None


@dataclass(frozen=True)
class BackboneOutput:
    """What a reconstruction backbone says about each rendered view.

    A backbone may see an image more than once (MUSt3R's update and render passes in training): the V axis
    here counts passes over images and `view_index` tells the image each comes from. At inference it is
    `arange(V)` of `Views`.

    encoder_tokens: (B V T C) single-view features E.
    decoder_tokens: (B V T C') cross-view features F: the last decoder block (after the final norm for MUSt3R).
    token_grid: (h, w), T = h*w.
    points_world: (B V H W 3), up to scale unless the weights are metric.
    points_camera: (B V H W 3), same scale; depth is its last coordinate.
    confidence: (B V H W) larger = surer, on the backbone's native scale named by `confidence_kind`:
        "confidence" = 1 + exp(raw) >= 1 (MUSt3R); "conf_logits" = raw logit (Pi3).
    world_from_camera: (B V 4 4) or None where the backbone leaves poses to be recovered from the pointmaps.
    view_index: (V,) image of `Views` behind each entry.
    """

    encoder_tokens: Float[Tensor, "b v t c"]
    decoder_tokens: Float[Tensor, "b v t d"]
    token_grid: tuple[int, int]
    points_world: Float[Tensor, "b v h w 3"]
    points_camera: Float[Tensor, "b v h w 3"]
    confidence: Float[Tensor, "b v h w"]
    confidence_kind: ConfidenceKind
    world_from_camera: Float[Tensor, "b v 4 4"] | None
    view_index: Int[Tensor, " v"]


@dataclass(frozen=True)
class MaskOutput:
    """What the mask decoder says, as embeddings: logits are a dot product that consumers take where they need it.

    mask_logits[q, v, y, x] = <mask_embeddings[q], mask_features[v, :, y, x]>.

    class_logits: one (B Q K+1) per supervised layer, the last entry is the last layer; column K = "no object"
        (absent in sigmoid mode, then K columns).
    mask_embeddings: one (B Q D) per supervised layer.
    mask_features: (B V D hm wm), hm = 4h.
    """

    class_logits: list[Float[Tensor, "b q k"]]
    mask_embeddings: list[Float[Tensor, "b q d"]]
    mask_features: Float[Tensor, "b v d hm wm"]


@dataclass(frozen=True)
class Segment:
    """One object (thing) or one stuff class of a scene."""

    id: int
    class_id: int
    class_name: str
    is_thing: bool
    score: float


@dataclass(frozen=True)
class PanopticScene:
    """A reconstructed and segmented room: the product.

    points_world: (V H W 3) float32; frame `world`.
    depth: (V H W) float32, along the optical axis, in units of `world`.
    confidence: (V H W) float32 on the backbone's native scale, see `confidence_kind`.
    segment_id: (V H W) int32, 0 = void; ids index `segments` by `Segment.id`.
    class_id: (V H W) int32, VOID where no segment.
    segment_score: (V H W) float32 in [0, 1]: mask probability of the winning query.
    world_from_camera: (V 4 4) float64. intrinsics: (V 3 3) float64, pixels.
    colors: (V H W 3) uint8, the images the network saw.
    class_names: K names of the label space.
    """

    points_world: NDArray[np.float32]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    confidence_kind: ConfidenceKind
    segment_id: NDArray[np.int32]
    class_id: NDArray[np.int32]
    segment_score: NDArray[np.float32]
    world_from_camera: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    colors: NDArray[np.uint8]
    segments: list[Segment] = field(default_factory=list)
    class_names: tuple[str, ...] = ()

    def save(self, path: str | Path) -> None:
        """One safetensors file with everything: arrays under their names, the rest as metadata. Whole or not at all."""
        path = Path(path)
        metadata = {
            "format": _SCENE_FORMAT,
            "confidence_kind": self.confidence_kind,
            "segments": json.dumps([asdict(segment) for segment in self.segments]),
            "class_names": json.dumps(self.class_names),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _SCENE_ARRAYS}
        try:
            partial.write_bytes(save(arrays, metadata=metadata))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> PanopticScene:
        """Read a file of `save`. Nothing in it is executed.

        Raises:
            DataError: missing, damaged, of another kind, or its parts do not belong together.
        """
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _SCENE_FORMAT:
                    raise DataError(f"reading scene {path}: format {metadata.get('format')!r}, not {_SCENE_FORMAT!r}")
                arrays = {name: file.get_tensor(name) for name in _SCENE_ARRAYS}
            segments = [Segment(**values) for values in json.loads(metadata["segments"])]
            names = tuple(str(name) for name in json.loads(metadata["class_names"]))
            kind = metadata["confidence_kind"]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"reading scene {path}: not a file of PanopticScene.save ({error})") from error
        views, *size = arrays["segment_id"].shape if arrays["segment_id"].ndim == 3 else (0, 0, 0)
        for name, (dtype, tail) in _SCENE_ARRAYS.items():
            shape = (views, *(size if name not in ("world_from_camera", "intrinsics") else ()), *tail)
            if arrays[name].dtype != dtype or arrays[name].shape != shape:
                found = f"{arrays[name].dtype} {arrays[name].shape}"
                raise DataError(f"reading scene {path}: {name} is {found}, expected {dtype} {shape}")
        known = {0, *(segment.id for segment in segments)}
        if kind not in ("confidence", "conf_logits") or not set(np.unique(arrays["segment_id"]).tolist()) <= known:
            raise DataError(f"reading scene {path}: unknown confidence {kind!r}, or segment ids that are not listed")
        return cls(**arrays, confidence_kind=kind, segments=segments, class_names=names)

    def _repr_html_(self) -> str:
        """For notebooks: up to six views, photo above segments, and the list of segments, largest first."""
        views = np.unique(np.linspace(0, len(self.colors) - 1, min(6, len(self.colors))).round().astype(int))
        photos, labels = self.colors[views], segment_colors(self.segment_id[views])
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in (photos, labels)], axis=0)
        pixels = np.bincount(self.segment_id.ravel(), minlength=max((s.id for s in self.segments), default=0) + 1)
        rows = ""
        for segment in sorted(self.segments, key=lambda each: -pixels[each.id]):
            red, green, blue = segment_colors(np.array(segment.id)).tolist()
            rows += (
                f'<tr><td style="background:rgb({red},{green},{blue})">{segment.id}</td>'
                f"<td>{escape(segment.class_name)}</td><td>{pixels[segment.id] / self.segment_id.size:.1%}</td>"
                f"<td>{segment.score:.2f}</td></tr>"
            )
        height, width = self.segment_id.shape[1:]
        return (
            f"<p>PanopticScene: {len(self.colors)} views of {width}x{height}, {len(self.segments)} segments, "
            f"{np.mean(self.segment_id > 0):.0%} of the pixels labelled</p>"
            f'<img alt="photos above segments" src="data:image/png;base64,{_png(sheet)}">'
            f"<table><tr><th>id</th><th>class</th><th>pixels</th><th>score</th></tr>{rows}</table>"
        )


_SCENE_FORMAT = "pano3d scene 1"
_SCENE_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {  # after (V H W), or (V) for the cameras
    "points_world": ("float32", (3,)),
    "depth": ("float32", ()),
    "confidence": ("float32", ()),
    "segment_id": ("int32", ()),
    "class_id": ("int32", ()),
    "segment_score": ("float32", ()),
    "world_from_camera": ("float64", (4, 4)),
    "intrinsics": ("float64", (3, 3)),
    "colors": ("uint8", (3,)),
}


def _png(image: NDArray[np.uint8]) -> str:
    """Base64 of an RGB image as PNG."""
    import cv2

    return base64.b64encode(cv2.imencode(".png", image[..., ::-1])[1].tobytes()).decode("ascii")


@dataclass(frozen=True)
class Batch:
    """One training step's worth of scenes; `scenes` names them for error messages."""

    views: Views
    geometry: GeometryTarget
    panoptic: PanopticTarget
    scenes: list[str]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device; from pinned memory without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory, as `torch.utils.data.DataLoader` asks for it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, move: Callable[[Tensor], Tensor]) -> Batch:
        geometry, panoptic = self.geometry, self.panoptic
        return Batch(
            Views(move(self.views.images), self.views.reference),
            GeometryTarget(move(geometry.depth), move(geometry.intrinsics), move(geometry.scan_from_camera)),
            PanopticTarget(
                move(panoptic.segment_index),
                [move(x) for x in panoptic.class_id],
                [move(x) for x in panoptic.is_thing],
                None if panoptic.class_allowed is None else move(panoptic.class_allowed),
            ),
            self.scenes,
        )
