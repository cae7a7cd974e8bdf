"""One ScanNet scene folder: its files by name, read and checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pano3d.data.meshes import ScanMesh, read_ply
from pano3d.data.scannet.annotation import VertexAnnotation, annotate_vertices, read_segments
from pano3d.data.scannet.exported import ExportedFrames
from pano3d.data.scannet.images_2d import LabelImages, find_label_zip
from pano3d.data.scannet.label_map import LabelMap
from pano3d.data.scannet.sens import SensFile
from pano3d.types import DataError


@dataclass(frozen=True)
class ScanFolder:
    """Where the files of a scene lie; the folder carries the scene's name."""

    folder: Path

    @property
    def scene(self) -> str:
        return self.folder.name

    def file(self, ending: str) -> Path:
        return self.folder / f"{self.scene}{ending}"

    @property
    def mesh(self) -> Path:
        """The decimated mesh, to which the annotation refers."""
        return self.file("_vh_clean_2.ply")

    @property
    def segments(self) -> Path:
        return self.file("_vh_clean_2.0.010000.segs.json")

    @property
    def aggregation(self) -> Path:
        return self.file(".aggregation.json")

    @property
    def has_annotation(self) -> bool:
        """Test scenes have none. One of the two files alone counts as an annotation that is incomplete."""
        return self.segments.exists() or self.aggregation.exists()

    def sources(self) -> list[Path]:
        """Every file that shapes the scene's archive, by name."""
        endings = (".sens", ".txt", "_2d-label.zip", "_2d-label-filt.zip", "_2d-instance.zip", "_2d-instance-filt.zip")
        files = [self.mesh, self.segments, self.aggregation, *(self.file(ending) for ending in endings)]
        if not self.file(".sens").exists():
            files += [
                path for name in ("color", "depth", "pose", "intrinsic") for path in (self.folder / name).glob("*")
            ]
        return sorted(path for path in files if path.is_file())


def read_meta(path: Path) -> dict[str, str]:
    """`key = value` lines of <scene>.txt.

    Raises:
        DataError: missing, or a line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"reading {path}: {error}") from error
    meta = {}
    for number, line in enumerate(lines, 1):
        key, separator, value = line.partition("=")
        if line.strip() and not separator:
            raise DataError(f"reading {path}: line {number}: expected `key = value`, found {line[:60]!r}")
        if separator:
            meta[key.strip()] = value.strip()
    return meta


def axis_alignment(path: Path) -> NDArray[np.float64]:
    """(4 4) aligned_from_scan: to a frame whose walls are parallel to the axes; the identity where the file has none.

    Raises:
        DataError: not sixteen finite numbers, or not rigid.
    """
    text = read_meta(path).get("axisAlignment")
    if text is None:
        return np.eye(4)
    try:
        matrix = np.array([float(word) for word in text.split()]).reshape(4, 4)
    except ValueError as error:
        raise DataError(f"reading {path}: axisAlignment: expected 16 numbers, found {text[:80]!r}") from error
    rotation = matrix[:3, :3]
    rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.allclose(matrix[3], [0, 0, 0, 1])
    if not np.isfinite(matrix).all() or not rigid:
        raise DataError(f"reading {path}: axisAlignment is not a rotation with a translation: {matrix.tolist()}")
    return matrix


def transform(target_from_source: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P 3) points of `source` in `target`."""
    moved = points.astype(np.float64) @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    return moved.astype(np.float32)


def open_frames(scan: ScanFolder) -> SensFile | ExportedFrames:
    """The recording, or its text export where the `.sens` file was not kept.

    Raises:
        DataError: neither is there, or it cannot be trusted.
    """
    path = scan.file(".sens")
    if path.exists() or not (scan.folder / "color").is_dir():
        return SensFile(path)
    return ExportedFrames(scan.folder)


def usable_frames(poses: NDArray[np.float32]) -> NDArray[np.int64]:
    """Numbers of the frames whose pose is known: every entry finite, a rotation, nothing below it but 0 0 0 1."""
    finite = np.asarray(np.isfinite(poses).all(axis=(1, 2)))
    safe = np.where(finite[:, None, None], poses, np.eye(4, dtype=np.float32)).astype(np.float64)
    rotation = safe[:, :3, :3]
    turned = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) < 1e-2
    last = np.abs(safe[:, 3] - [0, 0, 0, 1]).max(axis=1) < 1e-3
    return np.flatnonzero(finite & turned & last & (np.linalg.det(rotation) > 0))


def read_annotation(scan: ScanFolder, mesh: ScanMesh, label_map: LabelMap) -> VertexAnnotation:
    """Objects and ids of the mesh's vertices.

    Raises:
        DataError: a file is missing or disagrees with the mesh.
    """
    segments = read_segments(scan.segments, len(mesh.vertices))
    return annotate_vertices(scan.aggregation, segments, label_map, scan.scene)


def read_mesh(scan: ScanFolder) -> ScanMesh:
    """The decimated mesh."""
    return read_ply(scan.mesh)


def label_images(scan: ScanFolder, kind: Literal["label", "instance"], size: tuple[int, int]) -> LabelImages | None:
    """ScanNet's own label or instance images, None where their ZIP is not there. size: of the colour images."""
    path = find_label_zip(scan.folder, scan.scene, kind)
    return None if path is None else LabelImages(path, kind, size)
