"""One ScanNet++ scene to the content of its archive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.archive import Frame, SceneContent, Surface
from pano3d.data.frame_selection import laplacian_variance, seen_cells, select_frames
from pano3d.data.label_spaces import label_space
from pano3d.data.mesh_rendering import MeshRenderer, drop_small
from pano3d.data.meshes import read_ply
from pano3d.data.pictures import decode_picture
from pano3d.data.raw_files import RawDataset, RawScene, describe_sources, raw_root, wanted_scenes
from pano3d.data.scan_cameras import fitted_size, nearest_pixels, resized_intrinsics
from pano3d.data.scan_scenes import (
    AnnotatedObject,
    FrameCount,
    ViewOptions,
    consistent_labels,
    overlap_of,
    scene_segments,
    to_millimetres,
    tool_version,
)
from pano3d.data.scannetpp.annotation import (
    ClassTable,
    MeshAnnotation,
    class_tables,
    read_class_table,
    read_ignored_vertices,
    read_lines,
    read_mesh_annotation,
)
from pano3d.data.scannetpp.cameras import PosedImage, read_colmap, read_nerfstudio
from pano3d.data.scannetpp.iphone_depth import SIZE as DEPTH_SIZE
from pano3d.data.scannetpp.iphone_depth import read_depth
from pano3d.data.scannetpp.undistortion import Undistortion
from pano3d.types import ConfigError, DataError

_FAR = 20.0  # metres; PanSt3R's limit of the rendered depth
_VIDEO_FRAME = re.compile(r"frame_(\d{6})\.\w+")


@dataclass(frozen=True)
class ScanNetPPDataset:
    """ScanNet++ v2 with its 100 benchmark classes, from PANO3D_SCANNETPP_ROOT.

    license: the tag that every archive and every model trained on them carries.
    splits: the official ones to prepare. scenes: only these of them; None = all that are on disk.
    camera: the DSLR, or the iPhone's frames where they were extracted (rgb/, rgb_masks/).
    skip_broken: scenes that cannot be prepared are told and left out; else they stop the stage after all others are
    finished.
    """

    name: Literal["scannetpp"]
    label_space: Literal["scannetpp100"]
    license: str
    splits: tuple[Literal["train", "validation", "test"], ...]
    scenes: tuple[str, ...] | None
    camera: Literal["dslr", "iphone"]
    views: ViewOptions
    skip_broken: bool

    def __post_init__(self) -> None:
        if self.camera == "dslr" and self.views.depth == "sensor":
            raise ConfigError("dataset: a DSLR has no depth sensor; set views.depth=mesh, or camera=iphone")


SPLITS = {"train": "nvs_sem_train", "validation": "nvs_sem_val", "test": "sem_test"}
"""Our names of the official split files."""


@dataclass(frozen=True)
class SceneFolder:
    """data/<scene> of a download."""

    folder: Path

    @property
    def mesh(self) -> Path:
        return self.folder / "scans" / "mesh_aligned_0.05.ply"

    @property
    def ignored(self) -> Path:
        return self.folder / "scans" / "mesh_aligned_0.05_mask.txt"

    @property
    def has_annotation(self) -> bool:
        """Test scenes have none. One of the two files alone counts as an annotation that is incomplete."""
        return any((self.folder / "scans" / name).exists() for name in ("segments.json", "segments_anno.json"))

    def posed_images(self, camera: Literal["dslr", "iphone"]) -> list[PosedImage]:
        """COLMAP's images, else nerfstudio's frames. Raises DataError where neither can be read."""
        base = self.folder / camera
        nerfstudio = base / "nerfstudio" / "transforms.json"
        if not (base / "colmap").is_dir() and nerfstudio.exists():
            return read_nerfstudio(nerfstudio)
        return read_colmap(base / "colmap")

    def picture(self, camera: Literal["dslr", "iphone"], name: str) -> Path:
        return self.folder / camera / ("resized_images" if camera == "dslr" else "rgb") / name

    def mask(self, camera: Literal["dslr", "iphone"], name: str) -> Path:
        folder = "resized_anon_masks" if camera == "dslr" else "rgb_masks"
        return self.folder / camera / folder / f"{Path(name).stem}.png"

    def sources(self, camera: Literal["dslr", "iphone"]) -> list[Path]:
        """Every file that shapes the scene's archive, by name."""
        scans = self.folder / "scans"
        files = [self.mesh, self.ignored, scans / "segments.json", scans / "segments_anno.json"]
        base = self.folder / camera
        files += [base / "colmap" / name for name in ("cameras.txt", "images.txt")]
        files += [base / "nerfstudio" / "transforms.json", base / "depth.bin"]
        for name in ("resized_images", "resized_anon_masks", "rgb", "rgb_masks"):
            files += (base / name).glob("*")
        return sorted(path for path in files if path.is_file())


