"""Row identifiers: one per row, unique."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

from nbridge.common.memory import check_fits
from nbridge.common.messages import clip, quoted
from nbridge.data.texts import check_unicode, normal_text, text_array
from nbridge.errors import DataError


@dataclass(frozen=True)
class IdWording:
    """How errors in identifiers are worded.

    Arguments:
        what: What the identifiers are called.
        where: Formats the location of a row: its index, and the line in files that have lines.
    """

    what: str = "ids"
    where: Callable[[int], str] = "row {}".format


_LONGEST_STEM = 200
"""Maximum length of the name of a row's file in bytes; file systems allow 255."""
IDS = IdWording()
"""Wording for identifiers from an array."""


def identifier_of(text: str) -> str:
    """Normalises an identifier: whitespace stripped, accents composed, since some file systems decompose them.

    Example:
        >>> identifier_of(" Jose\u0301") == "Jos\u00e9"
        True
    """
    return normal_text(text)


def check_stem(stem: str, what: str) -> str:
    """Checks that an identifier can name a file, and returns it.

    Arguments:
        stem: The identifier.
        what: What the file holds, for messages.

    Raises:
        DataError: when it can't.
    """
    if not stem or stem.startswith(".") or any(character in stem for character in "/\\\0") or len(stem.encode()) > _LONGEST_STEM:
        raise DataError(f"row {quoted(stem)}: not a valid file name for {what}; rename the row")
    return stem


def check_ids(ids: ArrayLike, rows: int | None = None, wording: IdWording = IDS) -> np.ndarray:
    """Returns identifiers as a new array of integers or Python strings, after checking that each row has a unique one.

    Arguments:
        ids: One identifier per row: integers, whole numbers or text.
        rows: The expected number of rows, if known.
        wording: How errors are worded.

    Raises:
        DataError: when they are not one-dimensional, too few or too many, missing (None, NaN, an empty text), or duplicate.
    """
    # Arrays of text have a fixed width: one long identifier would make all of them as long.
    found = np.asarray(ids, dtype=object if isinstance(ids, list) and ids and isinstance(ids[0], str) else None)
    check_ids_layout(found.shape, found.dtype, rows)
    plain = _plain(found, 0, wording)
    _none_twice([plain], wording)
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


def fixed_width(ids: np.ndarray) -> np.ndarray:
    """Identifiers for a NumPy file, where all texts have the width of the longest.

    Raises:
        DataError: when they would not fit into memory.
    """
    if ids.dtype.kind != "O":
        return ids
    check_fits("identifiers, all as wide as the longest,", 4 * len(ids) * max(map(len, ids.tolist()), default=0))
    return ids.astype(np.str_)


def check_many_ids(blocks: Callable[[], Iterable[np.ndarray]], wording: IdWording = IDS) -> None:
    """Checks identifiers read in blocks, keeping eight bytes of each.

    Arguments:
        blocks: Iterates over the blocks of identifiers, from the first, each time it is called.
        wording: How errors are worded.

    Raises:
        DataError: when one is missing or duplicate.
    """
    hashes, first = [np.zeros(0, np.int64)], 0
    for block in blocks():
        hashes.append(np.fromiter(map(hash, _plain(block, first, wording).tolist()), np.int64, len(block)))
        first += len(block)
    ordered = np.sort(np.concatenate(hashes))
    if repeated := set(ordered[1:][ordered[1:] == ordered[:-1]].tolist()):
        _none_twice((_plain(block, 0, wording) for block in blocks()), wording, repeated)


def _plain(ids: np.ndarray, first: int, wording: IdWording) -> np.ndarray:
    check_unicode(ids, wording.what)
    _none_missing(ids, first, wording)
    _whole(ids, first, wording)
    if ids.dtype.kind in "OU":
        return text_array(ids.tolist())
    return ids.astype(np.int64 if ids.dtype.kind == "f" else ids.dtype)


def _none_missing(ids: np.ndarray, first: int, wording: IdWording) -> None:
    for row, value in enumerate(ids.tolist(), start=first):
        # Only NaN differs from itself.
        if value is None or value != value or value == "":  # noqa: PLR0124
            raise DataError(f"{wording.what}: {wording.where(row)} has none, expected an identifier in each row")


def _whole(ids: np.ndarray, first: int, wording: IdWording) -> None:
    if ids.dtype.kind == "f" and (bad := np.flatnonzero(~np.isfinite(ids) | (ids != np.floor(ids)) | (np.abs(ids) > 2**53))).size:
        raise DataError(f"{wording.what}: {wording.where(first + int(bad[0]))} holds {ids[bad[0]]}, expected an integer or text")


def _none_twice(blocks: Iterable[np.ndarray], wording: IdWording, suspects: Container[int] | None = None) -> None:
    """Raises for the first duplicate identifier; among those whose hash is a suspect, if given."""
    seen: dict[object, int] = {}
    for row, value in enumerate(chain.from_iterable(block.tolist() for block in blocks)):
        if (suspects is None or hash(value) in suspects) and seen.setdefault(value, row) != row:
            first, again = wording.where(seen[value]), wording.where(row)
            shown = clip(value) if isinstance(value, str) else value
            raise DataError(f"{wording.what}: duplicate {shown!r} in {first} and {again}")


def counts_rows(values: np.ndarray) -> bool:
    """Whether distinct whole numbers enumerate the rows: they are consecutive, or increasing with few gaps.

    Example:
        >>> counts_rows(np.array([7, 8, 10])), counts_rows(np.array([2, 0, 1])), counts_rows(np.array([30, 18, 25]))
        (True, True, False)
    """
    span = np.ptp(values)
    return bool(span == len(values) - 1 or (span <= 2 * len(values) and (np.diff(values) > 0).all()))
