"""Cameras of ScanNet++ from COLMAP's text model or nerfstudio's transforms.json, in this project's convention.

COLMAP puts the centre of the first pixel at (0.5, 0.5); here pixel centres are integers, so 0.5 is taken off the
principal point on reading. OpenCV, which undistorts, counts the same way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.data.json_files import read_json
from pano3d.types import DataError

FloatArray = NDArray[np.float64]

# Number of parameters, the first four being fx fy cx cy; the rest are distortion as OpenCV takes it.
_MODELS = {"OPENCV_FISHEYE": 8, "OPENCV": 8, "PINHOLE": 4}
_MAX_SIDE = 16384
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class RawCamera:
    """model: COLMAP's name. size: (width, height). params: fx fy cx cy and distortion; pixel centres at integers."""

    model: str
    size: tuple[int, int]
    params: FloatArray

    @property
    def intrinsics(self) -> FloatArray:
        """(3 3) before undistortion."""
        fx, fy, cx, cy = self.params[:4]
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    @property
    def distortion(self) -> FloatArray:
        return self.params[4:]


@dataclass(frozen=True)
class PosedImage:
    """name: the file's name without folders; listed_name: as the camera file has it."""

    name: str
    listed_name: str
    camera: RawCamera
    scan_from_camera: FloatArray


def read_colmap(folder: Path) -> list[PosedImage]:
    """The registered images of a COLMAP text model, by image id.

    Raises:
        DataError: a file is missing or malformed; names file and line.
    """
    cameras = _read_cameras(folder / "cameras.txt")
    path = folder / "images.txt"
    found: dict[int, PosedImage] = {}
    lines = iter(enumerate(_lines(path), 1))
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        next(lines, None)  # the image's points, possibly an empty line
        words = line.split()
        where = f"reading {path}: line {number}"
        if len(words) != 10:
            raise DataError(f"{where}: expected id, quaternion, translation, camera and name, found {line[:80]!r}")
        try:
            id, camera_id = int(words[0]), int(words[8])
            numbers = np.array([float(word) for word in words[1:8]])
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error
        if camera_id not in cameras:
            raise DataError(f"{where}: camera {camera_id} is not in cameras.txt")
        if id in found:
            raise DataError(f"{where}: image {id} occurs twice")
        pose = _inverse_pose(numbers[:4], numbers[4:], where)
        found[id] = PosedImage(plain_name(words[9], where), words[9], cameras[camera_id], pose)
    if not found:
        raise DataError(f"reading {path}: it lists no image")
    return [found[id] for id in sorted(found)]


def plain_name(listed: str, where: str) -> str:
    """The file's name without the folder (`video/`, `iphone/`) that some models put before it.

    Raises:
        DataError: it could lead anywhere else than to a file of the scene.
    """
    name = listed.rpartition("/")[2]
    if not _PLAIN_NAME.fullmatch(name) or name.startswith(".") or ".." in listed or listed.startswith("/"):
        raise DataError(f"{where}: image name {listed[:80]!r} is not a plain file name; refused")
    return name


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"reading {path}: {error}") from error


def _read_cameras(path: Path) -> dict[int, RawCamera]:
    cameras = {}
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"reading {path}: line {number}"
        try:
            id, model, size = int(words[0]), words[1], (int(words[2]), int(words[3]))
            params = np.array([float(word) for word in words[4:]])
        except (ValueError, IndexError) as error:
            raise DataError(f"{where}: expected id, model, size and parameters, found {line[:80]!r}") from error
        cameras[id] = _camera(model, size, params, where)
    return cameras


def _camera(model: str, size: tuple[int, int], params: FloatArray, where: str) -> RawCamera:
    """Takes half a pixel off the principal point."""
    if model not in _MODELS:
        raise DataError(f"{where}: camera model {model} is not read; expected one of {', '.join(_MODELS)}")
    if len(params) != _MODELS[model] or not np.isfinite(params).all() or min(params[:2]) <= 0:
        raise DataError(f"{where}: {model} takes {_MODELS[model]} finite parameters, found {params.tolist()}")
    if not all(0 < side <= _MAX_SIDE for side in size):
        raise DataError(f"{where}: image size {size}; expected 1 to {_MAX_SIDE}")
    return RawCamera(model, size, params - np.array([0, 0, 0.5, 0.5] + [0] * (len(params) - 4)))


def _inverse_pose(quaternion: FloatArray, translation: FloatArray, where: str) -> FloatArray:
    """scan_from_camera of COLMAP's world-to-camera; quaternion w x y z."""
    norm = float(np.linalg.norm(quaternion))
    if not np.isfinite([*quaternion, *translation]).all() or abs(norm - 1) > 1e-3:
        raise DataError(f"{where}: not a pose: quaternion {quaternion.tolist()}, translation {translation.tolist()}")
    w, x, y, z = quaternion / norm
    camera_from_scan = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    pose = np.eye(4)
    pose[:3, :3] = camera_from_scan.T
    pose[:3, 3] = -camera_from_scan.T @ translation
    return pose


def read_nerfstudio(path: Path) -> list[PosedImage]:
    """Frames and test frames of transforms.json, by name, for scenes whose COLMAP model was not downloaded.

    It holds camera-to-world with OpenGL axes and a turned world: from OpenCV axes, columns y and z were negated, world
    rows 0 and 1 swapped and row 2 negated. That is undone here.

    Raises:
        DataError: missing or malformed.
    """
    content = read_json(path)
    model = content.get("camera_model")
    keys = ["fl_x", "fl_y", "cx", "cy"]
    keys += {"OPENCV_FISHEYE": ["k1", "k2", "k3", "k4"], "OPENCV": ["k1", "k2", "p1", "p2"]}.get(str(model), [])
    try:
        params = np.array([float(content[key]) for key in keys])
        size = (int(content["w"]), int(content["h"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"reading {path}: expected numbers {', '.join(keys)}, w and h ({error!r})") from error
    camera = _camera(str(model), size, params, f"reading {path}")
    frames = [*_list(content, "frames", path), *_list(content, "test_frames", path)]
    images = [_nerfstudio_frame(frame, camera, f"reading {path}: frame {n}") for n, frame in enumerate(frames)]
    if not images:
        raise DataError(f"reading {path}: it lists no frame")
    return sorted(images, key=lambda image: image.name)


def _list(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    value = content.get(key, [])
    if not isinstance(value, list):
        raise DataError(f"reading {path}: {key}: expected a list, found {type(value).__name__}")
    return value


def _nerfstudio_frame(frame: Any, camera: RawCamera, where: str) -> PosedImage:
    try:
        listed = str(frame["file_path"])
        matrix = np.array(frame["transform_matrix"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: expected file_path and transform_matrix ({error!r})") from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise DataError(f"{where}: transform_matrix is not a finite 4x4 matrix")
    matrix[2] *= -1
    matrix = matrix[[1, 0, 2, 3]]
    matrix[:, 1:3] *= -1
    rotation = matrix[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise DataError(f"{where}: transform_matrix is not a pose")
    return PosedImage(plain_name(listed, where), listed, camera, matrix)
