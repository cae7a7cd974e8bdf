"""One ScanNet scene to the content of its archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.archive import Frame, SceneContent, Surface
from pano3d.data.frame_selection import laplacian_variance, seen_cells, select_frames
from pano3d.data.label_spaces import LabelSpace, label_space, scannet_split
from pano3d.data.mesh_rendering import MeshRenderer, drop_small
from pano3d.data.raw_files import RawDataset, RawScene, describe_sources, raw_root, wanted_scenes
from pano3d.data.scan_cameras import depth_in_camera, fitted_size, nearest_pixels, resized_intrinsics
from pano3d.data.scan_scenes import (
    AnnotatedObject,
    FrameCount,
    ViewOptions,
    consistent_labels,
    id_table,
    overlap_of,
    scene_segments,
    to_millimetres,
    tool_version,
)
from pano3d.data.scannet.annotation import VertexAnnotation
from pano3d.data.scannet.exported import ExportedFrames
from pano3d.data.scannet.images_2d import LabelImages
from pano3d.data.scannet.label_map import LabelMap, read_label_map
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
from pano3d.data.scannet.sens import DamagedFrame, SensFile
from pano3d.types import DataError

Frames = SensFile | ExportedFrames


@dataclass(frozen=True)
class ScanNetDataset:
    """ScanNet v2 with its 20 or its 200 classes, from PANO3D_SCANNET_ROOT.

    license: the tag that every archive and every model trained on them carries.
    splits: the official ones to prepare. scenes: only these of them; None = all that are on disk.
    labels: rendered from the annotated mesh, or ScanNet's own 2D images.
    axis_aligned: bring mesh and cameras into the frame of the scan's axisAlignment.
    skip_broken: scenes that cannot be prepared are told and left out; else they stop the stage after all others are
    finished.
    """

    name: Literal["scannet", "scannet200"]
    label_space: Literal["scannet20", "scannet200"]
    license: str
    splits: tuple[Literal["train", "validation", "test"], ...]
    scenes: tuple[str, ...] | None
    labels: Literal["mesh", "images"]
    axis_aligned: bool
    views: ViewOptions
    skip_broken: bool


@cache
def _label_map(path: Path) -> LabelMap:
    """Read once per process: it serves every scene."""
    return read_label_map(path)


def build_scene(dataset: ScanNetDataset, folder: Path, label_map: Path) -> SceneContent:
    """Read, select, render and check one scene.

    Raises:
        DataError: a file is missing, damaged or disagrees with another; names the file. Single frames that cannot be
            decoded are dropped and counted instead.
    """
    scan = ScanFolder(folder)
    space = label_space(dataset.label_space)
    names = _label_map(label_map)
    if dataset.label_space == "scannet200":
        names.require_revision()
    frames, mesh = open_frames(scan), read_mesh(scan)
    annotation = read_annotation(scan, mesh, names) if scan.has_annotation else None
    segments, segment_of = scene_segments(_objects(annotation, space), space, dataset.views.merge_stuff)
    table = id_table(segment_of)
    vertex_segment = np.zeros(len(mesh.vertices), np.uint16)
    if annotation is not None:
        vertex_segment = table[annotation.instance_id]
    camera = ArchiveCamera(frames, dataset.views)
    renderer = MeshRenderer(mesh.vertices, mesh.faces, vertex_segment)
    images = _label_images(scan, dataset, camera)
    count = FrameCount(len(frames))
    chosen = _choose(dataset.views, frames, camera, count)
    aligned = axis_alignment(scan.file(".txt")) if dataset.axis_aligned else np.eye(4)
    views: list[Frame] = []
    for number in chosen:
        try:
            views.append(_view(dataset, int(number), camera, renderer, images, table, aligned))
        except DamagedFrame:
            count.dropped["damaged"] += 1
    return SceneContent(
        name=scan.scene,
        dataset=dataset.name,
        label_space=dataset.label_space,
        frames=views,
        segments=segments,
        surface=Surface(transform(aligned, mesh.vertices), vertex_segment),
        overlap=overlap_of(views) if views else np.zeros((0, 0), np.float16),
        license=dataset.license,
        provenance={
            "frames": count.plain(len(views), scan.scene),
            "unmapped_labels": list(annotation.unmapped) if annotation is not None else [],
            "sources": describe_sources(scan.sources(), folder),
            "tool": f"pano3d {tool_version()}",
        },
        color_format="jpg",
    )


def _objects(annotation: VertexAnnotation | None, space: LabelSpace) -> list[AnnotatedObject]:
    """ScanNet-20 counts in NYU40 ids, ScanNet200 in raw ids."""
    class_of = {raw: index for index, raw in enumerate(space.raw_ids)}
    by_raw = space.name == "scannet200"
    return [
        AnnotatedObject(one.instance_id, class_of.get(one.ids.raw_id if by_raw else one.ids.nyu40_id), one.label)
        for one in (annotation.objects if annotation is not None else [])
    ]


class ArchiveCamera:
    """The archive's camera: the colour camera at the archive's size, whose pose is the recorded one."""

    def __init__(self, frames: Frames, views: ViewOptions):
        header = frames.header
        self.frames = frames
        self.size = fitted_size(header.color_size, views.max_side)
        self.intrinsics = resized_intrinsics(header.intrinsic_color, header.color_size, self.size)
        self.color_from_depth = np.linalg.inv(header.extrinsic_color) @ header.extrinsic_depth
        # A JPEG decoded at half its size costs a fraction, and is resized from there.
        is_jpeg = header.color_codec in ("jpeg", "jpg")
        fits = [r for r in (8, 4, 2) if not any(side % r for side in header.color_size)]
        self.reduction = next((r for r in fits if is_jpeg and header.color_size[0] // r >= self.size[0]), 1)
        self.smallest = next(iter(fits), 1) if is_jpeg else 1

    def color(self, number: int) -> NDArray[np.uint8]:
        """(H W 3) at the archive's size."""
        image = self.frames.color(number, self.reduction)
        source = image.shape[1::-1]
        if source == self.size:
            return image
        # The area average matters where pixels are thrown together; within a few percent it costs ten times as much
        # for the same picture.
        method = cv2.INTER_LINEAR if source[0] < 1.1 * self.size[0] else cv2.INTER_AREA
        return np.asarray(cv2.resize(image, self.size, interpolation=method), np.uint8)

    def depth(self, number: int) -> NDArray[np.float64]:
        """(H W) metres as the archive's camera sees it."""
        header = self.frames.header
        return depth_in_camera(
            self.frames.depth(number),
            header.intrinsic_depth,
            self.color_from_depth,
            self.intrinsics,
            self.size,
            unit=1.0 / header.depth_shift,
        )

    def sharpness(self, number: int) -> float:
        """Of the picture at the smallest size it can be decoded at; -1 where it cannot be."""
        try:
            return laplacian_variance(self.frames.color(number, self.smallest))
        except DamagedFrame:
            return -1.0

    def places(self, number: int) -> NDArray[np.int64]:
        """Cells the frame shows; none where its depth cannot be decoded."""
        try:
            return seen_cells(self.depth(number), self.intrinsics, self.frames.poses[number].astype(np.float64))
        except DamagedFrame:
            return np.zeros(0, np.int64)


