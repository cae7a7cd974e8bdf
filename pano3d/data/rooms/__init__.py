"""The embedded dataset: rooms built from primitives, lit and photographed by ray casting."""

from pano3d.data.rooms.config import QUALITIES, SPLITS, RoomsConfig, SplitSizes
from pano3d.data.rooms.generate import generate_scene, scene_names

__all__ = ["QUALITIES", "SPLITS", "RoomsConfig", "SplitSizes", "generate_scene", "scene_names"]
