"""In-memory tables with text columns: converts their classes to indices, and back on output."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from nbridge.common.messages import clip, quoted
from nbridge.data.classes import class_indices, some_classes
from nbridge.data.tables.cells import ordered_classes
from nbridge.data.texts import EMPTY, MISSING, TRUTHS, normal_text, number_of
from nbridge.errors import DataError

Classes = Mapping[int, tuple[Any, ...]]
"""The ordered classes of each text column, by column index, in their first spelling."""


def absent_words(table: Any) -> Collection[str]:
    """The texts that mark a missing value in a text column: in a data frame, which has null, only the empty text.

    Arguments:
        table: An array, a data frame, or lists of lists.
    """
    return EMPTY if hasattr(table, "columns") else MISSING


def objects_of(table: Any) -> np.ndarray | None:
    """A table as objects, (rows, columns), if its kind can hold text; None for numeric tables and anything else.

    Arguments:
        table: An array, a data frame, or lists of lists.

    Example:
        >>> objects_of([["a", 1.5], [None, 2]]).tolist(), objects_of(np.zeros((2, 2)))
        ([['a', 1.5], [None, 2]], None)
    """
    if isinstance(table, list | tuple):
        return _flat(np.array([[*row] if isinstance(row, list | tuple) else row for row in table], dtype=object)) if _even(table) else None
    if not isinstance(table, np.ndarray) and not hasattr(table, "columns"):
        return None
    array = np.asarray(table)
    return _flat(array.astype(object)) if array.dtype.kind in "OUS" else None


def learn_classes(objects: np.ndarray, missing: Collection[str] = MISSING) -> dict[int, tuple[Any, ...]]:
    """The classes of each column with text that is neither a number nor a placeholder.

    Arguments:
        objects: The table, (rows, columns).
        missing: The texts that mark a missing value in a column of text; among numbers, all placeholders do.

    Example:
        >>> learn_classes(np.array([["b", 1.5], ["a", None], ["", 2], ["b", "3"]], dtype=object))
        {0: ('a', 'b')}
    """
    return {column: _classes(objects[:, column], missing) for column in range(objects.shape[1]) if _is_text(objects[:, column])}


def taken_for_absent(objects: np.ndarray, classes: Classes, missing: Collection[str], called: Callable[[int], str]) -> Iterator[str]:
    """A line for each word that counts as missing, by column, with the number of rows; empty texts need none.

    Arguments:
        objects: The table, (rows, columns).
        classes: The classes of its text columns.
        missing: The texts that mark a missing value in a column of text.
        called: The name of a column by its index.

    Example:
        >>> [*taken_for_absent(np.array([["b"], ["NA"], ["a"], [""]], dtype=object), {0: ("a", "b")}, MISSING, str)]
        ['0: "NA" in 1 row is taken for missing; if it is a class, pass a data frame, in which only NaN and empty texts are missing']
    """
    for column in range(objects.shape[1]):
        known = {_text(one) for one in classes.get(column, ())}
        words = missing if column in classes else MISSING
        texts = Counter(_text(value) for value in objects[:, column] if isinstance(value, str | bytes))
        for word in sorted(word for word in texts if word and word in words and word not in known):
            rows = f"{texts[word]:,} row{'s' if texts[word] > 1 else ''}"
            what = (
                "if it is a class, pass a data frame, in which only NaN and empty texts are missing" if column in classes else "write NaN"
            )
            yield f"{called(column)}: {quoted(word)} in {rows} is taken for missing; {what}"


def as_numbers(objects: np.ndarray, classes: Classes, called: Callable[[int], str], missing: Collection[str] = MISSING) -> np.ndarray:
    """Converts a table to numbers, (rows, columns): class indices in text columns; NaN where missing.

    Arguments:
        objects: The table, (rows, columns).
        classes: The classes of its text columns.
        called: The name of a column by its index, for messages.
        missing: The texts that mark a missing value in a column of text; one that is also a class counts as the class.

    Raises:
        DataError: for the first cell of a text column that is not a class, or of another column that is not a number.

    Example:
        >>> as_numbers(np.array([["b", 1.5], ["", None], ["a", "3"]], dtype=object), {0: ("a", "b")}, str)
        array([[1. , 1.5],
               [nan, nan],
               [0. , 3. ]])
    """
    columns = [
        _places(objects[:, column], classes[column], called(column), missing)
        if column in classes
        else _plain(objects[:, column], called(column))
        for column in range(objects.shape[1])
    ]
    return np.stack(columns, axis=1)


def filled(objects: np.ndarray, missing: np.ndarray, numbers: np.ndarray, classes: Classes) -> np.ndarray:
    """A table of objects with its missing cells imputed; the others are the original objects.

    Arguments:
        objects: The table, (rows, columns).
        missing: Which cells are missing.
        numbers: The values as numbers, draws first if there are any.
        classes: The classes of its text columns.
    """
    out = np.broadcast_to(objects, numbers.shape).copy()
    for column in range(objects.shape[1]):
        rows = missing[:, column]
        values = numbers[..., rows, column]
        if column in classes:
            known = np.empty(len(classes[column]), dtype=object)
            known[:] = classes[column]
            out[..., rows, column] = known[values.astype(int).clip(0, len(known) - 1)]
        else:
            out[..., rows, column] = values.astype(object)
    return out


def _even(table: list[Any] | tuple[Any, ...]) -> bool:
    return bool(table) and all(isinstance(row, list | tuple | np.ndarray) and len(row) == len(table[0]) for row in table)


def _flat(array: np.ndarray) -> np.ndarray | None:
    return array if array.ndim == 2 else None


def _text(value: Any) -> str:
    """Formats a cell as text; integers without a decimal point."""
    if isinstance(value, bytes):
        return normal_text(value.decode("utf-8", "replace"))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else normal_text(str(value))


def _is_missing(value: Any, missing: Collection[str] = MISSING) -> bool:
    if isinstance(value, str | bytes):
        return _text(value) in missing
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float | np.floating) and math.isnan(value))


def _is_text(values: np.ndarray) -> bool:
    texts = {_text(value) for value in values if isinstance(value, str | bytes)} - set(MISSING)
    return any(number_of(text) is None or text.lower() in TRUTHS for text in texts)


def _classes(values: np.ndarray, missing: Collection[str]) -> tuple[Any, ...]:
    spelt: dict[str, Any] = {}
    for value in values:
        if not _is_missing(value, missing):
            spelt.setdefault(_text(value), value)
    return tuple(spelt[text] for text in ordered_classes(spelt))


def _places(values: np.ndarray, classes: tuple[Any, ...], what: str, missing: Collection[str]) -> np.ndarray:
    texts = ["" if _is_missing(value, ()) else _text(value) for value in values]

    def message(row: int) -> str:
        known = some_classes([clip(one) for one in classes])
        what_fit_saw = f"a category that fit has not seen; it saw {known}. NaN in its place is filled in."
        return f"{what}: row {row} holds {quoted(texts[row])}, {what_fit_saw}"

    return class_indices(np.arange(len(texts)), texts, map(_text, classes), message, missing)


def _plain(values: np.ndarray, what: str) -> np.ndarray:
    out = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if _is_missing(value):
            continue
        try:
            out[row] = float(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"{what}: row {row} holds {quoted(clip(value))}, expected a number or NaN") from error
    return out
