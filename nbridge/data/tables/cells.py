"""Reads columns as numbers: reals, 0 and 1, or class indices; NaN where absent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from nbridge.common.messages import clip, quoted
from nbridge.data.classes import class_indices, unlisted
from nbridge.data.tables.arrow import distinct, is_number, is_text, pyarrow_of
from nbridge.data.texts import MISSING, exact_number_of, normal_text, number_of
from nbridge.errors import DataError

MOST_CLASSES = 1000
"""Maximum number of classes in a column."""
LARGEST = float(np.finfo(np.float32).max)
"""The largest magnitude that a model accepts."""

Where = Callable[[int], str]
"""Formats the location of a cell by its index among those given: the row, and the line in files that have lines."""


def read_cells(
    column: str, cells: Any, classes: Sequence[str] = (), missing: Collection[str] = MISSING, where: Where = "row {}".format
) -> np.ndarray:
    """Reads a column as numbers, shape (N,), NaN where absent.

    Arguments:
        column: Its name, for messages.
        cells: An Arrow array, or texts; surrounding whitespace and the composition of accents are ignored.
        classes: Its classes, which become their indices; empty for numbers.
        missing: Placeholders of absent cells; one that is also a class counts as the class.
        where: Formats the location of a cell, for messages.

    Raises:
        DataError: for the first cell that is neither absent nor a finite number or one of the classes.

    Example:
        >>> read_cells("age", ["71", " 8.5", "NA"]), read_cells("sex", ["m", "", "f"], ("f", "m"))
        (array([71. ,  8.5,  nan]), array([ 1., nan,  0.]))
    """
    array = pyarrow_of().array(cells) if isinstance(cells, list) else cells
    if not classes and (numbers := _as_numbers(array, missing)) is not None:
        return numbers
    codes, texts = distinct(array)
    if classes:
        return class_indices(codes, texts, classes, lambda row: unlisted(column, where(row), texts[codes[row]], classes), missing)
    texts = list(map(normal_text, texts))
    found = np.array([_number(text, missing) for text in texts])[codes]
    if (wrong := np.flatnonzero(np.abs(found) > LARGEST)).size:
        raise DataError(f"column {clip(column)!r}: {where(int(wrong[0]))} holds {_no_number(texts[codes[wrong[0]]])}")
    return found


def _as_numbers(array: Any, missing: Collection[str]) -> np.ndarray | None:
    """A column as numbers without looking at its distinct values; None if one may be no number, or a placeholder."""
    pa = pyarrow_of()
    if is_text(array.type) and not pa.types.is_string_view(array.type):
        texts = pa.compute.utf8_trim_whitespace(array)
        texts = pa.compute.if_else(pa.compute.is_in(texts, pa.array(sorted(missing), texts.type)), None, texts)
        try:
            numbers = texts.cast(pa.float64())
        except pa.ArrowInvalid:
            return None
    elif is_number(array.type) and not pa.types.is_boolean(array.type) and all(number_of(text) is None for text in missing):
        texts, numbers = None, array
    else:
        return None
    found = numbers.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    # Texts such as NAN are looked at one by one.
    return None if (np.abs(found) > LARGEST).any() or (texts is not None and np.isnan(found).sum() != texts.null_count) else found


def is_padded(text: str) -> bool:
    """Whether a text is an integer with leading zeros, as in codes: converting it to a number would lose them.

    Example:
        >>> [is_padded(text) for text in ("007", "00", "0", "10", "0.5", "07.5")]
        [True, True, False, False, False, False]
    """
    return len(text) > 1 and text[0] == "0" and text.isdigit()


def ordered_classes(texts: Iterable[str]) -> tuple[str, ...]:
    """Sorts distinct texts, accents composed: numerically if all are numbers, else alphabetically.

    Example:
        >>> ordered_classes(["10", "9", "10"]), ordered_classes(["b", "a", "10"])
        (('9', '10'), ('10', 'a', 'b'))
    """
    different = sorted(set(map(normal_text, texts)))
    numbers = [number for text in different if (number := exact_number_of(text)) is not None]
    if len(numbers) < len(different):
        return tuple(different)
    return tuple(text for _, text in sorted(zip(numbers, different, strict=True)))


def _number(text: str, missing: Collection[str]) -> float:
    """A text as a number: NaN where absent, infinity if it is none."""
    if text in missing or text.lower().lstrip("+-") == "nan":
        return math.nan
    return math.inf if (number := number_of(text)) is None else number


def _no_number(text: str) -> str:
    """Describes a text that is no number, or too large a one."""
    if number_of(text) is not None:
        return f"{quoted(text)}, expected a number from {-LARGEST:.2g} to {LARGEST:.2g}"
    hint = ", or data.classes to list the classes of this column"
    if text.lower().strip("+-") in ("inf", "infinity"):
        hint = ""
    elif re.fullmatch(r"[-+]?\d+,\d+", text):
        hint = " with a decimal point"
    return f"{quoted(text)}, expected a finite number{hint}; leave absent cells empty"