class DamagedPicture(DataError):
    """One picture cannot be decoded; the others can."""


def read_picture(path: Path, size: tuple[int, int], flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    """RGB (H W 3), or (H W) with IMREAD_GRAYSCALE.

    Raises:
        DamagedPicture: not an image, or of another size than its camera's.
    """
    image = decode_picture(path.read_bytes(), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DamagedPicture(f"reading {path}: not an image")
    if image.shape[1::-1] != size:
        raise DamagedPicture(f"reading {path}: {image.shape[1]}x{image.shape[0]}, its camera has {size[0]}x{size[1]}")
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H W) 255 valid, 0 anonymised; all valid where there is no mask."""
    if not path.exists():
        return np.full(size[::-1], 255, np.uint8)
    return read_picture(path, size, cv2.IMREAD_GRAYSCALE)


def video_number(name: str) -> int:
    """Frame of the video behind frame_<number>.jpg.

    Raises:
        DataError: the image is named otherwise.
    """
    match = _VIDEO_FRAME.fullmatch(name)
    if match is None:
        raise DataError(f"image {name!r} is not frame_<six digits> of the iPhone's video; its depth cannot be found")
    return int(match[1])


def build_scene(dataset: ScanNetPPDataset, folder: Path, table: ClassTable) -> SceneContent:
    """Read, select, undistort and render one scene.

    Raises:
        DataError: a file is missing, damaged or disagrees with another; names the file. Pictures that are not there or
            cannot be decoded are dropped and counted instead.
    """
    place = SceneFolder(folder)
    space = label_space(dataset.label_space)
    images = place.posed_images(dataset.camera)
    mesh = read_ply(place.mesh)
    annotation = MeshAnnotation([], np.full(len(mesh.vertices), -1, np.int64))
    if place.has_annotation:
        annotation = read_mesh_annotation(place.folder / "scans", len(mesh.vertices))
    # Segments are numbered by their place in the file, from 1: object ids may be anything.
    objects = [
        AnnotatedObject(n + 1, None if table.is_crowd(one.label) else table.class_id(one.label), one.label)
        for n, one in enumerate(annotation.objects)
    ]
    segments, segment_of = scene_segments(objects, space, dataset.views.merge_stuff)
    by_position = np.array([segment_of[one.id] for one in objects] + [0], np.uint16)
    vertex_segment = by_position[annotation.owner]
    views = _Views(dataset, place, images, MeshRenderer(mesh.vertices, mesh.faces, vertex_segment))
    frames, count = views.frames()
    evaluated = np.ones(len(mesh.vertices), bool)
    evaluated[read_ignored_vertices(place.ignored, len(mesh.vertices))] = False
    return SceneContent(
        name=folder.name,
        dataset=dataset.name,
        label_space=dataset.label_space,
        frames=frames,
        segments=segments,
        surface=Surface(mesh.vertices[evaluated], vertex_segment[evaluated]),
        overlap=overlap_of(frames) if frames else np.zeros((0, 0), np.float16),
        license=dataset.license,
        provenance={
            "frames": count.plain(len(frames), folder.name),
            "camera": dataset.camera,
            "sources": describe_sources(place.sources(dataset.camera), folder),
            "tool": f"pano3d {tool_version()}",
        },
        color_format="jpg",
    )


class _Views:
    """The posed images of one scene, made into frames."""

    def __init__(self, dataset: ScanNetPPDataset, place: SceneFolder, images: list[PosedImage], renderer: MeshRenderer):
        self._dataset, self._place, self._images, self._renderer = dataset, place, images, renderer
        self._undistortions: dict[int, Undistortion] = {}
        self._depth: dict[int, NDArray[np.uint16]] = {}

    def frames(self) -> tuple[list[Frame], FrameCount]:
        """Frames of the selected images, and what became of the others."""
        count = FrameCount(len(self._images))
        camera = self._dataset.camera
        present = [n for n, one in enumerate(self._images) if self._place.picture(camera, one.name).exists()]
        count.dropped["no picture"] = len(self._images) - len(present)
        usable = np.array(present, np.int64)
        chosen = select_frames(self._dataset.views.frames, usable, self._sharpness, self._places)
        count.dropped["not selected"] = len(usable) - len(chosen)
        if self._dataset.views.depth == "sensor":
            numbers = [video_number(self._images[int(n)].name) for n in chosen]
            self._depth = read_depth(self._place.folder / "iphone" / "depth.bin", numbers)
        frames = []
        for number in chosen:
            try:
                frames.append(self._frame(self._images[int(number)]))
            except DamagedPicture:
                count.dropped["damaged"] += 1
        return frames, count

    def _undistortion(self, image: PosedImage) -> Undistortion:
        """One per camera, of which a scene has one or a few."""
        key = id(image.camera)
        if key not in self._undistortions:
            self._undistortions[key] = Undistortion(image.camera)
        return self._undistortions[key]

    def _frame(self, image: PosedImage) -> Frame:
        options, place, camera = self._dataset.views, self._place, self._dataset.camera
        undistortion, source = self._undistortion(image), image.camera.size
        color = undistortion.image(read_picture(place.picture(camera, image.name), source))
        mask = undistortion.mask(read_mask(place.mask(camera, image.name), source))
        color[mask == 0] = 0
        size = fitted_size(source, options.max_side)
        rows, columns = nearest_pixels(source, size)
        hidden = mask[rows, columns] == 0
        if size != source:
            color = np.asarray(cv2.resize(color, size, interpolation=cv2.INTER_AREA), np.uint8)
        intrinsics = resized_intrinsics(undistortion.intrinsics, source, size)
        rendered = self._renderer.render(intrinsics, image.scan_from_camera, *size, far=_FAR)
        depth_mm, segment_id = to_millimetres(rendered.depth), rendered.segment_id
        if options.depth == "sensor":
            depth_mm = self._sensor_depth(image, undistortion, rows, columns)
            segment_id = consistent_labels(segment_id, rendered.depth, depth_mm / 1000.0, options.depth_tolerance)
        return Frame(
            name=Path(image.name).stem,
            color=color,
            depth_mm=np.where(hidden, 0, depth_mm).astype(np.uint16),
            segment_id=drop_small(np.where(hidden, 0, segment_id).astype(np.uint16), options.minimum_pixels),
            intrinsics=intrinsics,
            scan_from_camera=image.scan_from_camera,
        )

    def _sensor_depth(
        self, image: PosedImage, undistortion: Undistortion, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> NDArray[np.uint16]:
        """The lidar's nearest sample for each pixel: it shares the picture's field of view, distortion included."""
        depth = self._depth[video_number(image.name)]
        raw_x, raw_y = (one[rows, columns] for one in undistortion.maps)
        x, y = (
            np.rint((raw + 0.5) * small / whole - 0.5).astype(np.intp)
            for raw, small, whole in zip((raw_x, raw_y), DEPTH_SIZE, image.camera.size, strict=True)
        )
        inside = (x >= 0) & (y >= 0) & (x < DEPTH_SIZE[0]) & (y < DEPTH_SIZE[1])
        return np.where(inside, depth[np.where(inside, y, 0), np.where(inside, x, 0)], 0).astype(np.uint16)

    def _sharpness(self, number: int) -> float:
        """-1 where the picture cannot be decoded."""
        image = self._images[number]
        try:
            return laplacian_variance(
                read_picture(self._place.picture(self._dataset.camera, image.name), image.camera.size)
            )
        except DamagedPicture:
            return -1.0

    def _places(self, number: int) -> NDArray[np.int64]:
        """Cells of the mesh that the image shows."""
        image = self._images[number]
        size = fitted_size(image.camera.size, 160)
        intrinsics = resized_intrinsics(self._undistortion(image).intrinsics, image.camera.size, size)
        depth = self._renderer.render(intrinsics, image.scan_from_camera, *size, far=_FAR).depth
        return seen_cells(depth.astype(np.float64), intrinsics, image.scan_from_camera)


def raw_scenes(dataset: ScanNetPPDataset) -> RawDataset:
    """The scenes of the wanted splits, as far as they are on disk.

    Raises:
        ConfigError: PANO3D_SCANNETPP_ROOT names no folder.
        DataError: split or metadata files are missing, the class list is not the benchmark's, or a split has no scene.
    """
    root = raw_root("PANO3D_SCANNETPP_ROOT", dataset.name)
    table = read_class_table(root / "metadata")
    space = label_space(dataset.label_space)
    if table.names != space.names:
        raise DataError(
            f"reading {root / 'metadata/semantic_benchmark/top100.txt'}: its {len(table.names)} classes are not the "
            "100 of the benchmark that results are reported in; download the metadata again"
        )
    splits: dict[str, Sequence[str]] = {s: read_lines(root / "splits" / f"{SPLITS[s]}.txt") for s in dataset.splits}
    listed = wanted_scenes(splits, dataset.scenes, dataset.name)
    scenes = [
        RawScene(split, folder.name, folder, partial(build_scene, dataset, folder, table), sources)
        for split, scene in listed
        if (folder := root / "data" / scene_name(scene, root)).is_dir()
        for sources in [SceneFolder(folder).sources(dataset.camera)]
    ]
    return RawDataset(root, scenes, [scene for _, scene in listed], dataset.splits, class_tables(root / "metadata"))


def scene_name(scene: str, root: Path) -> str:
    """A line of a split file, refused where it could lead out of the dataset."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", scene):
        raise DataError(f"reading {root / 'splits'}: {scene[:80]!r} is not a scene id")
    return scene
