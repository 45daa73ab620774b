"""The modality that an array seems to be."""

from __future__ import annotations

import numpy as np

from nbridge.first_spec import Part
from nbridge.guesses import FEW, ROWS_A_CLASS


def part_of_array(name: str, array: np.ndarray, rows: int, *, whole_bytes: bool = False) -> Part | None:
    """A modality of an array; None where it can be none.

    Arguments:
        name: Its name.
        array: Its rows.
        rows: The number of rows that it should have.
        whole_bytes: Whether its numbers are stored as bytes, as those of images are.
    """
    if array.dtype.kind not in "buif" or array.ndim < 1 or len(array) != rows or not array.size:
        return None
    known = array[~np.isnan(array)] if array.dtype.kind == "f" else array
    if not known.size:
        return None
    high, whole = float(known.max()), bool((known == np.floor(known)).all())
    if array.ndim == 1 and whole and known.min() >= 0 and 2 <= high < FEW * ROWS_A_CLASS and (high + 1) * ROWS_A_CLASS <= len(known):
        return Part(name, (int(high) + 1,), "categorical", f"class indices up to {high:g}", classes=True)
    shape = array.shape[1:] or (1,)
    shape = (1, *shape) if len(shape) == 2 else shape
    return Part(
        name,
        shape,
        *_values(
            float(known.min()), high, whole, byte_images=(whole_bytes or array.dtype == np.uint8) and len(shape) > 1, one=len(shape) == 1
        ),
    )


def _values(low: float, high: float, whole: bool, *, byte_images: bool, one: bool) -> tuple[str, str]:
    """The likelihood of values, and why."""
    if low >= 0 and high <= 1 and (whole or not one):
        return ("{type: bernoulli, attributes: true}" if one else "bernoulli"), "values from 0 to 1"
    if byte_images:
        return "{type: discretized_logistic, high: 255}", "bytes, as images have them"
    if whole and low == 0:
        return "negative_binomial", f"whole numbers from 0 to {high:g}"
    return "normal", "numbers, standardised"
