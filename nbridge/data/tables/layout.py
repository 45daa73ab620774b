"""The columns of each modality, and how their cells are encoded: reals, 0 and 1, or classes.

A modality of shape (n,) is n elements side by side. A numeric column is one of them, as is a column of two classes, as 0 and 1; a column of
C > 2 classes among others is C of them, one-hot. A single column of C classes, for a modality of shape (C,), is a class index. A column of
lists is a modality by itself, of any shape with as many elements.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np

from nbridge.common.messages import clip, listing
from nbridge.data.name_patterns import matching
from nbridge.data.names import repeated
from nbridge.data.output_names import described_by
from nbridge.data.source import Field
from nbridge.data.tables.arrow import distinct
from nbridge.data.tables.cells import LARGEST, read_cells
from nbridge.data.tables.columns import Chunk, TableFile, no_column
from nbridge.data.tables.text_cells import read_texts
from nbridge.data.text_values import TextForm
from nbridge.data.texts import same_text_twice
from nbridge.errors import DataError


@dataclass(frozen=True)
class TableLayout:
    """The columns of each modality.

    Arguments:
        shapes: The shape of a row of each modality, by name.
        columns: Its columns, in order.
        texts: The form of each column that holds texts.
    """

    shapes: Mapping[str, tuple[int, ...]]
    columns: Mapping[str, tuple[str, ...]]
    classes: Mapping[str, tuple[str, ...]]
    id: str = "id"
    missing: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    texts: Mapping[str, TextForm] = field(default_factory=dict)

    def check(self) -> None:
        """Checks that columns match shapes, and that no column is in two modalities.

        Raises:
            DataError: for the first mismatch.
        """
        owners: dict[str, str] = {}
        for name, columns in self.columns.items():
            for column in columns:
                if (owner := owners.setdefault(column, name)) != name:
                    raise DataError(f"columns: column {clip(column)!r} is in modality {owner!r} and in {name!r}, expected one of them")
            self._check_width(name)
        for column, classes in self.classes.items():
            if (twice := same_text_twice(classes)) is not None:
                raise DataError(f"classes: column {clip(column)!r}: duplicate class {clip(twice)!r}")
            if column not in owners:
                raise DataError(f"classes: {no_column(column, ' in any modality', tuple(owners))}")

    def one_hot(self, name: str) -> tuple[tuple[int, int], ...]:
        """The start and stop of the elements of each one-hot column of a modality."""
        return tuple((field.start, field.stop) for field in self.fields(name) if field.classes and field.stop - field.start > 1)

    def element(self, name: str, element: int) -> str:
        """The column of an element of a modality."""
        return next((field.column for field in self.fields(name) if field.start <= element < field.stop), self.columns[name][-1])

    def among(self, file: TableFile) -> TableLayout:
        """The same layout, with the list columns of a file."""
        there = (column for columns in self.columns.values() for column in columns if column in file.columns)
        return replace(self, lists=self.lists | {column for column in there if file.is_list(column)})

    def is_index(self, name: str) -> bool:
        """Whether a modality is one column of class indices."""
        shape, column = self.shapes[name], self.columns[name][0]
        return len(self.columns[name]) == 1 and len(shape) == 1 and shape[0] > 1 and column not in self.lists and column not in self.texts

    def fields(self, name: str) -> Iterator[Field]:
        """The columns of a modality, with their elements."""
        start = 0
        for column in self.columns[name]:
            classes = self.classes.get(column, ())
            width = len(classes) if len(classes) > 2 and not self.is_index(name) else 1
            width = prod(self.shapes[name]) if column in self.lists or column in self.texts else width
            yield Field(column, classes, start, start + width)
            start += width

    def element_names(self, name: str) -> list[str]:
        """The names of the elements of a modality: columns, classes in columns, or elements of lists."""
        if self.is_index(name):
            return list(self.columns[name])
        names: list[str] = []
        for one in self.fields(name):
            several = one.classes and [f"{one.column}={text}" for text in one.classes]
            names += [one.column] if one.stop - one.start == 1 else several or [f"{one.column}[{i}]" for i in range(one.stop - one.start)]
        return names

    def numbers(self, chunk: Chunk, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Converts columns of a chunk to numbers, NaN where absent.

        Raises:
            DataError: for the first cell that can't be converted.
        """
        return {column: self._read(chunk, column) for column in columns}

    def mask(self, chunk: Chunk, column: str) -> np.ndarray:
        """Converts a presence column of a chunk to numbers, NaN where absent.

        Raises:
            DataError: for the first cell that can't be converted.
        """
        return read_cells(column, chunk.column(column), (), chunk.absent | self.missing, chunk.where)

    def _read(self, chunk: Chunk, column: str) -> np.ndarray:
        absent = chunk.absent | self.missing
        if column in self.texts:
            return read_texts(column, chunk.column(column), self.texts[column], absent, chunk.where)
        if column not in self.lists:
            return read_cells(column, chunk.column(column), self.classes.get(column, ()), absent, chunk.where)
        if column not in chunk.vectors:
            if all(text.strip() in absent for text in distinct(chunk.column(column))[1]):
                # An all-null column has no list type.
                return np.full((chunk.rows, self._width(column)), np.nan, np.float32)
            raise DataError(f"column {clip(column)!r} holds single values, expected lists of {self._width(column)} numbers")
        array, width = chunk.vectors[column], self._width(column)
        flat = array.reshape(len(array), -1)
        if array.size and flat.shape[1] != width:
            row = int(np.flatnonzero(~np.isnan(flat).all(1))[0]) if not np.isnan(flat).all() else 0
            raise DataError(f"column {clip(column)!r}: {chunk.where(row)} holds {_by(array.shape[1:])} values, expected {width}")
        if (far := (np.abs(flat) > LARGEST).any(1)).any():
            row = int(np.flatnonzero(far)[0])
            what = "an infinite number; null or NaN marks absent values" if np.isinf(flat[row]).any() else "a number beyond float32"
            raise DataError(f"column {clip(column)!r}: {chunk.where(row)} holds {what}")
        return flat if array.size else np.full((len(array), width), np.nan, np.float32)

    def _width(self, column: str) -> int:
        return next(prod(self.shapes[name]) for name, columns in self.columns.items() if column in columns)

    def array(self, name: str, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
        """A modality as an array: class indices, :math:`(N,)`, or elements, :math:`(N, n)`, NaN where absent.

        Arguments:
            name: The modality.
            numbers: Its columns, by name.
        """
        if self.is_index(name):
            return numbers[self.columns[name][0]]
        parts = [_elements(numbers[field.column], field.stop - field.start) for field in self.fields(name)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _check_width(self, name: str) -> None:
        fields, shape = list(self.fields(name)), self.shapes[name]
        if len(fields) > 1 and any(field.column in self.texts for field in fields):
            raise DataError(f"modality {name!r}: {len(fields)} columns, but its likelihood is text; expected one column of texts")
        if (listed := [field.column for field in fields if field.column in self.lists]) and len(fields) > 1:
            raise DataError(
                f"modality {name!r}: column {clip(listed[0])!r} holds lists, expected one column of lists, or several of single values"
            )
        if listed and fields[0].classes:
            known = clip(listing(fields[0].classes), 100)
            raise DataError(f"modality {name!r}: column {clip(listed[0])!r} holds lists, expected one of its classes in each row: {known}")
        if self.is_index(name):
            classes = fields[0].classes
            if classes and len(classes) != shape[0]:
                raise DataError(f"classes: column {clip(fields[0].column)!r} has {len(classes)}, but modality {name!r} is of shape {shape}")
            return
        if fields[-1].stop != prod(shape):
            count = f"{len(fields)} column{'s' if len(fields) != 1 else ''}"
            elements = "" if fields[-1].stop == len(fields) else f" of {fields[-1].stop} elements with classes one-hot"
            named = clip(listing(self.columns[name]), 100)
            raise DataError(f"modality {name!r}: {count} ({named}){elements}, but its shape is {shape}; write shape: {fields[-1].stop}")


def of_modality(name: str, column: str) -> str:
    """Names the modality of a missing column, for messages, unless it has the same name."""
    return f" for modality {name!r}" if column != name else ""


def expand(
    name: str, asked: str | Sequence[str], columns: Sequence[str], reserved: Collection[str] = (), path: Path | None = None
) -> tuple[str, ...]:
    """The columns of a modality, with patterns expanded in the order of the file.

    Arguments:
        name: The modality.
        asked: Names of columns, or patterns such as ``lab_*``; an exact column name takes precedence.
        columns: All available columns.
        reserved: Columns that patterns do not match.
        path: The file, to be named if a column is missing.

    Raises:
        DataError: when one is missing or duplicate.

    Example:
        >>> expand("lab", ["age", "lab_*"], ["lab_2", "age", "lab_1", "lab__present"])
        ('age', 'lab_2', 'lab_1')
    """
    found: list[str] = []
    for word in [asked] if isinstance(asked, str) else asked:
        spare = [column for column in matching(word, columns) if column == word or column not in reserved]
        named = [column for column in spare if column == word or described_by(column) is None]
        if not named:
            raise DataError(("" if path is None else f"{path}: ") + no_column(word, of_modality(name, word), columns))
        found += named
    if (twice := repeated(found)) is not None:
        raise DataError(f"columns: modality {name!r}: duplicate column {clip(twice)!r}")
    return tuple(found)


def _elements(numbers: np.ndarray, width: int) -> np.ndarray:
    if numbers.ndim > 1:
        return numbers
    if width == 1:
        return numbers[:, None]
    places = np.arange(width)
    return np.where(np.isnan(numbers)[:, None], np.nan, (numbers[:, None] == places).astype(np.float64))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
