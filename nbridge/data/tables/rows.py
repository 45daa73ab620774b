"""Tables, csv or Parquet or in memory, read and written block by block: a modality is one or more columns, or a column of lists.

A file is read once; its numbers go to a temporary file, from which a model reads them as often as needed. The file is read again
when rows are written, so that observed cells are written verbatim. Numbers of a table in memory stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from nbridge.common.atomic_files import replacing
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.data.blocks import Block, Layout, Output, RowReader, RowWriter
from nbridge.data.column import PRESENT
from nbridge.data.ids import IdWording, identifier_of
from nbridge.data.output_names import IMPUTED, described_by
from nbridge.data.tables.arrow import row_texts
from nbridge.data.tables.cell_format import CellStyle
from nbridge.data.tables.columns import Chunk, TableFile
from nbridge.data.tables.frame_adapter import Frame
from nbridge.data.tables.frame_writer import FrameRowWriter
from nbridge.data.tables.layout import TableLayout
from nbridge.data.tables.marks import mark_columns, marks_of, read_column_marks
from nbridge.data.tables.output_columns import CellPlan, learn_formats
from nbridge.data.tables.presence import check_presence
from nbridge.data.tables.write import table_writer
from nbridge.errors import DataError

_NUMBER = np.dtype(np.float64)


class CellRows(RowReader):
    """The columns of a table as modalities.

    Arguments:
        scratch: A folder for numbers; by default they stay in memory.

    Attributes:
        plan: What to write of the table.
        rows: The number of its rows.

    Raises:
        DataError: for the first invalid cell, or when a modality has only some of its columns.
    """

    noun: ClassVar[str] = "column"
    by_name: ClassVar[bool] = False

    def __init__(self, file: TableFile, layout: TableLayout, names: Sequence[str], scratch: Path | None = None) -> None:
        self.file, self._layout = file, layout.among(file)
        self.names = {name: name for name in names}
        # Rows in memory are identified by position, so identifiers may repeat.
        self.id_key = None if scratch is None else layout.id
        self._layout.check()
        self.there = tuple(name for name in layout.columns if has_modality(file.columns, layout, name))
        taken = [column for name in self.there for column in layout.columns[name]]
        kept = kept_columns(file, layout, names)
        reserved = {*layout.columns, *(name + PRESENT for name in layout.columns)}
        self.passed = tuple(column for column in kept if column not in taken)
        self.keys = (*self.there, *(column for column in self.passed if column not in reserved))
        no_slip(self.passed, layout, self.there)
        cells = _columns(layout) - self._layout.lists - set(layout.texts)
        styles = {column: CellStyle(layout.classes.get(column, ())) for column in cells}
        self.plan = CellPlan(self._layout, styles, {}, kept, self.passed)
        self._marked = mark_columns(self._layout, file.columns, names)
        self._widths = {name: 0 if self._layout.is_index(name) else list(self._layout.fields(name))[-1].stop for name in self.there}
        self._scratch, self._numbers = scratch, dict[str, _InMemory | _OnDisk]()
        for name in self.there:
            self._store(name)
        self.rows, shapes = self._scan(taken)
        self.plan = replace(self.plan, shapes=shapes)

    @property
    def marks(self) -> dict[str, str]:
        return {name: name + IMPUTED for name in self.names if name + IMPUTED in self._numbers}

    def layout(self, key: str) -> Layout:
        return Layout(self._numbers[key].dtype, (self.rows, self._widths[key]) if self._widths[key] else (self.rows,))

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:  # noqa: ARG002
        # Python strings take some sixty bytes each.
        return 60 * len(self.file.columns) + _NUMBER.itemsize * sum(max(1, width) for width in self._widths.values())

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        names = [key for key in keys if key in self._numbers]
        for first in range(start, stop, size):
            last = min(first + size, stop)
            yield Block(first, {name: self._numbers[name].read(first, last) for name in names})

    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:  # noqa: ARG002
        for chunk in self.file.chunks([key], size):
            yield row_texts(chunk.column(key), identifier_of)

    def id_wording(self, key: str) -> IdWording:
        return self.file.id_wording(key)

    def one_hot(self, name: str) -> tuple[tuple[int, int], ...]:
        return self._layout.one_hot(name)

    def place(self, name: str, row: int, element: int) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] (kinds may have none)
        return f"modality {name!r}, column {clip(self._layout.element(name, element))!r}, {self.file.where(row)}"

    @contextmanager
    def writing(self, target: Path | None, output: Output) -> Iterator[RowWriter]:
        if target is None:
            assert isinstance(self.file, Frame)
            yield FrameRowWriter(self.plan, self.file)
            return
        part = (output.start, output.stop) if output.partial else None
        with replacing(target) as temporary, table_writer(temporary, target, self.plan, self.file, part) as out:
            yield out

    def _scan(self, taken: Sequence[str]) -> tuple[int, dict[str, tuple[int, ...]]]:
        """Reads all rows: stores their numbers, infers the format of each column; returns the number of rows, and the vector shapes."""
        masks = {name: name + PRESENT for name in self.there if name + PRESENT in self.file.columns}
        rows, shapes = 0, dict[str, tuple[int, ...]]()
        for chunk in self.file.chunks(dict.fromkeys([*taken, *masks.values(), *self._marked])):
            numbers = self._layout.numbers(chunk, taken)
            learn_formats(self.plan.styles, shapes, chunk, numbers)
            for name in self.there:
                array = self._layout.array(name, numbers)
                if name in masks:
                    mask = self._layout.mask(chunk, masks[name])
                    check_presence(name, mask, array, chunk.where)
                self._numbers[name].append(array)
            self._keep_marks(chunk)
            rows += chunk.rows
        if not rows:
            raise DataError("no rows")
        return rows, shapes

    def _keep_marks(self, chunk: Chunk) -> None:
        """Stores the marks of cells that were imputed before."""
        found = {column: read_column_marks(column, chunk, self._layout) for column in self._marked}
        for name in self.names:
            if (marks := marks_of(self._layout, name, found)) is not None:
                key = name + IMPUTED
                self._widths.setdefault(key, marks.shape[1] if marks.ndim > 1 else 0)
                self._store(key).append(marks)

    def _store(self, key: str) -> _InMemory | _OnDisk:
        if key not in self._numbers:
            path = None if self._scratch is None else self._scratch / f"{len(self._numbers)}.numbers"
            self._numbers[key] = _InMemory() if path is None else _OnDisk(path, self._widths[key])
        return self._numbers[key]


class _OnDisk:
    """Rows of a modality in a file."""

    dtype = _NUMBER

    def __init__(self, path: Path, width: int) -> None:
        self._path, self._width = path, width

    def append(self, array: np.ndarray) -> None:
        """Appends rows."""
        with self._path.open("ab") as out:
            out.write(array.astype(_NUMBER).tobytes())

    def read(self, start: int, stop: int) -> np.ndarray:
        """Reads some rows."""
        width = max(1, self._width)
        count, offset = (stop - start) * width, start * width * _NUMBER.itemsize
        return np.fromfile(self._path, _NUMBER, count, offset=offset).reshape((-1, width) if self._width else -1)


class _InMemory:
    """Rows of a modality in memory."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []

    @property
    def dtype(self) -> np.dtype:
        return np.result_type(*self._parts)

    def append(self, array: np.ndarray) -> None:
        """Appends rows."""
        self._parts.append(array)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Reads some rows."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0][start:stop]


