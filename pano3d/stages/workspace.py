"""Where a stage keeps what must survive it: outside DVC's outputs, which are emptied before a stage runs."""

from __future__ import annotations

import os
from pathlib import Path


def work_folder() -> Path:
    """work/ of the project, also from within a temporary DVC experiment, whose own folder is thrown away."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve() / "work"
