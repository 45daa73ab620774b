"""Infers the cell format of a column, so that imputed cells look like observed ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from nbridge.data.tables.arrow import bounds, distinct, is_number, is_text, pyarrow_of
from nbridge.data.texts import TRUTHS

_DECIMALS = 6
"""Maximum number of decimals; more are floating-point noise."""


def general(value: float) -> str:
    """Formats a number with seven significant digits, or with three decimals if it has more digits before the point.

    Example:
        >>> general(3.14159265), general(1600000000.12345), general(1e300)
        ('3.141593', '1600000000.123', '1e+300')
    """
    digits = len(f"{abs(value):.0f}") if 1e7 <= abs(value) < 1e14 else 4
    return f"{value:.{digits + 3}g}"


class CellStyle:
    """The cell format of a column: decimals, integers, words for booleans, spellings of classes.

    Arguments:
        classes: The classes of the column; empty for numbers.

    Attributes:
        has_classes: Whether it has any.

    Example:
        >>> style = CellStyle(())
        >>> style.learn(pyarrow_of().array(["1.50", "12", ""]), np.array([1.5, 12, np.nan]))
        >>> style.text(3.14159)
        '3.14'
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._spelt: dict[int, str] = {}
        self.has_classes = bool(classes)
        self._seen, self._whole, self._decimals = False, True, 0

    def learn(self, cells: Any, numbers: np.ndarray) -> None:
        """Updates the format from some cells.

        Arguments:
            cells: An Arrow array.
            numbers: Its values, NaN where absent.
        """
        there = np.flatnonzero(~np.isnan(numbers))
        if not there.size:
            return
        self._seen = True
        whole = self._whole and bool((numbers[there] == np.floor(numbers[there])).all())
        if is_number(cells.type) and not pyarrow_of().types.is_boolean(cells.type) and not self.has_classes:
            # Imputed cells become numbers again, so their texts do not matter.
            self._whole, self._decimals = whole, max(self._decimals, 0 if whole else _DECIMALS + 1)
            return
        codes, texts = distinct(cells)
        first = there[np.sort(np.unique(codes[there], return_index=True)[1])]
        known = [texts[code].strip() for code in codes[first]]
        if self.has_classes or (len(self._spelt) < 2 and known[0].lower() in TRUTHS):
            for number, text in zip(numbers[first].tolist(), known, strict=True):
                self._spelt.setdefault(int(number), text)
        elif not self._spelt:
            self._whole, self._decimals = whole, max(self._decimals, *map(_decimals, known))

    def number(self, value: float) -> float:
        """A value as the column could hold it: rounded if all of its values are integers."""
        return float(round(value)) if self._seen and (self._whole or self._spelt) else value

    def text(self, value: float) -> str:
        """Formats a value as a cell."""
        if self._classes:
            place = min(max(round(value), 0), len(self._classes) - 1)
            return self._spelt.get(place, self._classes[place])
        if self._spelt:
            words = {0: "False", 1: "True"} if any(text[0].isupper() for text in self._spelt.values()) else {0: "false", 1: "true"}
            return (words | self._spelt)[int(value >= 0.5)]
        value = self.number(value)
        if not self._seen or self._decimals > _DECIMALS:
            return general(value)
        # Avoids negative zero.
        return f"{round(value, self._decimals) + 0.0:.{self._decimals}f}"

    def value(self, number: float, kind: Any) -> object:
        """A number, or a class index, as a value of an Arrow type."""
        types = pyarrow_of().types
        if types.is_boolean(kind):
            return number >= 0.5
        if types.is_integer(kind):
            low, high = bounds(kind)
            # A float would lose the last digits of large codes.
            return min(max(round(Decimal(self.text(number))), low), high)
        if types.is_decimal(kind):
            return Decimal(self.text(number)).quantize(Decimal(1).scaleb(-kind.scale))
        if types.is_floating(kind):
            return float(self.text(number)) if self.has_classes else self.number(number)
        return self.text(number)

    def values(self, numbers: np.ndarray, kind: Any) -> list[object]:
        """`value` of each number, shape (N,); of equal numbers it is computed once."""
        if pyarrow_of().types.is_floating(kind) and not self.has_classes:
            # Adding 0 avoids negative zero.
            return (np.round(numbers) + 0.0 if self._seen and (self._whole or self._spelt) else numbers).tolist()
        different, places = np.unique(numbers, return_inverse=True)
        found = [self.value(number, kind) for number in different.tolist()]
        return [found[place] for place in places.tolist()]

    def type_of(self, kind: Any) -> Any:
        """The Arrow type of imputed values: that of the column, unless it has no value, and a type that none of its values could have."""
        pa = pyarrow_of()
        if pa.types.is_null(kind) and not self.has_classes:
            return pa.float64()
        # An empty column of texts is of floats in pandas.
        return kind if self._seen or not self.has_classes or self._fits(kind) else pa.string()

    def _fits(self, kind: Any) -> bool:
        """Whether the classes can be written in a type."""
        if pyarrow_of().types.is_boolean(kind):
            return all(text.lower() in TRUTHS for text in self._classes)
        return is_text(kind) or ((is_number(kind) or pyarrow_of().types.is_decimal(kind)) and all(map(_is_number, self._classes)))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _decimals(text: str) -> int:
    return _DECIMALS + 1 if "e" in text or "E" in text else len(text.partition(".")[2])
