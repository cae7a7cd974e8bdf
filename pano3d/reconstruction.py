"""From images to a `PanopticScene`: what evaluation, the commands and the served model all call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from pano3d.data.label_spaces import LabelSpace
from pano3d.geometry.alignment import align_similarity, apply_transform, move_cameras, scale_of
from pano3d.geometry.cameras import recover_cameras
from pano3d.geometry.rays import fit_pinhole
from pano3d.model import Pano3D
from pano3d.panoptic.scene import SceneConfig, assemble_scene
from pano3d.photos import find_photos, read_photos
from pano3d.types import BackboneOutput, DataError, PanopticScene, Views

Precision = Literal["float32", "bfloat16"]


class Reconstructor:
    """A network with its label space and its way of turning masks into segments.

    image_width, image_height: what the network was trained on; `reconstruct` takes any size that divides by the
    patch size, and does best near this one.
    precision: bfloat16 runs the matrix products in 16 bits, which pays on GPUs.
    """

    def __init__(
        self,
        model: Pano3D,
        labels: LabelSpace,
        image_width: int,
        image_height: int,
        scene_config: SceneConfig,
        device: torch.device,
        precision: Precision = "float32",
    ):
        self.model = model.to(device).eval()
        self.labels = labels
        self.image_width, self.image_height = image_width, image_height
        self.scene_config = scene_config
        self.device, self.precision = device, precision

    @torch.no_grad()
    def reconstruct(
        self,
        images: UInt8[np.ndarray, "v h w 3"] | str | Path | Sequence[str | Path],
        intrinsics: Float[np.ndarray, "v 3 3"] | None = None,
        world_from_camera: Float[np.ndarray, "v 4 4"] | None = None,
    ) -> PanopticScene:
        """Reconstruct and segment one room.

        Args:
            images: RGB, in any order; MUSt3R's world is the camera of view 0, Pi3's is free. Or a folder of photos, or
                a list of files: they are turned upright, cropped and resized, and those that cannot be read are left
                out.
            intrinsics: known cameras, pixels; reported instead of the recovered ones.
            world_from_camera: known poses; the result is carried into their frame by the similarity that best
                aligns the cameras, so its scale becomes theirs.

        Raises:
            DataError: no image, not RGB bytes, a size the network cannot take, or known cameras that are not one finite
                matrix per view.
            DegenerateError: all known poses, or all predicted ones, are in one place, which gives no scale.
        """
        if not isinstance(images, np.ndarray):
            paths = [Path(images)] if isinstance(images, (str, Path)) else [Path(path) for path in images]
            images = read_photos(find_photos(paths), self.image_width, self.image_height).colors
        views = self.views(images)
        if intrinsics is not None:
            _require_matrices("known intrinsics", intrinsics, len(images), 3)
        if world_from_camera is not None:
            _require_matrices("known poses", world_from_camera, len(images), 4)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            output, masks = self.model(views)
        output = _in_float32(output)
        world, cameras = _cameras(output)
        scene = assemble_scene(
            masks,
            output,
            colors=images,
            world_from_camera=world,
            intrinsics=cameras if intrinsics is None else np.asarray(intrinsics, np.float64),
            class_names=self.labels.names,
            is_thing=self.labels.is_thing,
            config=self.scene_config,
        )
        return scene if world_from_camera is None else carry_to_cameras(scene, world_from_camera)

    def views(self, images: UInt8[np.ndarray, "v h w 3"]) -> Views:
        """Images as the network takes them, on its device.

        Raises:
            DataError: as `reconstruct`.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or len(images) == 0:
            raise DataError(
                f"reconstructing: expected uint8 images (V, H, W, 3) with V >= 1, got {images.dtype} {images.shape}"
            )
        patch = self.model.backbone.patch_size
        height, width = images.shape[1:3]
        if height % patch or width % patch:
            raise DataError(
                f"reconstructing: images are {width}x{height}; both sides must divide by {patch}. The network was "
                f"trained on {self.image_width}x{self.image_height}: resize to that"
            )
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        return Views(images=(tensor.permute(0, 3, 1, 2).float() / 255.0)[None])


def _in_float32(output: BackboneOutput) -> BackboneOutput:
    """Geometry in single precision whatever the network ran in: cameras are solved for, and 8 bits are too few."""
    world = output.world_from_camera
    return replace(
        output,
        points_world=output.points_world.float(),
        points_camera=output.points_camera.float(),
        confidence=output.confidence.float(),
        world_from_camera=None if world is None else world.float(),
    )


def _cameras(output: BackboneOutput) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """world_from_camera (V 4 4) and intrinsics (V 3 3): predicted where the backbone does, recovered elsewhere."""
    if output.world_from_camera is None:
        cameras = recover_cameras(output.points_world, output.points_camera, output.confidence)
        world, intrinsics = cameras.world_from_camera, cameras.intrinsics
    else:
        world, intrinsics = output.world_from_camera, fit_pinhole(output.points_camera)
    return world[0].cpu().numpy().astype(np.float64), intrinsics[0].cpu().numpy().astype(np.float64)


