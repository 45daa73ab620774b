"""Infers the cell format of a column, so that imputed cells look like observed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbridge.data.tables.cells import TRUTHS, NumberCells

_DECIMALS = 6
"""Maximum number of decimals; more are floating-point noise."""


class CellStyle:
    """The cell format of a column: decimals, integers, words for booleans, spellings of classes.

    Arguments:
        classes: The classes of the column; empty for numbers.

    Attributes:
        has_classes: Whether it has any.

    Example:
        >>> style = CellStyle(())
        >>> style.learn(["1.50", "12", ""], np.array([1.5, 12, np.nan]))
        >>> style.text(3.14159)
        '3.14'
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._spelt: dict[int, str] = {}
        self.has_classes = bool(classes)
        self._seen, self._whole, self._decimals = False, True, 0

    def learn(self, cells: Sequence[str], numbers: np.ndarray) -> None:
        """Updates the format from some cells.

        Arguments:
            cells: Their texts.
            numbers: Their values, NaN where absent.
        """
        there = [int(row) for row in np.flatnonzero(~np.isnan(numbers))]
        if not there:
            return
        self._seen = True
        if isinstance(cells, NumberCells) and not self._classes:
            # For outputs where they become numbers again.
            self._whole = self._whole and bool((numbers[there] == np.floor(numbers[there])).all())
            self._decimals = max(self._decimals, 0 if self._whole else _DECIMALS + 1)
            return
        if self._classes or (len(self._spelt) < 2 and cells[there[0]].strip().lower() in TRUTHS):
            firsts: list[int] = [there[first] for first in np.unique(numbers[there], return_index=True)[1]]
            self._spelt = {int(numbers[row]): cells[row].strip() for row in firsts} | self._spelt
        elif not self._spelt:
            self._whole = self._whole and bool((numbers[there] == np.floor(numbers[there])).all())
            self._decimals = max(self._decimals, *(_decimals(cells[row]) for row in there))

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
            return f"{value:.7g}"
        # Avoids negative zero.
        return f"{round(value, self._decimals) + 0.0:.{self._decimals}f}"


def _decimals(cell: str) -> int:
    text = cell.strip()
    if "e" in text or "E" in text:
        return _DECIMALS + 1
    return len(text.partition(".")[2])
