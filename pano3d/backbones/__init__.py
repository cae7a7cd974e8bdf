"""Reconstruction backbones behind one interface; `build` makes the one that a configuration describes."""

from __future__ import annotations

from pano3d.backbones.base import Backbone
from pano3d.backbones.pi3 import Pi3, Pi3Config

BackboneConfig = Pi3Config
"""Every backbone's configuration; their `name` tells them apart."""


def build(config: BackboneConfig) -> Backbone:
    """A freshly initialised network of the class that `config` configures."""
    return {Pi3Config: Pi3}[type(config)](config)


__all__ = ["Backbone", "BackboneConfig", "Pi3", "Pi3Config", "build"]
