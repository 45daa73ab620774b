"""Texts as values: normalised for comparison, as numbers, and the placeholders of absent values."""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

import numpy as np

from nbridge.errors import DataError

MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL")
"""Texts that mark an absent value where data have no types, as in csv files; a spec can add others."""
EMPTY = frozenset({""})
"""The texts that mark an absent value where data have types: null and NaN mark it there, and other texts are values."""
TRUTHS = {"true": "1", "false": "0"}
"""The values of booleans where numbers are expected."""


def normal_text(text: str) -> str:
    """Strips a text and composes its accents (Unicode NFC); texts are the same class if these are equal.

    Example:
        >>> normal_text(" Jose\u0301") == normal_text("Jos\u00e9") == "Jos\u00e9"
        True
    """
    return unicodedata.normalize("NFC", text.strip())


def same_text_twice(texts: Iterable[str]) -> str | None:
    """The first text that equals an earlier one after normalisation; None if all differ.

    Example:
        >>> same_text_twice(["a", "b", " a"]), same_text_twice(["a", "b"])
        (' a', None)
    """
    seen: set[str] = set()
    for text in texts:
        if (normal := normal_text(text)) in seen:
            return text
        seen.add(normal)
    return None


def text_array(values: Iterable[object]) -> np.ndarray:
    """Values as texts, dtype object, :math:`(N,)`: with a fixed width, one long text would make all of them as long.

    Example:
        >>> text_array([1, "b"])
        array(['1', 'b'], dtype=object)
    """
    return np.array([*map(str, values), None], dtype=object)[:-1]


def check_unicode(array: np.ndarray, what: str) -> None:
    """Checks that an array of dtype U holds Unicode code points only, which Python's strings must.

    Raises:
        DataError: when it holds others, as in a damaged file.
    """
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        points = array.reshape(-1).astype(array.dtype.newbyteorder("="), copy=False)
        if np.ascontiguousarray(points).view(np.uint32).max() > sys.maxunicode:
            raise DataError(f"{what}: holds values that are not text; is the file damaged?")


def number_of(text: str) -> float | None:
    """Parses a text as a number; None if it is not a finite number.

    Example:
        >>> number_of("2.5e3"), number_of("TRUE"), number_of("1_000"), number_of("inf")
        (2500.0, 1.0, None, None)
    """
    try:
        number = float(TRUTHS.get(text.lower(), text))
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def exact_number_of(text: str) -> Decimal | None:
    """Parses a text as an exact number; None if `number_of` returns None.

    Example:
        >>> exact_number_of("1000000000000000001") == exact_number_of("1000000000000000002"), exact_number_of("1.0") == 1
        (False, True)
    """
    return None if number_of(text) is None else Decimal(TRUTHS.get(text.lower(), text))
