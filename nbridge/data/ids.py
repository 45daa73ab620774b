"""Identifiers of rows: one each, no two alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nbridge.errors import DataError


def check_ids(ids: ArrayLike, rows: int | None = None) -> np.ndarray:
    """Identifiers as a new array of integers or text, after checking that each row has one of its own.

    Arguments:
        ids: One identifier a row: integers, whole numbers or text.
        rows: How many rows there should be, where that is known.

    Raises:
        DataError: when they are not one-dimensional, too few or too many, missing (None, NaN, an empty text), or given twice.
    """
    found = np.asarray(ids)
    if found.ndim != 1:
        raise DataError(f"ids: array of shape {found.shape}, expected (rows,)")
    if rows is not None and len(found) != rows:
        raise DataError(f"ids: {len(found)} for {rows} rows, expected one a row")
    if found.dtype.kind not in "iuUfO":
        raise DataError(f"ids: dtype {found.dtype}, expected integers or text")
    _none_missing(found)
    _whole(found)
    plain = found.astype(np.str_ if found.dtype.kind in "OU" else np.int64 if found.dtype.kind == "f" else found.dtype)
    _none_twice(plain)
    return plain


def _none_missing(ids: np.ndarray) -> None:
    for row, value in enumerate(ids.tolist()):
        # NaN is the one value that differs from itself.
        if value is None or value != value or value == "":  # noqa: PLR0124
            raise DataError(f"ids: row {row} has none")


def _whole(ids: np.ndarray) -> None:
    if ids.dtype.kind == "f" and (bad := np.flatnonzero(~np.isfinite(ids) | (ids != np.floor(ids)) | (np.abs(ids) > 2**53))).size:
        raise DataError(f"ids: row {bad[0]} holds {ids[bad[0]]}, expected an integer or text")


def _none_twice(ids: np.ndarray) -> None:
    first: dict[object, int] = {}
    for row, value in enumerate(ids.tolist()):
        if first.setdefault(value, row) != row:
            raise DataError(f"ids: {value!r} stands in row {first[value]} and again in row {row}, expected each id once")
