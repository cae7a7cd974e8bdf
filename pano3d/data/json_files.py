"""JSON of unknown origin: read whole, typed before use, every fault with the file's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.types import DataError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"reading {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"reading {path}: not JSON ({error}); it was cut or damaged, download it again") from error
    if not isinstance(value, dict):
        raise DataError(f"reading {path}: expected an object, found {type(value).__name__}")
    return value


def whole_number(value: Any, what: str) -> int:
    """A whole number of at least 0, also where it is written as text.

    Raises:
        DataError: it is none.
    """
    if isinstance(value, str) and value.isdecimal() and len(value) < 19:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    raise DataError(f"{what}: expected a whole number of at least 0, found {str(value)[:60]!r}")


def whole_numbers(value: Any, what: str) -> NDArray[np.int64]:
    """(N,) of `whole_number`."""
    if not isinstance(value, list):
        raise DataError(f"{what}: expected a list of numbers, found {type(value).__name__}")
    return np.array([whole_number(one, what) for one in value], np.int64)
