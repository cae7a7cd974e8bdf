"""`scannetv2-labels.combined.tsv`: what each free-text label of the annotation means in the benchmarks' id spaces."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from pano3d.types import DataError

_OTHER_PROP = 40
# Ids that came with ScanNet200's revision of the map: a copy without them gives other truths for the 200 classes.
_REVISED_IDS = frozenset(range(1163, 1192))
_COLUMNS = ("id", "raw_category", "nyu40id")


@dataclass(frozen=True)
class LabelIds:
    """raw_id: column `id`, the space of ScanNet200 and of the 2D label images. nyu40_id: the space of ScanNet-20."""

    raw_id: int
    nyu40_id: int


@dataclass(frozen=True)
class LabelMap:
    """by_label: raw_category -> ids. path: where it was read, for messages."""

    path: Path
    by_label: dict[str, LabelIds]

    def require_revision(self) -> None:
        """Refuse a map older than ScanNet200.

        Raises:
            DataError: none of the ids that the revision added occurs.
        """
        if not _REVISED_IDS & {ids.raw_id for ids in self.by_label.values()}:
            raise DataError(
                f"reading {self.path}: none of the ids {min(_REVISED_IDS)} to {max(_REVISED_IDS)} occurs: this map is "
                "older than ScanNet200; download scannetv2-labels.combined.tsv again"
            )


def read_label_map(path: Path) -> LabelMap:
    """Read the map by its column names. An empty nyu40id is 40 (otherprop).

    Raises:
        DataError: missing, a column is missing, or an id is not a number; names the line.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            absent = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
            if absent:
                raise DataError(
                    f"reading {path}: no column {', '.join(absent)}; expected scannetv2-labels.combined.tsv, whose "
                    f"columns include {', '.join(_COLUMNS)}"
                )
            by_label = {row["raw_category"]: _ids(row, path, reader.line_num) for row in reader}
    except OSError as error:
        raise DataError(f"reading {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"reading {path}: not a table of text ({error})") from error
    return LabelMap(path, by_label)


def _ids(row: dict[str, str | None], path: Path, line: int) -> LabelIds:
    raw, nyu40 = (row["id"] or "").strip(), (row["nyu40id"] or "").strip()
    if not raw.isdecimal() or not (nyu40.isdecimal() or not nyu40):
        raise DataError(f"reading {path}: line {line}: id {raw!r} and nyu40id {nyu40!r}; expected whole numbers")
    return LabelIds(int(raw), int(nyu40) if nyu40 else _OTHER_PROP)
