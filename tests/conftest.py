"""Runtime checking of jaxtyping annotations, two torch threads, no telemetry, for every test."""

import os

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")

from jaxtyping import install_import_hook

install_import_hook("pano3d", "beartype.beartype")
