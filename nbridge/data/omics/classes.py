"""Columns of obs as classes: categories, text, booleans, and numeric class labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.classes import class_indices, unlisted, wrong_count
from nbridge.data.omics.container import Part
from nbridge.data.tables.cells import ordered_classes
from nbridge.data.texts import EMPTY, normal_text, number_of, same_text_twice
from nbridge.errors import DataError


def is_numeric(column: Any) -> bool:
    """Whether a column of a data frame holds numbers or booleans."""
    return getattr(column.dtype, "kind", "O") in "buif" and not hasattr(column.dtype, "categories")


def texts_of(column: Any) -> tuple[np.ndarray, list[str]]:
    """The distinct values of a column as text, and each row's index among them, -1 where missing."""
    codes, different = column.factorize()
    texts = [_text(value) for value in different]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return np.array([*(places[text] for text in texts), -1])[np.asarray(codes)], list(places)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else normal_text(str(value))


def declared_classes(column: Any) -> tuple[str, ...]:
    """The classes of a column: its categories in order, or else its distinct texts."""
    if hasattr(column.dtype, "categories"):
        return tuple(filter(None, dict.fromkeys(map(_text, column.dtype.categories))))
    return ordered_classes(filter(None, texts_of(column)[1]))


def found_classes(part: Part, name: str, column: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The classes of a column that the spec does not list: its own numbers if they are indices, else its texts in order.

    Raises:
        DataError: when their number differs from the shape.
    """
    values = part.obs[column]
    classes, count = declared_classes(values), max(2, shape[0])
    if is_numeric(values) and all(number_of(text) in range(count) for text in classes):
        return tuple(map(str, range(count)))
    if len(classes) != count:
        raise wrong_count(f"{part.where}: obs/{column}", classes, name, shape)
    return classes


def check_classes(name: str, column: str, classes: tuple[str, ...], shape: tuple[int, ...]) -> None:
    """Checks that classes are unique and match the shape; two classes may also be encoded as 0 and 1.

    Raises:
        DataError: when they don't.
    """
    if len(shape) != 1 or len(classes) != max(2, shape[0]):
        raise DataError(f"classes: modality {name!r} (obs/{clip(column)}) has {len(classes)}, but its shape is {shape}")
    if (twice := same_text_twice(classes)) is not None:
        raise DataError(f"classes: modality {name!r}: duplicate class {clip(twice)!r}")


def class_codes(part: Part, column: str, classes: tuple[str, ...]) -> np.ndarray:
    """The class index of each row, NaN where missing.

    Raises:
        DataError: for the first text that is not a class.
    """
    codes, texts = texts_of(part.obs[column])

    def message(row: int) -> str:
        return unlisted(f"obs/{column}", f"observation {clip(part.names[row])!r}", texts[codes[row]], classes)

    return class_indices(codes, texts, classes, message, EMPTY)
