"""Fisheye and OpenCV images to pinhole images, as ScanNet++'s toolkit does it, with pixel centres at integers.

The toolkit hands COLMAP's matrix to OpenCV as it is, half a pixel off; here the principal point was corrected on
reading, so that the result agrees with the mesh.
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pano3d.data.scannetpp.cameras import RawCamera

FloatArray = NDArray[np.float64]


class Undistortion:
    """One camera's maps, made once. The undistorted image has the raw one's size.

    intrinsics: (3 3) of the undistorted image. Fisheye: focal lengths that leave no empty border (balance 0) with the
    principal point moved to the image's centre; OPENCV keeps its matrix.
    """

    def __init__(self, camera: RawCamera):
        self._camera = camera
        width, height = camera.size
        self.intrinsics = camera.intrinsics
        if camera.model == "OPENCV_FISHEYE":
            self.intrinsics = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(
                camera.intrinsics, camera.distortion, camera.size, np.eye(3), balance=0.0
            )
            self.intrinsics[:2, 2] = (width - 1) / 2, (height - 1) / 2

    @cached_property
    def maps(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Column and row (H W) of the raw image behind each pixel."""
        camera, size = self._camera, self._camera.size
        if camera.model == "OPENCV_FISHEYE":
            maps = cv2.fisheye.initUndistortRectifyMap(
                camera.intrinsics, camera.distortion, np.eye(3), self.intrinsics, size, cv2.CV_32FC1
            )
        else:
            distortion = camera.distortion if len(camera.distortion) else None
            maps = cv2.initUndistortRectifyMap(
                camera.intrinsics, distortion, np.eye(3), self.intrinsics, size, cv2.CV_32FC1
            )
        return np.asarray(maps[0], np.float32), np.asarray(maps[1], np.float32)

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H W 3), bilinear; beyond the raw image's border it is mirrored."""
        return np.asarray(cv2.remap(image, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.uint8)

    def mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H W) 255 valid, 0 anonymised: a pixel that touches an anonymised one is anonymised."""
        if mask.min() > 0:
            return np.full_like(mask, 255)
        moved = cv2.remap(mask, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=255)
        return np.where(np.asarray(moved) < 255, 0, 255).astype(np.uint8)
