"""The data source of Parquet files: columns, or lists in a column, as modalities, with row groups read on demand."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.arrays import keys_of
from nbridge.data.blocks import RowReader
from nbridge.data.endings import PARQUET, has_ending
from nbridge.data.folders import find_file, find_file_or_folder
from nbridge.data.ids import check_ids
from nbridge.data.marks import IMPUTED, as_marks
from nbridge.data.source import Binding, DataSource, check_not_input, is_path
from nbridge.data.split import Dataset
from nbridge.data.split_labels import NoColumnError, RowLabels, label_texts
from nbridge.data.streaming.store import Store, bytes_of
from nbridge.data.streaming.stored_rows import LIMIT, open_rows
from nbridge.data.tables.arrow import dense, distinct_values, is_list, is_number, pyarrow_of, with_nan
from nbridge.data.tables.coded import coded_columns
from nbridge.data.tables.columns import no_column
from nbridge.data.tables.layout import expand, of_modality
from nbridge.data.tables.parquet_file import ParquetFile, parquet_parts
from nbridge.data.tables.parquet_rows import ListRows
from nbridge.errors import DataError, naming
from nbridge.spec.columns import ColumnKind


class Parquet(DataSource):
    """Rows of a parquet file, or of the files of a folder sorted by name, which may be larger than memory.

    A modality is a column of numbers, several columns side by side, or a column of lists of one length; a single column of integers
    can hold class indices for a shape of one axis. Null and NaN mark absent values. Two passes over the files determine presence and check
    every value; row groups are then read as training requests them. An epoch shuffles row groups, and rows within 64 MiB of
    values: small row groups (10,000 rows) shuffle better than large ones.

    Arguments:
        path: The file or the folder: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.
        columns: The column of each modality, a pattern such as gene_*, or a list of columns; by default the column of the same name.
        id: The column of identifiers; optional under its default name.
    """

    def __init__(
        self, *, path: str, columns: dict[str, str | tuple[str, ...]] | None = None, id: str = "id"  # noqa: A002 (a key of the YAML)
    ) -> None:  # fmt: skip
        self.path = path
        self.columns = columns or {}
        self.id = id
        self.ending = PARQUET

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:
        return own is not None and is_path(rows) and has_ending(str(rows), PARQUET)

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> Parquet:
        found = cls(path=str(rows))
        found.origin = str(rows)
        if own is not None:
            found.columns, found.id = dict(own.array_keys), own.id
        return found

    @property
    def array_keys(self) -> Mapping[str, str]:
        return {name: column for name, column in self.columns.items() if isinstance(column, str)}

    @contextmanager
    def blocks(self, binding: Binding, scratch: Path) -> Iterator[RowReader]:  # noqa: ARG002 (columns are read where they are)
        path, names = find_file(self.path), self.array_names(binding.taken)
        sizes = {names[name]: prod(shape) for name, shape in binding.taken.items()}
        with naming(self.origin, path):
            yield ListRows(ParquetFile(path, "not a Parquet file, or damaged", "damaged Parquet file"), names, sizes, self.id)

    def check_output(self, target: Path, *, sharded: bool) -> None:  # noqa: ARG002 (rows can be cut anywhere)
        check_not_input(target, find_file(self.path))

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Opens the files and finds the columns of the requested modalities; others are ignored.

        Raises:
            DataError: when pyarrow is missing, a file is missing or damaged, or a column is missing or has another type or size.
        """
        asked = keys_of(shapes, self.words(self.columns), "columns")
        path = find_file_or_folder(self.path)
        files = parquet_parts(path)
        columns = {name: expand(name, words, files[0].schema.names, self.reserved, files[0].path) for name, words in asked.items()}
        _check_no_classes(files[0].path, {name: self.mixed[name] for name in shapes if name in self.mixed})
        for file in files:
            for name, shape in shapes.items():
                _check_columns(file, name, columns[name], shape)
                _check_alike(files[0], file, columns[name])
        taken = {column for names in columns.values() for column in names}
        rows = open_rows(_ParquetStore(path, shapes, files, columns))
        marked = {name: sum(_marked(file, (name, *own), taken) for file in files) for name, own in columns.items()}
        return Dataset(rows, self._ids(path, files, len(rows)) if self.id not in taken else None, imputed=marked)

    def row_labels(self, column: str, shapes: Mapping[str, tuple[int, ...]]) -> RowLabels:  # noqa: ARG002
        """The values of a column in all files; no other column is read."""
        path = find_file_or_folder(self.path)
        files = parquet_parts(path)
        for file in files:
            if column not in file.types:
                raise NoColumnError(f"{file.path}: {no_column(column, '', file.schema.names)}")
            if pyarrow_of().types.is_nested(file.types[column]):
                raise NoColumnError(
                    f"{file.path}: column {clip(column)!r} holds {clip(file.types[column])}, expected one value for each row"
                )
        labels: list[str] = []
        for file in files:
            codes, values = distinct_values(file.read([column]).column(column).combine_chunks())
            labels += np.array(label_texts(values), dtype=object)[codes].tolist()
        starts = np.cumsum([0, *(file.rows for file in files)])

        def where(row: int) -> str:
            number = int(np.searchsorted(starts, row, side="right")) - 1
            of = f" of {files[number].path.name}" if len(files) > 1 else ""
            return f"row {row - int(starts[number])}{of}"

        return RowLabels(f"column {clip(column)!r}", labels, where, str(path))

    def _ids(self, path: Path, files: Sequence[ParquetFile], rows: int) -> np.ndarray | None:
        if self.id == "id" and not all("id" in file.types for file in files):
            return None
        for file in files:
            if self.id not in file.types:
                raise DataError(f"{file.path}: {no_column(self.id, '', file.schema.names)}")
        parts = [file.read([self.id]).column(self.id).combine_chunks().to_numpy(zero_copy_only=False) for file in files]
        with naming(path):
            return check_ids(np.concatenate(parts), rows)