def carry_to_cameras(scene: PanopticScene, world_from_camera: NDArray[np.float64]) -> PanopticScene:
    """The scene in the frame and scale of known camera poses; raises as `align_to_cameras`."""
    return move_scene(scene, align_to_cameras(scene, world_from_camera)[0])


def align_to_cameras(scene: PanopticScene, world_from_camera: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The similarity that best carries the scene's cameras onto known ones, and the RMS distance left between their
    centres (in the unit of the known ones).

    Of each camera its centre counts and the tips of its axes, which are as long as the centres are spread: on a
    straight walk the centres alone would leave the turn about it to their noise.

    Raises:
        DataError: the poses are not one finite matrix per view.
        DegenerateError: the centres coincide, on either side.
    """
    _require_matrices("known poses", world_from_camera, len(scene.world_from_camera), 4)
    known_from_world = align_similarity(
        _centres_and_tips(scene.world_from_camera), _centres_and_tips(world_from_camera)
    )
    own, known = scene.world_from_camera[:, :3, 3], world_from_camera[:, :3, 3]
    residual = np.linalg.norm(apply_transform(known_from_world, own) - known, axis=1)
    return known_from_world, float(np.sqrt(np.mean(residual**2)))


def _centres_and_tips(world_from_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4 V, 3) centres of cameras, and their axes' tips one RMS spread of the centres away."""
    centres, axes = world_from_camera[:, :3, 3], world_from_camera[:, :3, :3].transpose(0, 2, 1)
    spread = np.sqrt(((centres - centres.mean(0)) ** 2).sum(1).mean())
    return np.concatenate([centres, (centres[:, None] + spread * axes).reshape(-1, 3)])


def _require_matrices(what: str, matrices: NDArray[np.floating], views: int, size: int) -> None:
    expected = (views, size, size)
    if matrices.shape != expected or not np.isfinite(matrices).all():
        found = f"shape {matrices.shape}" if matrices.shape != expected else "values that are not finite"
        raise DataError(f"{what}: expected {views} finite matrices of {size}x{size}, one per view, got {found}")


def move_scene(scene: PanopticScene, target_from_world: Float[np.ndarray, "4 4"]) -> PanopticScene:
    """The scene in another frame and scale, by a similarity."""
    return replace(
        scene,
        points_world=apply_transform(target_from_world, scene.points_world).astype(np.float32),
        depth=(scene.depth * scale_of(target_from_world)).astype(np.float32),
        world_from_camera=move_cameras(target_from_world, scene.world_from_camera),
    )


def scale_to_length(
    scene: PanopticScene, view: int, ends: tuple[tuple[float, float], tuple[float, float]], length: float
) -> tuple[PanopticScene, float]:
    """The scene in the unit of a length that is known, and the factor by which it grew.

    Args:
        view, ends: where the length is seen: (x, y) of its two ends, pixels of that view's image.
        length: its true distance, metres.

    Raises:
        DataError: an end lies outside the image, or both ends have the same or no point.
    """
    height, width = scene.depth.shape[1:]
    if not 0 <= view < len(scene.depth) or not length > 0:
        raise DataError(
            f"fixing the scale: view {view} of {len(scene.depth)}, length {length}; expected a positive one"
        )
    points = []
    for x, y in ends:
        column, row = round(x), round(y)
        if not (0 <= column < width and 0 <= row < height):
            raise DataError(f"fixing the scale: pixel ({x:.0f}, {y:.0f}) lies outside the {width}x{height} part in use")
        points.append(scene.points_world[view, row, column].astype(np.float64))
    found = float(np.linalg.norm(points[1] - points[0]))
    if not (np.isfinite(found) and found > 0):
        raise DataError("fixing the scale: both ends have the same point in the reconstruction; choose a longer length")
    factor = length / found
    return move_scene(scene, np.diag([factor, factor, factor, 1.0])), factor


def view_agreement(scene: PanopticScene, tolerance: float = 0.1, samples: int = 500) -> NDArray[np.float64]:
    """(V,) share of each view's pixels that at least one other view confirms.

    A pixel is confirmed where its point falls into the other image at a depth within `tolerance` (a share) of that
    image's own. Photos of another room, and views the network did not understand, find little agreement.

    Args:
        samples: about so many pixels of each view are looked at.
    """
    count, height, width = scene.depth.shape
    chosen = np.unique(np.linspace(0, height * width - 1, samples).astype(int))
    points = scene.points_world.reshape(count, -1, 3)[:, chosen].astype(np.float64)
    confirmed = np.zeros((count, len(chosen)), bool)
    for other in range(count):
        camera_from_world = np.linalg.inv(scene.world_from_camera[other])
        seen = apply_transform(camera_from_world, points)
        with np.errstate(divide="ignore", invalid="ignore"):
            pixel = np.rint((seen @ scene.intrinsics[other].T)[..., :2] / seen[..., 2:])
            inside = (seen[..., 2] > 0) & (pixel >= 0).all(-1) & (pixel < (width, height)).all(-1)
        column, row = np.where(inside[..., None], pixel, 0).astype(int).transpose(2, 0, 1)
        depth = scene.depth[other][row, column]
        agrees = inside & (np.abs(seen[..., 2] - depth) < tolerance * np.abs(depth))
        agrees[other] = False
        confirmed |= agrees
    return np.asarray(confirmed.mean(1))
