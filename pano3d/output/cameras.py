"""Cameras of a scene as JSON, as COLMAP's text model and as a TUM trajectory.

COLMAP counts pixel centres from one half, we from zero: its principal point is ours plus 0.5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pano3d.files import write_whole
from pano3d.panoptic.lifting import LabelledPoints
from pano3d.types import DataError, PanopticScene

COLMAP_POINTS = 20_000
"""Points written to points3D.txt, evenly spread over the scene's: text for viewers, not for bundle adjustment."""


def write_cameras(
    scene: PanopticScene, names: Sequence[str], photo_intrinsics: Float[np.ndarray, "v 3 3"], path: Path
) -> None:
    """`cameras.json`: per view its name, size, intrinsics (of the network's image and of the photo) and pose."""
    height, width = scene.depth.shape[1:]
    views = [
        {
            "name": name,
            "width": width,
            "height": height,
            "intrinsics": scene.intrinsics[view].tolist(),
            "photo_intrinsics": photo_intrinsics[view].tolist(),
            "world_from_camera": scene.world_from_camera[view].tolist(),
        }
        for view, name in enumerate(names)
    ]
    conventions = "OpenCV axes (x right, y down, z forward); pixel centres at integers; 4x4 on column vectors"
    write_whole(path, (json.dumps({"conventions": conventions, "views": views}, indent=1) + "\n").encode())


def read_cameras(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64] | None]:
    """Names, world_from_camera (V 4 4) and intrinsics (V 3 3) of the network's images, where given, of a cameras.json.

    Raises:
        DataError: missing, not JSON, or not of this form.
    """
    try:
        views = json.loads(path.read_text(encoding="utf-8"))["views"]
        names = [str(view["name"]) for view in views]
        poses = np.array([view["world_from_camera"] for view in views], np.float64).reshape(-1, 4, 4)
        given = all("intrinsics" in view for view in views)
        intrinsics = np.array([view["intrinsics"] for view in views], np.float64).reshape(-1, 3, 3) if given else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"reading cameras {path}: expected a list `views` with `name` and a 4x4 `world_from_camera` each ({error})"
        ) from error
    rotation = poses[:, :3, :3]
    if not np.isfinite(poses).all() or not np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-3):
        raise DataError(f"reading cameras {path}: a world_from_camera is not a rotation with a position")
    return names, poses, intrinsics


def write_colmap(scene: PanopticScene, names: Sequence[str], points: LabelledPoints, folder: Path) -> None:
    """`cameras.txt`, `images.txt` and `points3D.txt`: one PINHOLE camera per view, points without tracks."""
    height, width = scene.depth.shape[1:]
    cameras, images = [], []
    for view, name in enumerate(names):
        k = scene.intrinsics[view]
        cameras.append(f"{view + 1} PINHOLE {width} {height} {_row([k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5])}")
        camera_from_world = np.linalg.inv(scene.world_from_camera[view])
        x, y, z, w = Rotation.from_matrix(camera_from_world[:3, :3]).as_quat(canonical=True)
        images.append(f"{view + 1} {_row([w, x, y, z, *camera_from_world[:3, 3]])} {view + 1} {name}.jpg\n")
    total = len(points.points_world)
    chosen = np.unique(np.linspace(0, total - 1, min(total, COLMAP_POINTS)).round().astype(int)).tolist()
    clouds = [
        f"{number} {_row(points.points_world[index].tolist())} {' '.join(map(str, points.colors[index].tolist()))} 0"
        for number, index in enumerate(chosen, 1)
    ]
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", clouds)):
        write_whole(folder / f"{name}.txt", "".join(f"{line}\n" for line in lines).encode())


def write_trajectory(scene: PanopticScene, path: Path) -> None:
    """TUM format, one line per view: its number, position, and rotation as quaternion x y z w; world from camera."""
    lines = [trajectory_line(view, pose) for view, pose in enumerate(scene.world_from_camera)]
    write_whole(path, "".join(lines).encode())


def trajectory_line(number: int, world_from_camera: Float[np.ndarray, "4 4"]) -> str:
    """One line of a TUM trajectory, its end included."""
    quaternion = Rotation.from_matrix(world_from_camera[:3, :3]).as_quat(canonical=True)
    return f"{number} {_row([*world_from_camera[:3, 3], *quaternion])}\n"


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)
