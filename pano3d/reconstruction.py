"""From images to a `PanopticScene`: what evaluation, the commands and the served model all call."""

from __future__ import annotations

from dataclasses import replace

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
from pano3d.types import BackboneOutput, DataError, PanopticScene, Views


class Reconstructor:
    """A network with its label space and its way of turning masks into segments.

    image_width, image_height: what the network was trained on; `reconstruct` takes any size that divides by the
    patch size, and does best near this one.
    """

    def __init__(
        self,
        model: Pano3D,
        labels: LabelSpace,
        image_width: int,
        image_height: int,
        scene_config: SceneConfig,
        device: torch.device,
    ):
        self.model = model.to(device).eval()
        self.labels = labels
        self.image_width, self.image_height = image_width, image_height
        self._scene_config = scene_config
        self._device = device

    @torch.no_grad()
    def reconstruct(
        self,
        images: UInt8[np.ndarray, "v h w 3"],
        intrinsics: Float[np.ndarray, "v 3 3"] | None = None,
        world_from_camera: Float[np.ndarray, "v 4 4"] | None = None,
    ) -> PanopticScene:
        """Reconstruct and segment one room.

        Args:
            images: RGB, in any order; view 0 anchors the world frame.
            intrinsics: known cameras, pixels; reported instead of the recovered ones.
            world_from_camera: known poses; the result is carried into their frame by the similarity that best
                aligns the camera centres, so its scale becomes theirs.

        Raises:
            DataError: no image, not RGB bytes, or a size the network cannot take.
        """
        views = self._views(images)
        output, masks = self.model(views)
        world, cameras = _cameras(output)
        scene = assemble_scene(
            masks,
            output,
            colors=images,
            world_from_camera=world,
            intrinsics=cameras if intrinsics is None else np.asarray(intrinsics, np.float64),
            class_names=self.labels.names,
            is_thing=self.labels.is_thing,
            config=self._scene_config,
        )
        return scene if world_from_camera is None else carry_to_cameras(scene, world_from_camera)

    def _views(self, images: NDArray[np.uint8]) -> Views:
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
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
        return Views(images=(tensor.permute(0, 3, 1, 2).float() / 255.0)[None])


def _cameras(output: BackboneOutput) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """world_from_camera (V 4 4) and intrinsics (V 3 3): predicted where the backbone does, recovered elsewhere."""
    if output.world_from_camera is None:
        cameras = recover_cameras(output.points_world, output.points_camera, output.confidence)
        world, intrinsics = cameras.world_from_camera, cameras.intrinsics
    else:
        world, intrinsics = output.world_from_camera, fit_pinhole(output.points_camera)
    return world[0].cpu().numpy().astype(np.float64), intrinsics[0].cpu().numpy().astype(np.float64)


def carry_to_cameras(scene: PanopticScene, world_from_camera: NDArray[np.float64]) -> PanopticScene:
    """The scene in the frame and scale of known camera poses.

    Raises:
        DataError: the number of poses is not the number of views.
        DegenerateError: the camera centres do not fix a similarity.
    """
    if world_from_camera.shape != scene.world_from_camera.shape:
        raise DataError(
            f"aligning to known cameras: {len(scene.world_from_camera)} views and poses of shape "
            f"{world_from_camera.shape}; expected one 4x4 matrix per view"
        )
    known_from_world = align_similarity(scene.world_from_camera[:, :3, 3], world_from_camera[:, :3, 3])
    return replace(
        scene,
        points_world=apply_transform(known_from_world, scene.points_world).astype(np.float32),
        depth=(scene.depth * scale_of(known_from_world)).astype(np.float32),
        world_from_camera=move_cameras(known_from_world, scene.world_from_camera),
    )
