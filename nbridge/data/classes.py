"""Encodes values as class indices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from nbridge.common.messages import clip, listing, quoted
from nbridge.data.texts import MISSING, exact_number_of, normal_text
from nbridge.errors import DataError


def class_indices(
    codes: np.ndarray,
    texts: Sequence[str],
    classes: Iterable[str],
    message: Callable[[int], str],
    missing: Collection[str] = MISSING,
) -> np.ndarray:
    """The class index of each row, shape (N,), NaN where missing.

    A text is a class if both are equal after normalisation, or equal numbers where all classes are numbers: 1.0 is the class 1.

    Arguments:
        codes: The index of each row's text, (N,); negative where it has none.
        texts: The distinct texts.
        classes: The ordered classes.
        message: The error for a row that holds none of them.
        missing: Placeholders of missing values; one that is also a class counts as the class.

    Raises:
        DataError: for the first row whose text is not a class.

    Example:
        >>> class_indices(np.array([1, 0, -1, 2]), ["1", "2.0", "NA"], ("1", "2"), str)
        array([ 1.,  0., nan, nan])
    """
    known = {normal_text(text): float(place) for place, text in enumerate(classes)}
    numbers = {exact_number_of(text): place for text, place in known.items()}

    def index_of(text: str) -> float:
        if text in known or text in missing:
            return known.get(text, np.nan)
        return -1 if None in numbers else numbers.get(exact_number_of(text), -1)

    found = np.array([*(index_of(normal_text(text)) for text in texts), np.nan])[codes]
    if (wrong := np.flatnonzero(found < 0)).size:
        raise DataError(message(int(wrong[0])))
    return found


def unlisted(column: str, where: str, text: str, classes: Sequence[str]) -> str:
    """The message for a cell of a table that holds none of the classes."""
    return (
        f"column {clip(column)!r}: {where} holds {quoted(normal_text(text))}, a class that data.classes does not list; "
        f"it lists {clip(some_classes(classes), 200)}. Leave absent cells empty."
    )


def wrong_count(what: str, classes: Sequence[str], name: str, shape: tuple[int, ...]) -> DataError:
    """The error for a column with another number of classes than the shape of its modality."""
    return DataError(
        f"{what} has {len(classes)} classes ({clip(some_classes(classes), 100)}), but modality {name!r} is of shape {shape}; "
        f"write shape: {len(classes)}, or list the classes in data.classes"
    )


def some_classes(classes: Sequence[str]) -> str:
    """The first classes, for messages."""
    return listing(classes[:10]) + (", ..." if len(classes) > 10 else "")
