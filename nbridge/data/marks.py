"""Marks of values that an earlier imputation filled, ``NAME__imputed``, which completed files keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from nbridge.common.messages import listing
from nbridge.common.warnings import Finding
from nbridge.errors import DataError

IMPUTED = "__imputed"
"""The suffix of masks of imputed rows or cells."""
COUNTED = "they count as observed"
"""The consequence of marks where rows are only read."""


def either(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    r"""Where one of two masks is true: of rows, (N,), or of cells, (N, \*shape); a row stands for all its cells.

    Example:
        >>> either(np.array([True, False]), np.array([[False, False], [False, True]])).tolist()
        [[True, True], [False, True]]
    """
    wide, narrow = (one, other) if one.ndim >= other.ndim else (other, one)
    return wide | narrow.reshape(*narrow.shape, *(1 for _ in wide.shape[narrow.ndim :]))


def check_marks(key: str, shape: tuple[int, ...], rows: int, size: int) -> None:
    """Checks the shape of marks: one for each row, or for each of the ``size`` elements of a row.

    Raises:
        DataError: when they have another.
    """
    if shape[:1] != (rows,) or (len(shape) > 1 and prod(shape[1:]) != size):
        raise DataError(
            f"{key}: array of shape {shape}, expected ({rows},) or ({rows}, {size}): it marks values that were imputed before; "
            "rename it if it is something else"
        )


def as_marks(key: str, array: np.ndarray) -> np.ndarray:
    """Marks as booleans; NaN is false.

    Raises:
        DataError: when they are neither true or false, nor 1 or 0.
    """
    if array.dtype.kind not in "buif" or not np.isin(np.nan_to_num(array), (0, 1)).all():
        raise DataError(f"{key}: marks values that were imputed before, expected true or false (1 or 0); rename it if it is something else")
    return np.nan_to_num(array).astype(bool)


def in_shape(marks: np.ndarray, like: tuple[int, ...]) -> np.ndarray:
    """Marks of cells in the shape of the values of the same rows; of rows where values have one number for each."""
    if marks.ndim == 1:
        return marks
    alike = len(like) > 1 and prod(marks.shape[1:]) == prod(like[1:])
    return marks.reshape(like) if alike else np.asarray(marks.reshape(len(marks), -1).any(1))


def rows_marked(marks: np.ndarray) -> int:
    """The number of rows with a mark."""
    return int(marks.reshape(len(marks), -1).any(1).sum()) if marks.size else 0


def rows_marked_by(keys: Mapping[str, str], read: Callable[[str], np.ndarray | None]) -> dict[str, int]:
    """The number of rows with a mark, by modality, for those that have marks.

    Arguments:
        keys: The array of each modality.
        read: Reads the array of its marks; None if there is none.

    Raises:
        DataError: when an array holds no marks.
    """
    found = {name: (key + IMPUTED, read(key + IMPUTED)) for name, key in keys.items()}
    return {name: rows_marked(as_marks(key, array)) for name, (key, array) in found.items() if array is not None}


def imputed_before(rows: Mapping[str, int], consequence: str) -> tuple[Finding, ...]:
    """A warning that values were imputed before; none where no row is marked.

    Arguments:
        rows: The number of marked rows by modality.
        consequence: What it means here, and what to do.
    """
    some = {name: number for name, number in rows.items() if number}
    if not some:
        return ()
    named = listing(f"{name} ({number:,} row{'s' if number > 1 else ''})" for name, number in some.items())
    text = f"these rows hold values that an earlier imputation filled: {named}; {consequence}"
    return (Finding("imputed", ",".join(some), text, {"rows": some}),)
