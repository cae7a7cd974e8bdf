"""Counting pixels or points by label: dense ids and joint histograms, one pass each, no loop over pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pano3d.types import VOID, DataError

IntArray = NDArray[np.integer]
FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

_TABLE_LIMIT = 1 << 24  # above this many possible ids a lookup table costs more than sorting


def require_same_shape(what: str, **arrays: NDArray[Any]) -> None:
    """Raise `DataError` unless all arrays have one shape: a prediction of another scene must not be scored."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"{what}: expected arrays of one shape, got {listed}; check that both belong to the same scene")


def require_range(what: str, labels: IntArray, lowest: int, count: int) -> None:
    """Raise `DataError` unless every label lies in [lowest, count)."""
    if labels.size and (int(labels.min()) < lowest or int(labels.max()) >= count):
        raise DataError(
            f"{what}: expected ids in [{lowest}, {count}), got {int(labels.min())} to {int(labels.max())};"
            " check the label space of the prediction against that of the truth"
        )


def densify(labels: IntArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct labels, ascending, and for each element its index among them (same shape as `labels`)."""
    if labels.size == 0:
        return np.zeros(0, np.int64), np.zeros(labels.shape, np.int64)
    low, high = int(labels.min()), int(labels.max())
    if high - low >= _TABLE_LIMIT:
        distinct, index = np.unique(labels, return_inverse=True)
        return distinct.astype(np.int64), index.reshape(labels.shape).astype(np.int64)
    shifted = labels.astype(np.int64) - low
    present = np.bincount(shifted.ravel(), minlength=high - low + 1) > 0
    position = np.cumsum(present) - 1
    return np.flatnonzero(present) + low, position[shifted]


def relabel(labels: IntArray, ids: IntArray) -> NDArray[np.int64]:
    """Index of each label in `ids`; `VOID` for a label that is not listed."""
    distinct, index = densify(labels)
    order = {int(label): position for position, label in enumerate(ids)}
    table = np.array([order.get(int(label), VOID) for label in distinct], np.int64)
    return table[index] if distinct.size else index


def joint_histogram(row: IntArray, column: IntArray, num_rows: int, num_columns: int) -> NDArray[np.int64]:
    """(num_rows, num_columns) counts of elements by (row, column); both must already be in range."""
    joint = row.ravel().astype(np.int64) * num_columns + column.ravel()
    return np.bincount(joint, minlength=num_rows * num_columns).reshape(num_rows, num_columns)


def ratio(numerator: NDArray[Any], denominator: NDArray[Any], empty: float) -> NDArray[np.float64]:
    """Element-wise quotient, `empty` where the denominator is 0."""
    quotient = np.full(np.shape(numerator), empty, np.float64)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
