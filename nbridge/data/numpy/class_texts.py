"""Converts classes stored as text in NumPy arrays (dtype U, or UTF-8 bytes of dtype S) to class indices and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbridge.common.messages import clip, listing
from nbridge.data.classes import class_indices
from nbridge.data.texts import check_unicode
from nbridge.errors import DataError


def are_texts(dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Whether an array holds one text per row.

    Arguments:
        dtype: Its dtype.
        shape: Its shape: :math:`(N,)` or :math:`(N, 1)`.
    """
    return dtype.kind in "US" and len(shape) > 0 and shape[1:] in ((), (1,))


def texts_in(array: np.ndarray, what: str) -> np.ndarray:
    """The texts of an array with one text per row, dtype U, :math:`(N,)`.

    Arguments:
        array: An array that passes `are_texts`.
        what: Its name, for messages.

    Raises:
        DataError: when it is not text: its bytes are not UTF-8, or its values not Unicode.
    """
    flat = array.reshape(-1)
    if flat.dtype.kind == "U":
        check_unicode(flat, what)
        return flat
    try:
        return np.char.decode(flat, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{what}: holds bytes that are not text in UTF-8; save it as text") from error


def class_numbers(texts: np.ndarray, classes: Sequence[str], what: str, first: int = 0) -> np.ndarray:
    """The class index of each row, :math:`(N,)`, NaN where absent: an empty text, or a placeholder such as NA unless it is a class.

    Arguments:
        texts: The texts, :math:`(N,)`.
        classes: The classes, in order.
        what: Their name, for messages.
        first: The index of the first row, for messages.

    Raises:
        DataError: for the first text that is not a class.

    Example:
        >>> class_numbers(np.array(["b", "", "a", "NA"]), ["a", "b"], "y")
        array([ 1., nan,  0., nan])
    """
    different, codes = np.unique(texts, return_inverse=True)

    def message(row: int) -> str:
        known = clip(listing(classes), 200)
        return f"{what}: row {first + row} holds {clip(str(texts[row]))!r}, expected one of {known}, or an empty text"

    return class_indices(codes.reshape(-1), different.tolist(), classes, message)


def text_type(given: np.dtype | None, classes: Sequence[str]) -> np.dtype:
    """A dtype wide enough for the texts of an array and for all classes.

    Arguments:
        given: The dtype of the array; None if there is none.
        classes: The classes.
    """
    if given is not None and given.kind == "S":
        return np.dtype(f"S{max(1, given.itemsize, *(len(text.encode()) for text in classes))}")
    wide = np.dtype(f"<U{max(1, *map(len, classes))}")
    return wide if given is None else np.result_type(given, wide)


def filled_texts(given: np.ndarray | None, numbers: np.ndarray, imputed: np.ndarray, classes: Sequence[str], dtype: np.dtype) -> np.ndarray:
    """Converts class indices back to texts; observed rows keep theirs unchanged.

    Arguments:
        given: The original rows, :math:`(N,)` or :math:`(N, 1)`; None if there were none.
        numbers: Class indices, :math:`(N,)`, or draws of them, :math:`(K, N)`.
        imputed: Which rows were imputed, :math:`(N,)`.
        classes: The ordered classes.
        dtype: The dtype of the texts, from `text_type`.

    Returns:
        Texts in the layout of the rows, after the axis of draws if there is one.
    """
    spelt = np.array([text.encode() for text in classes] if dtype.kind == "S" else list(classes), dtype)
    rows = numbers.shape[-1]
    codes = np.nan_to_num(numbers).astype(np.int64)
    texts = spelt[codes] if given is None else np.where(imputed, spelt[codes], given.reshape(rows).astype(dtype))
    return texts.astype(dtype).reshape(*numbers.shape[:-1], *((rows,) if given is None else given.shape))
