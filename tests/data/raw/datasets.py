"""A few raw scenes of each dataset, as a user's disk holds them: two to train on and one to validate."""

from __future__ import annotations

from pathlib import Path

from tests.data.raw import scannet, scannetpp

SCENES = {
    "scannet": ("scene0191_00", "scene0191_01", "scene0568_00"),
    "scannet200": ("scene0191_00", "scene0191_01", "scene0568_00"),
    "scannetpp": ("0a1b2c3d4e", "1a1b2c3d4e", "2a1b2c3d4e"),
}
ROOTS = {
    "scannet": "PANO3D_SCANNET_ROOT",
    "scannet200": "PANO3D_SCANNET_ROOT",
    "scannetpp": "PANO3D_SCANNETPP_ROOT",
}


def write_dataset(root: Path, dataset: str) -> None:
    """Furniture stands elsewhere in each scene."""
    scenes = SCENES[dataset]
    if dataset == "scannetpp":
        scannetpp.write_root(root, {"nvs_sem_train": [*scenes[:2]], "nvs_sem_val": [scenes[2]], "sem_test": []})
    for number, scene in enumerate(scenes):
        if dataset == "scannetpp":
            scannetpp.write_scene(root, scene, shift=0.1 * number)
        else:
            scannet.write_scan(root, scene, shift=0.1 * number)
