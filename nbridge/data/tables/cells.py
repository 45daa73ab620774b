"""Converts text cells to numbers: reals, 0 and 1, or class indices; NaN where absent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from typing import overload

import numpy as np

from nbridge.common.messages import clip, listing, quoted
from nbridge.data.texts import normal_text
from nbridge.errors import DataError

MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL")
"""Texts that always mark an absent cell; a spec can add others."""
TRUTHS = {"true": "1", "false": "0"}
"""The values of booleans where numbers are expected."""
MOST_CLASSES = 1000
"""Maximum number of classes in a column."""
LARGEST = float(np.finfo(np.float32).max)
"""The largest magnitude that a model accepts."""
_SPELT = {r"[-+]?\d+(,\d+)+(\.\d+)?": "numbers with commas", r"[-+]?\d+([.,]\d+)? ?%": "numbers with percent signs"}

Where = Callable[[int], str]
"""Formats the location of a cell by its index among those given: the row, and the line in files that have lines."""


class NumberCells(Sequence[str]):
    """Numeric cells, whose texts are created on demand, as this is by far the slowest step.

    Arguments:
        numbers: The numbers, (N,), NaN where absent.
        texts: Returns the texts, empty where absent.
    """

    def __init__(self, numbers: np.ndarray, texts: Callable[[], Sequence[str]]) -> None:
        self.numbers, self._make = numbers, texts
        self._texts: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if self._texts is None:
            self._texts = self._make()
        return self._texts[place]


def read_cells(column: str, cells: Sequence[str], classes: Sequence[str], missing: Collection[str], where: Where) -> np.ndarray:
    """Converts a column to numbers, shape (N,), NaN where absent.

    Arguments:
        column: Its name, for messages.
        cells: Its texts; surrounding whitespace and the composition of accents are ignored.
        classes: Its classes, which become their indices; empty for numbers.
        missing: Placeholders of absent cells; one that is also a class counts as the class.
        where: Formats the location of a cell, for messages.

    Raises:
        DataError: for the first cell that is neither absent nor a finite number or one of the classes.

    Example:
        >>> read_cells("age", ["71", " 8.5", "NA"], (), MISSING, str), read_cells("sex", ["m", "", "f"], ("f", "m"), MISSING, str)
        (array([71. ,  8.5,  nan]), array([ 1., nan,  0.]))
    """
    if isinstance(cells, NumberCells) and _is_plain(cells, classes, missing):
        return cells.numbers
    texts = [normal_text(cell) for cell in cells]
    if classes:
        return _classes(column, texts, classes, missing, where)
    try:
        numbers = np.array([math.nan if text in missing else float(text) for text in texts])
        # float() accepts Python's digit separators; tables don't use them.
        if (np.abs(numbers) > LARGEST).any() or "_" in "".join(texts):
            raise ValueError
    except ValueError:
        return np.array([_number(column, text, missing, lambda row=row: where(row)) for row, text in enumerate(texts)])
    return numbers


def _is_plain(cells: NumberCells, classes: Sequence[str], missing: Collection[str]) -> bool:
    """Whether the texts of numbers would be parsed as these numbers."""
    return not classes and not (np.abs(cells.numbers) > LARGEST).any() and all(number_of(text) is None for text in missing)


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


def is_padded(text: str) -> bool:
    """Whether a text is an integer with leading zeros, as in codes: converting it to a number would lose them.

    Example:
        >>> [is_padded(text) for text in ("007", "00", "0", "10", "0.5", "07.5")]
        [True, True, False, False, False, False]
    """
    return len(text) > 1 and text[0] == "0" and text.isdigit()


def exact_number_of(text: str) -> Decimal | None:
    """Parses a text as an exact number; None if `number_of` returns None.

    Example:
        >>> exact_number_of("1000000000000000001") == exact_number_of("1000000000000000002"), exact_number_of("1.0") == 1
        (False, True)
    """
    return None if number_of(text) is None else Decimal(TRUTHS.get(text.lower(), text))


def spelt_otherwise(texts: Sequence[str]) -> str:
    """Describes numbers in an unsupported format; empty if the texts are something else.

    Arguments:
        texts: Distinct texts of a column.

    Example:
        >>> spelt_otherwise([f"{place},5" for place in range(20)])
        "text such as '0,5', numbers with commas; write them with a decimal point and nothing else"
        >>> spelt_otherwise(["63.5", "12"]), spelt_otherwise(["a,5", "b,6"])
        ('', '')
    """
    others = [text for text in texts if number_of(text) is None]
    for pattern, what in _SPELT.items():
        if others and all(re.fullmatch(pattern, text) for text in others):
            return f"text such as {clip(others[0])!r}, {what}; write them with a decimal point and nothing else"
    return ""


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


def _number(column: str, text: str, missing: Collection[str], where: Callable[[], str]) -> float:
    if text in missing or text.lower() == "nan":
        return math.nan
    if (number := number_of(text)) is None:
        hint = ", or data.classes to list the classes of this column"
        if text.lower().strip("+-") in ("inf", "infinity"):
            hint = ""
        elif re.fullmatch(r"[-+]?\d+,\d+", text):
            hint = " with a decimal point"
        raise DataError(
            f"column {clip(column)!r}: {where()} holds {quoted(text)}, expected a finite number{hint}; leave absent cells empty"
        )
    if abs(number) > LARGEST:
        raise DataError(f"column {clip(column)!r}: {where()} holds {quoted(text)}, expected a number from {-LARGEST:.2g} to {LARGEST:.2g}")
    return number


def _classes(column: str, texts: Sequence[str], classes: Sequence[str], missing: Collection[str], where: Where) -> np.ndarray:
    known = {normal_text(text): float(place) for place, text in enumerate(classes)}
    found: dict[str, float] = {}
    # Equal numbers may be formatted differently, such as 1.0 for 1.
    numbers = {exact_number_of(text): place for text, place in known.items()}
    for text in dict.fromkeys(texts):
        if text in known:
            found[text] = known[text]
        elif text in missing:
            found[text] = math.nan
        elif None not in numbers and (place := numbers.get(exact_number_of(text))) is not None:
            found[text] = place
        else:
            listed = listing(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise DataError(
                f"column {clip(column)!r}: {where(texts.index(text))} holds {quoted(text)}, a class that data.classes does not list; "
                f"it lists {clip(listed, 200)}. Leave absent cells empty."
            )
    return np.array([found[text] for text in texts], dtype=np.float64)
