"""The datasets that can be chosen in params/dataset, told apart by their name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pano3d.data.raw_files import RawDataset
from pano3d.data.rooms.config import RoomsConfig
from pano3d.data.scannet.scene import ScanNetDataset
from pano3d.data.scannet.scene import raw_scenes as scannet_scenes
from pano3d.data.scannetpp.scene import ScanNetPPDataset
from pano3d.data.scannetpp.scene import raw_scenes as scannetpp_scenes


@dataclass(frozen=True)
class RoomsDataset:
    """The generated rooms as a dataset. license: of the pictures and of every model trained on them alone."""

    name: Literal["rooms"]
    label_space: Literal["scannet20"]
    license: str
    generator: RoomsConfig


TITLES = {
    "rooms": "generated rooms",
    "scannet": "ScanNet v2, 20 classes",
    "scannet200": "ScanNet200, 200 classes",
    "scannetpp": "ScanNet++ v2, 100 classes",
}
"""The datasets' names for people."""

ScanDataset = ScanNetDataset | ScanNetPPDataset
Dataset = RoomsDataset | ScanDataset


def raw_dataset(dataset: ScanDataset) -> RawDataset:
    """The raw scenes of a dataset that is on disk."""
    return scannetpp_scenes(dataset) if isinstance(dataset, ScanNetPPDataset) else scannet_scenes(dataset)
