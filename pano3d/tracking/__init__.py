"""Runs, artifacts and the registry; the only importer of MLflow. `PANO3D_TRACKING=off` makes all of it do nothing."""

from pano3d.tracking.runs import Recorder, run
from pano3d.tracking.store import TrackingError

__all__ = ["Recorder", "TrackingError", "run"]