def _choose(views: ViewOptions, frames: Frames, camera: ArchiveCamera, count: FrameCount) -> NDArray[np.int64]:
    """Numbers of the frames that become views; the others are counted with their reason."""
    usable = usable_frames(frames.poses)
    count.dropped["no pose"] = len(frames) - len(usable)
    chosen = select_frames(views.frames, usable, camera.sharpness, camera.places)
    count.dropped["not selected"] = len(usable) - len(chosen)
    return chosen


def _label_images(scan: ScanFolder, dataset: ScanNetDataset, camera: ArchiveCamera) -> LabelImages | None:
    """The instance images where they are the source of labels: classes come from the objects they name.

    Raises:
        DataError: they are wanted and not there.
    """
    if dataset.labels == "mesh" or not scan.has_annotation:
        return None
    images = label_images(scan, "instance", camera.frames.header.color_size)
    if images is None:
        raise DataError(
            f"preparing {scan.scene}: {scan.scene}_2d-instance-filt.zip is not there; download it, or set "
            "dataset.labels=mesh to render labels from the mesh"
        )
    return images


def _view(
    dataset: ScanNetDataset,
    number: int,
    camera: ArchiveCamera,
    renderer: MeshRenderer,
    images: LabelImages | None,
    table: NDArray[np.uint16],
    aligned: NDArray[np.float64],
) -> Frame:
    options, (width, height) = dataset.views, camera.size
    color, sensor = camera.color(number), camera.depth(number)
    scan_from_camera = camera.frames.poses[number].astype(np.float64)
    rendered = renderer.render(camera.intrinsics, scan_from_camera, width, height)
    if images is None:
        segment_id = consistent_labels(rendered.segment_id, rendered.depth, sensor, options.depth_tolerance)
    else:
        source = images.read(number)
        rows, columns = nearest_pixels(camera.frames.header.color_size, camera.size)
        segment_id = table[source[rows, columns]]
        strange = np.setdiff1d(source, np.append(np.flatnonzero(table), 0))
        if len(strange):
            raise DataError(f"reading {images.path}: frame {number} shows instance {strange[0]}, which is no object")
    return Frame(
        name=f"{number:06d}",
        color=color,
        depth_mm=to_millimetres(sensor if options.depth == "sensor" else rendered.depth),
        segment_id=drop_small(segment_id, options.minimum_pixels),
        intrinsics=camera.intrinsics,
        scan_from_camera=aligned @ scan_from_camera,
    )


SPLITS: dict[str, Literal["train", "val", "test"]] = {"train": "train", "validation": "val", "test": "test"}
"""Our names of the official splits."""


def raw_scenes(dataset: ScanNetDataset) -> RawDataset:
    """The scenes of the wanted splits, as far as they are on disk.

    Raises:
        ConfigError: PANO3D_SCANNET_ROOT names no folder.
        DataError: no label map, no scene of a split, or `scenes` names one that is in none of the splits.
    """
    root = raw_root("PANO3D_SCANNET_ROOT", dataset.name)
    label_map = root / "scannetv2-labels.combined.tsv"
    names = read_label_map(label_map)
    if dataset.label_space == "scannet200":
        names.require_revision()

    def folder_of(split: str, scene: str) -> Path:
        return root / ("scans_test" if split == "test" else "scans") / scene

    splits: dict[str, Sequence[str]] = {split: scannet_split(SPLITS[split]) for split in dataset.splits}
    listed = wanted_scenes(splits, dataset.scenes, dataset.name)
    present = [(split, folder_of(split, scene)) for split, scene in listed if folder_of(split, scene).is_dir()]
    scenes = [
        RawScene(
            split, folder.name, folder, partial(build_scene, dataset, folder, label_map), ScanFolder(folder).sources()
        )
        for split, folder in present
    ]
    return RawDataset(root, scenes, [scene for _, scene in listed], dataset.splits, [label_map])
