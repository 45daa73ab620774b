"""Infers the modality of an array."""

from __future__ import annotations

import numpy as np

from nbridge.data.dates import holds_dates
from nbridge.data.ids import counts_rows
from nbridge.data.tables.cells import MISSING, MOST_CLASSES, ordered_classes
from nbridge.data.texts import normal_text
from nbridge.draft.column_kinds import ROWS_A_CLASS, ColumnKind, Tally, kind_of_numbers, kind_of_text
from nbridge.draft.writer import Part, conv_encoder

SMALLEST_SIDE, LONGEST = 8, 4
"""Minimum shorter side of an image in pixels, and maximum aspect ratio; signals are longer."""
BINARY = "{type: bernoulli, attributes: true}"
COLOURS = 4
"""Maximum number of channels of colour images, including alpha."""


def part_of_array(name: str, array: np.ndarray, rows: int, *, whole_bytes: bool = False) -> Part | str:
    """Infers the modality of a numeric array; returns a reason if it cannot be one.

    With ``whole_bytes``, values are stored as bytes, as in images.
    """
    if array.dtype.kind not in "buif" or array.ndim < 1 or len(array) != rows or not array.size:
        return f"no array of numbers with {rows:,} rows"
    known = array[~np.isnan(array)] if array.dtype.kind == "f" else array
    if not known.size:
        return "holds no number"
    if array.ndim == 1:
        return _column(name, known.astype(np.float64), rows)
    shape = array.shape[1:]
    shape = (1, *shape) if len(shape) == 2 else shape
    byte_images = (whole_bytes or array.dtype == np.uint8) and len(shape) > 1
    likelihood, why = _values(known, byte_images=byte_images, one=len(shape) == 1)
    if len(shape) == 3 and shape[2] <= COLOURS < SMALLEST_SIDE <= min(shape[:2]):
        height, width, channels = shape
        why += f"; channels last: as ({rows}, {channels}, {height}, {width}) it could have a conv encoder"
    return Part(name, shape, likelihood, why, encoder=conv_encoder(shape[1:]) if is_image(shape) else "")


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether rows are images or volumes: channels, then two or three sides of at least `SMALLEST_SIDE`, of similar length.

    Example:
        >>> is_image((1, 28, 28)), is_image((3, 64, 48)), is_image((1, 3, 64)), is_image((28, 28, 3)), is_image((12,))
        (True, True, False, False, False)
    """
    sides = shape[1:]
    return len(sides) in (2, 3) and min(sides) >= SMALLEST_SIDE and max(sides) <= LONGEST * min(sides)


def part_of_texts(name: str, array: np.ndarray) -> tuple[Part, tuple[str, ...]] | str:
    """Infers the modality of a text array, with its classes; returns a reason if it cannot be one.

    The array, (N,), has empty texts, NA and similar markers for missing values.
    """
    normal = [text for text in map(normal_text, array.tolist()) if text not in MISSING]
    texts, rows = np.unique(np.array(normal, dtype=np.str_), return_counts=True)
    if len(texts) < 2:
        return "text that does not vary"
    if holds_dates(texts.tolist()):
        return "dates, which are no numbers; count days since one of them"
    found = kind_of_text(name, rows) if len(texts) > 2 else ColumnKind("classes", "text of 2 different values")
    if found.kind == "left out":
        return found.why
    return Part(name, (len(texts),), "categorical", found.reason), ordered_classes(texts.tolist())


def _column(name: str, known: np.ndarray, rows: int) -> Part | str:
    """Infers the modality of one number per row; returns a reason if it cannot be one."""
    tally = Tally.of(known)
    count, low, high = len(tally.values), tally.low, tally.high
    if (low, high) == (0, 1) and tally.whole:
        return Part(name, (1,), BINARY, "values from 0 to 1")
    found = _column_kind(name, tally, known, rows)
    if found.kind == "left out":
        return found.why
    if found.kind != "classes":
        return Part(name, (1,), "negative_binomial" if found.kind == "counts" else "normal", found.reason)
    if tally.whole and low >= 0 and high < min(MOST_CLASSES, 2 * count):
        return Part(name, (int(high) + 1,), "categorical", f"class indices: {found.reason}")
    return Part(name, (1,), "normal", f"numbers, standardised; could also be classes: {count:,} values; write their indices, from 0")


def _column_kind(name: str, tally: Tally, known: np.ndarray, rows: int) -> ColumnKind:
    """The kind of one number per row."""
    count = len(tally.values)
    if count == 1:
        return ColumnKind("left out", f"holds {tally.low:g} alone")
    if len(known) == rows == count >= 2 * ROWS_A_CLASS and tally.whole and counts_rows(known):
        return ColumnKind("left out", "looks like identifiers: whole numbers in a row that differ in all rows")
    if count == 2:
        return ColumnKind("classes", f"two values, {tally.low:g}, {tally.high:g}")
    return kind_of_numbers(name, tally)


def _values(known: np.ndarray, *, byte_images: bool, one: bool) -> tuple[str, str]:
    """The likelihood of values, and the reason for it."""
    low, high, whole = float(known.min()), float(known.max()), bool((known == np.floor(known)).all())
    if low >= 0 and high <= 1 and (whole or not one):
        return (BINARY if one else "bernoulli"), "values from 0 to 1"
    if byte_images:
        return "{type: discretized_logistic, high: 255}", "bytes, as images have them"
    if whole and low == 0:
        return "negative_binomial", f"whole numbers from 0 to {high:g}"
    return "normal", "numbers, standardised"