class _ParquetStore(Store):
    """Row groups of one or more files, each a block."""

    def __init__(
        self, path: Path, shapes: Mapping[str, tuple[int, ...]], files: Sequence[ParquetFile], columns: Mapping[str, tuple[str, ...]]
    ) -> None:
        groups = [(file, group) for file in files for group, rows in enumerate(np.diff(file.ends)) if rows]
        super().__init__(path, shapes, [int(np.diff(file.ends)[group]) for file, group in groups])
        self._groups, self._columns, self._firsts = groups, columns, dict[Path, int]()
        for start, (file, group) in zip(self.starts.tolist(), groups, strict=True):
            self._firsts.setdefault(file.path, start)
            _check_size(file, group, shapes)
        # Two per modality: a window may begin in the row group where the previous one ended.
        self._decoded = functools.lru_cache(maxsize=2 * len(shapes))(self._decode)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        block = self._block(start)
        first = int(self.starts[block])
        return self._decoded(block, name)[start - first : stop - first]

    def place(self, row: int) -> tuple[str, int]:
        path = self._groups[self._block(row)][0].path
        return str(path), self._firsts[path]

    def _block(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _decode(self, block: int, name: str) -> np.ndarray:
        file, group = self._groups[block]
        columns, width = self._columns[name], prod(self.shapes[name])
        first, stop = file.ends[group : group + 2].tolist()
        table = file.read(columns, first, stop)
        with naming(file.path):
            if len(columns) == 1:
                return _numbers(table.column(columns[0]), name, width, first)
            return np.concatenate([_numbers(table.column(column), name, 1, first) for column in columns], axis=1)


def _marked(file: ParquetFile, stems: Iterable[str], taken: Collection[str]) -> int:
    """The number of rows of a file with cells of a modality that were imputed before."""
    keys = [key for stem in dict.fromkeys(stems) if (key := stem + IMPUTED) in file.types and key not in taken]
    found = np.zeros(file.rows, dtype=bool)
    for key in keys:
        column = file.read([key]).column(key).combine_chunks()
        with naming(file.path):
            marks = with_nan(*dense(column, lambda *_, key=key: f"{key}: lists of different lengths"))
            found |= as_marks(key, marks).reshape(file.rows, -1).any(1)
    return int(found.sum())


def _check_no_classes(path: Path, mixed: Mapping[str, Mapping[str, ColumnKind]]) -> None:
    for column, coded in coded_columns(mixed).items():
        raise DataError(
            f"{path}: modality {coded.modality!r}: column {clip(column)!r} has classes, and source: parquet reads numbers alone; "
            "use source: table, which reads the file into memory"
        )


def _check_columns(file: ParquetFile, name: str, columns: Sequence[str], shape: tuple[int, ...]) -> None:
    for column in columns:
        if column not in file.types:
            raise DataError(f"{file.path}: {no_column(column, of_modality(name, column), file.schema.names)}")
        kind = file.types[column]
        if not is_number(kind.value_type if is_list(kind) else kind):
            raise DataError(
                f"{file.path}: modality {name!r}: column {column!r} of type {clip(kind)}, expected numbers, or lists of numbers"
            )
        if is_list(kind) and len(columns) > 1:
            raise DataError(
                f"{file.path}: modality {name!r}: column {column!r} holds lists, expected one column of lists, or several of numbers"
            )
    if not is_list(file.types[columns[0]]):
        with naming(file.path):
            _check_width(name, len(columns), shape)


def _check_alike(first: ParquetFile, file: ParquetFile, columns: Sequence[str]) -> None:
    for column in columns:
        if is_list(first.types[column]) != is_list(file.types[column]):
            raise DataError(
                f"{file.path}: column {column!r} of type {clip(file.types[column])}, but {clip(first.types[column])} in {first.path.name}"
            )


def _check_width(name: str, columns: int, shape: tuple[int, ...]) -> None:
    """Checks the number of numeric columns; a single one can represent several elements only as class indices."""
    size = prod(shape)
    if columns == 1 < size and len(shape) > 1:
        raise DataError(
            f"modality {name!r}: one column of numbers for a shape of {shape}, expected {size} columns, or one of lists of {size}"
        )
    if columns not in (1, size):
        raise DataError(f"modality {name!r}: {columns} columns, expected {size}, one for each element of the shape {shape}")


def _check_size(file: ParquetFile, group: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    most, rows = LIMIT // (2 * bytes_of(shapes)), int(np.diff(file.ends)[group])
    if rows > most:
        raise DataError(
            f"{file.path}: row group {group} holds {rows:,} rows, too many to read at once; "
            f"write the file again with row groups of {min(most, 10_000):,} rows or so"
        )


def _numbers(column: Any, name: str, width: int, first: int) -> np.ndarray:
    """A column as numbers, NaN for null: :math:`(N, width)`, or class indices, :math:`(N,)`, for scalars with a larger width."""

    def message(row: int, length: int, _: int, expected: int) -> str:
        return f"modality {name!r}: row {first + row} holds {length} values, expected {expected}, or null where it is absent"

    numbers = with_nan(*dense(column.combine_chunks(), message, width))
    numbers = numbers.view(np.uint8) if numbers.dtype == bool else numbers
    return numbers[:, None] if numbers.ndim == width == 1 else numbers
