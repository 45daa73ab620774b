"""Row identifiers: one per row, unique."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

from nbridge.data.texts import normal_text
from nbridge.errors import DataError


@dataclass(frozen=True)
class Told:
    """How errors in identifiers are worded.

    Arguments:
        what: What the identifiers are called.
        where: Formats the location of a row: its index, and the line in files that have lines.
    """

    what: str = "ids"
    where: Callable[[int], str] = "row {}".format


IDS = Told()
"""Wording for identifiers from an array."""


def identifier_of(text: str) -> str:
    """Normalises an identifier: whitespace stripped, accents composed, since some file systems decompose them.

    Example:
        >>> identifier_of(" Jose\u0301") == "Jos\u00e9"
        True
    """
    return normal_text(text)


def check_ids(ids: ArrayLike, rows: int | None = None, told: Told = IDS) -> np.ndarray:
    """Returns identifiers as a new array of integers or text, after checking that each row has a unique one.

    Arguments:
        ids: One identifier per row: integers, whole numbers or text.
        rows: The expected number of rows, if known.
        told: How errors are worded.

    Raises:
        DataError: when they are not one-dimensional, too few or too many, missing (None, NaN, an empty text), or duplicate.
    """
    found = np.asarray(ids)
    check_ids_layout(found.shape, found.dtype, rows)
    plain = _plain(found, 0, told)
    _none_twice([plain], told)
    return plain


def check_ids_layout(shape: tuple[int, ...], dtype: np.dtype, rows: int | None = None) -> None:
    """Checks the shape and the dtype of identifiers, before they are read.

    Raises:
        DataError: when they are not one-dimensional, too few or too many, or neither numbers nor text.
    """
    if len(shape) != 1:
        raise DataError(f"ids: array of shape {shape}, expected (rows,)")
    if rows is not None and shape[0] != rows:
        raise DataError(f"ids: {shape[0]} for {rows} rows, expected one per row")
    if dtype.kind not in "iuUfO":
        raise DataError(f"ids: dtype {dtype}, expected integers or text")


def check_many_ids(blocks: Callable[[], Iterable[np.ndarray]], told: Told = IDS) -> None:
    """Checks identifiers read in blocks, keeping eight bytes of each.

    Arguments:
        blocks: Iterates over the blocks of identifiers, from the first, each time it is called.
        told: How errors are worded.

    Raises:
        DataError: when one is missing or duplicate.
    """
    hashes, first = [np.zeros(0, np.int64)], 0
    for block in blocks():
        hashes.append(np.fromiter(map(hash, _plain(block, first, told).tolist()), np.int64, len(block)))
        first += len(block)
    ordered = np.sort(np.concatenate(hashes))
    if repeated := set(ordered[1:][ordered[1:] == ordered[:-1]].tolist()):
        _none_twice((_plain(block, 0, told) for block in blocks()), told, repeated)


def _plain(ids: np.ndarray, first: int, told: Told) -> np.ndarray:
    _none_missing(ids, first, told)
    _whole(ids, first, told)
    return ids.astype(np.str_ if ids.dtype.kind in "OU" else np.int64 if ids.dtype.kind == "f" else ids.dtype)


def _none_missing(ids: np.ndarray, first: int, told: Told) -> None:
    for row, value in enumerate(ids.tolist(), start=first):
        # Only NaN differs from itself.
        if value is None or value != value or value == "":  # noqa: PLR0124
            raise DataError(f"{told.what}: {told.where(row)} has none, expected an identifier in each row")


def _whole(ids: np.ndarray, first: int, told: Told) -> None:
    if ids.dtype.kind == "f" and (bad := np.flatnonzero(~np.isfinite(ids) | (ids != np.floor(ids)) | (np.abs(ids) > 2**53))).size:
        raise DataError(f"{told.what}: {told.where(first + int(bad[0]))} holds {ids[bad[0]]}, expected an integer or text")


def _none_twice(blocks: Iterable[np.ndarray], told: Told, suspects: Container[int] | None = None) -> None:
    """Raises for the first duplicate identifier; among those whose hash is a suspect, if given."""
    seen: dict[object, int] = {}
    for row, value in enumerate(chain.from_iterable(block.tolist() for block in blocks)):
        if (suspects is None or hash(value) in suspects) and seen.setdefault(value, row) != row:
            first, again = told.where(seen[value]), told.where(row)
            raise DataError(f"{told.what}: duplicate {value!r} in {first} and {again}")