def kept_columns(file: TableFile, layout: TableLayout, names: Iterable[str]) -> tuple[str, ...]:
    """The columns of a table to write again: all except those from an earlier imputation of some modalities."""
    described = {stem for name in names for stem in (name, *layout.columns[name])}
    return tuple(column for column in file.columns if column in _columns(layout) or described_by(column) not in described)


def has_modality(found: Sequence[str], layout: TableLayout, name: str) -> bool:
    """Whether columns hold a modality: all of its columns, or none.

    Raises:
        DataError: when only some of its columns exist.
    """
    missing = [column for column in layout.columns[name] if column not in found]
    if missing and len(missing) < len(layout.columns[name]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        spare = [column for column in found if column not in _columns(layout)]
        near = did_you_mean(missing[0], spare, cutoff=0.8)
        raise DataError(
            f"column {clip(missing[0])!r}{more} of modality {name!r} is missing.{near} Add it, with empty cells for absent values; "
            "a file may lack all columns of a modality, not some"
        )
    if missing and name + PRESENT in found:
        raise DataError(f"modality {name!r}: {name}{PRESENT} is given without its columns ({clip(listing(layout.columns[name]), 100)})")
    return not missing


def no_slip(passed: Sequence[str], layout: TableLayout, there: Sequence[str]) -> None:
    """Rejects a column with the name of a missing modality, or similar to one of its columns: it would otherwise be imputed silently.

    Raises:
        DataError: for the first such column, or when there is no modality.
    """
    absent = [column for name in layout.columns if name not in there for column in layout.columns[name]]
    for column in passed:
        if column in layout.columns and column not in there:
            listed = clip(listing(layout.columns[column]), 100)
            raise DataError(f"{clip(column)!r}: expected the columns of modality {column!r} one by one ({listed}), or rename it")
        if column != layout.id and (near := did_you_mean(column, absent, cutoff=0.8)):
            raise DataError(f"column {clip(column)!r}: no such column in the spec.{near}")
    if not there:
        raise DataError(f"no column of any modality ({clip(listing(absent), 200)}). Found: {clip(listing(passed), 200)}")


def _columns(layout: TableLayout) -> set[str]:
    return {column for columns in layout.columns.values() for column in columns}
