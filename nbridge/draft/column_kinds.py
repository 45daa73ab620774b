"""Infers the kind of a column (classes, binary, counts or numbers) from its values and name, with possible alternatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nbridge.data.column_names import Hint, hint_of
from nbridge.data.tables.cells import MOST_CLASSES

Kind = Literal["classes", "binary", "counts", "numbers", "left out"]
FEW = 10
"""Up to this many distinct whole numbers are classes."""
FEW_REALS = 5
"""Up to this many distinct numbers, not all of them whole, can be classes."""
ROWS_A_CLASS = 5
"""Minimum mean number of rows per class for whole numbers to be classes."""
OFTEN = 20
"""Mean number of rows per value from which numbers could also be classes."""
SMOOTH, UNEVEN = 0.5, 3.0
"""Minimum correlation between the frequencies of neighbours, and variance-to-mean ratio of frequencies, for ordered quantities."""
FULL_SCALE = frozenset({256, 1024, 4096, 65536})
"""Numbers of levels of 8, 10, 12 and 16 bits."""
OR_COUNTS = "could also be counts: small numbers prevail"
OR_NUMBERS = ("could also be numbers: ratings, or levels in order", "could also be numbers: levels in order")
"""Alternatives for classes that have an order."""
AS_TEXT = "; to learn it as text, add a modality with encoder: text and likelihood: text"
"""What to do with free text, which is left out."""
STRAY = 0.01
"""Maximum share of rows with other values in a column that otherwise has few distinct whole numbers."""


@dataclass(frozen=True)
class ColumnKind:
    """The kind of a column, an alternative (``doubt``), and whether its name makes the kind ``certain``, whatever the other columns are."""

    kind: Kind
    why: str
    doubt: str = ""
    certain: bool = False

    @property
    def reason(self) -> str:
        """The reason, with the alternative."""
        return f"{self.why}; {self.doubt}" if self.doubt else self.why


@dataclass(frozen=True)
class Tally:
    """The distinct numbers of a column in ascending order, and the number of rows with each, both (k,)."""

    values: np.ndarray
    rows: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Tally:
        """Counts numbers, (N,), without NaN."""
        return Tally(*np.unique(values, return_counts=True))

    @property
    def low(self) -> float:
        """The smallest number."""
        return float(self.values[0])

    @property
    def high(self) -> float:
        """The largest number."""
        return float(self.values[-1])

    @property
    def whole(self) -> bool:
        """Whether all numbers are whole."""
        return bool((self.values == np.floor(self.values)).all())

    @property
    def mean_rows(self) -> float:
        """The mean number of rows per number."""
        return float(self.rows.sum() / len(self.rows))

    @property
    def gapless(self) -> bool:
        """Whether the numbers are 0, 1, ..., k - 1 or 1, 2, ..., k."""
        return self.low in (0, 1) and self.high - self.low + 1 == len(self.values)

    @property
    def smooth(self) -> bool:
        """Whether neighbouring numbers have similar frequencies, as in a histogram of an ordered quantity."""
        rows = self.rows.astype(float)
        if len(rows) <= FEW or rows.var() < UNEVEN * rows.mean():
            return False
        around = rows - rows.mean()
        return bool((around[1:] * around[:-1]).sum() > SMOOTH * (around**2).sum())

    @property
    def falling(self) -> bool:
        """Whether small numbers prevail, as in counts: the distribution is right-skewed and its largest number is rare."""
        middle = (self.low + self.high) / 2
        mean = float(self.values @ self.rows) / self.rows.sum()
        return mean < middle and self.rows[-1] < self.mean_rows

    @property
    def step(self) -> int:
        """The greatest common divisor of whole numbers."""
        return math.gcd(*(int(value) for value in self.values)) if self.high < 2**53 else 1


def kind_of_numbers(name: str, tally: Tally) -> ColumnKind:
    """Infers the kind of a column with at least three distinct numbers.

    Example:
        >>> kind_of_numbers("x", Tally.of(np.arange(1600.0) % 100)).kind
        'classes'
        >>> kind_of_numbers("age", Tally.of(np.arange(1600.0) % 40 + 20)).reason
        'whole numbers from 20 to 59, standardised; could also be classes: 40 values, 40 rows each on average'
    """
    hint = hint_of(name)
    if not tally.whole:
        return _reals(hint, tally)
    return _named(hint, tally) or _unnamed(tally)


def kind_of_text(name: str, rows: np.ndarray, what: str = "text", *, as_text: bool = True) -> ColumnKind:
    """Infers the kind of a text column with at least three distinct values: classes if its values repeat.

    ``rows`` is the number of rows with each distinct value, (k,); ``as_text`` is whether the format can hold a modality of texts.
    """
    different, total = len(rows), int(rows.sum())
    if owner := _owner(hint_of(name), rows):
        return owner
    held = f"{what} of {different:,} different values"
    advice = AS_TEXT if as_text and what == "text" else ""
    if different > MOST_CLASSES:
        return ColumnKind("left out", f"{held} in {total:,} rows, too many for classes{advice}")
    if not repeats(rows):
        return ColumnKind("left out", f"{held} in {total:,} rows, too few rows a value for classes{advice}")
    few = total < ROWS_A_CLASS * different
    return ColumnKind("classes", held, f"could also be free text: few rows a class, {total / different:.1f} on average" if few else "")


def repeats(rows: np.ndarray) -> bool:
    """Whether the values of a column repeat: at least two rows per value on average, and at least half of the values in several rows.

    Example:
        >>> repeats(np.array([3, 2, 1])), repeats(np.array([1, 1, 9])), repeats(np.array([2, 1, 1]))
        (True, False, False)
    """
    return bool(rows.sum() >= 2 * len(rows) and 2 * (rows > 1).sum() >= len(rows))


def _owner(hint: Hint, rows: np.ndarray) -> ColumnKind | None:
    """Leaves out identifiers that several rows share, such as patients; None for other columns."""
    if hint != "owner" or len(rows) <= FEW or rows.max() < 2:
        return None
    held = f"identifiers that repeat: {len(rows):,} different values in {int(rows.sum()):,} rows"
    return ColumnKind("left out", held, certain=True)


def _named(hint: Hint, tally: Tally) -> ColumnKind | None:
    """The kind of whole numbers by the name of their column; None if it is not informative."""
    low, high, count = tally.low, tally.high, len(tally.values)
    span = f"whole numbers from {low:g} to {high:g}"
    repeated = count <= MOST_CLASSES and (tally.mean_rows >= ROWS_A_CLASS or ((hint == "codes" or tally.gapless) and repeats(tally.rows)))
    doubt = _or_classes(tally)
    if hint == "owner":
        return _owner(hint, tally.rows)
    if hint == "counts" and low >= 0:
        return ColumnKind("counts", f"{span}, counts by the name", doubt if tally.gapless else "", certain=True)
    if hint in ("classes", "codes") and repeated:
        other = "" if count <= FEW or tally.gapless or hint == "codes" else "could also be numbers: there are gaps between them"
        return ColumnKind("classes", f"{span}, {count:,} different values, {hint} by the name", other, certain=True)
    if hint == "codes":
        why = "too many" if count > MOST_CLASSES else "too few rows a value"
        return ColumnKind("left out", f"codes by the name, {count:,} different values in {int(tally.rows.sum()):,} rows, {why} for classes")
    if hint == "quantity":
        return ColumnKind("numbers", f"{span}, standardised", doubt, certain=True)
    return None


def _unnamed(tally: Tally) -> ColumnKind:
    """The kind of whole numbers by their values."""
    low, high, count = tally.low, tally.high, len(tally.values)
    span, repeated = f"whole numbers from {low:g} to {high:g}", tally.mean_rows >= ROWS_A_CLASS
    held = f"{span}, {count:,} different values, {tally.mean_rows:.0f} rows each on average"
    numbers = OR_NUMBERS[0]
    if repeated and count <= FEW:
        counted = low == 0 and tally.falling
        other = OR_COUNTS if counted else numbers if count >= FEW_REALS or not tally.gapless else ""
        return ColumnKind("classes", held, other)
    if repeated and tally.gapless and not tally.smooth and count <= MOST_CLASSES and count not in FULL_SCALE:
        falling = low == 0 and tally.falling
        return ColumnKind("classes", held, OR_COUNTS if falling else numbers)
    doubt = _or_classes(tally)
    if low == 0 and tally.step == 1 and count not in FULL_SCALE and not (tally.gapless and tally.smooth and not tally.falling):
        return ColumnKind("counts", span, doubt or ("" if tally.falling else "could also be numbers: small ones do not prevail"))
    return ColumnKind("numbers", f"{span}, standardised", doubt)


def _reals(hint: Hint, tally: Tally) -> ColumnKind:
    """The kind of numbers that are not all whole."""
    count, whole = len(tally.values), tally.values == np.floor(tally.values)
    if count <= FEW_REALS and tally.rows.min() >= ROWS_A_CLASS and tally.mean_rows >= OFTEN and hint != "quantity":
        return ColumnKind("classes", f"numbers of {count} different values", OR_NUMBERS[1])
    stray = int(tally.rows[~whole].sum())
    if stray <= STRAY * tally.rows.sum() and 2 < whole.sum() <= FEW:
        few = tally.values[whole]
        words = f"could also be classes: whole numbers from {few[0]:g} to {few[-1]:g} in all rows but {stray:,}"
        return ColumnKind("numbers", "numbers, standardised", words)
    return ColumnKind("numbers", "numbers, standardised")


def _or_classes(tally: Tally) -> str:
    """The alternative that numbers are classes; empty if they do not repeat."""
    count, rows = len(tally.values), tally.mean_rows
    if count > MOST_CLASSES or rows < (ROWS_A_CLASS if count <= FEW or tally.gapless else OFTEN):
        return ""
    return f"could also be classes: {count:,} values, {rows:.0f} rows each on average"
