"""Prefect: what runs when. Nothing in pano3d/ imports this; a flow runs DVC and the commands as child processes."""

import os
from pathlib import Path

from pano3d.processes import silence_telemetry

# Read by Prefect when it is imported, so before that; whoever has chosen otherwise keeps the choice.
silence_telemetry()
os.environ.setdefault("PREFECT_HOME", str(Path(__file__).resolve().parents[1] / ".prefect"))
# Without a server every process starts a temporary one; its first start migrates a database.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
