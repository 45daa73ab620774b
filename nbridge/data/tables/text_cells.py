"""Columns of texts: read as token numbers, and written as texts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.tables.arrow import distinct, flat_type, is_text, pyarrow_of
from nbridge.data.tables.cell_format import CellStyle
from nbridge.data.text_values import TextForm
from nbridge.data.texts import normal_text
from nbridge.errors import DataError

Where = Callable[[int], str]


def plain_texts(column: str, cells: Any, absent: Collection[str], where: Where) -> list[str]:
    """The texts of a column, empty where absent; blanks around a text belong to it.

    Arguments:
        column: Its name, for messages.
        cells: An Arrow array.
        absent: The texts that mark an absent cell.
        where: Formats the position of a row, for messages.

    Raises:
        DataError: when the column holds no texts.
    """
    kind = flat_type(cells.type)
    if not (is_text(kind) or pyarrow_of().types.is_null(kind) or cells.null_count == len(cells)):
        raise DataError(f"column {clip(column)!r}: {where(0)} is of type {clip(kind)}, expected texts, as its likelihood is text")
    codes, texts = distinct(cells)
    kept = ["" if normal_text(text) in absent else text for text in texts]
    return [kept[code] for code in codes.tolist()]


def read_texts(column: str, cells: Any, form: TextForm, absent: Collection[str], where: Where) -> np.ndarray:
    """A column of texts as token numbers, (N, L), NaN where absent.

    Raises:
        DataError: when the column holds no texts, or for the first that the form refuses.
    """
    return form.numbers(plain_texts(column, cells, absent, where), lambda row: f"column {clip(column)!r}: {where(row)}")


def spelt(form: TextForm, numbers: np.ndarray) -> tuple[np.ndarray, CellStyle]:
    """Draws of token numbers, (K, N, L), as indices of texts, (K, N), and the format that writes these."""
    texts = form.texts(numbers)
    different, codes = np.unique(texts.astype(str), return_inverse=True) if texts.size else (np.array([""]), np.zeros(0, np.int64))
    return codes.reshape(texts.shape), _TextStyle(different.tolist())


class _TextStyle(CellStyle):
    """The format of texts, which are written as they are."""

    def type_of(self, kind: Any) -> Any:
        return kind if is_text(kind) else pyarrow_of().string()
