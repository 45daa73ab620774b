"""The data source of Parquet files: columns, or lists in a column, as modalities, with row groups read on demand."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.data.arrays import keys_of
from nbridge.data.blocks import RowReader
from nbridge.data.endings import PARQUET, has_ending, parquet_files
from nbridge.data.folders import find_file, find_file_or_folder
from nbridge.data.ids import check_ids
from nbridge.data.name_patterns import matching
from nbridge.data.source import Binding, DataSource, check_not_input, is_path
from nbridge.data.split import Dataset
from nbridge.data.split_labels import NoColumnError, RowLabels, label_texts
from nbridge.data.streaming.store import Store, bytes_of
from nbridge.data.streaming.stored_rows import LIMIT, open_rows
from nbridge.data.tables.columns import no_column
from nbridge.data.tables.parquet_rows import list_rows
from nbridge.errors import DataError, naming


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
        with naming(self.origin, path), list_rows(path, names, sizes, self.id) as rows:
            yield rows

    def check_output(self, target: Path, *, sharded: bool) -> None:  # noqa: ARG002 (rows can be cut anywhere)
        check_not_input(target, find_file(self.path))

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Opens the files and finds the columns of the requested modalities; others are ignored.

        Raises:
            DataError: when pyarrow is missing, a file is missing or damaged, or a column is missing or has another type or size.
        """
        asked = keys_of(shapes, self.columns, "columns")
        path = find_file_or_folder(self.path)
        files = [_open(file) for file in _files(path)]
        columns = {name: _chosen(files[0], name, words, self.reserved) for name, words in asked.items()}
        for file in files:
            for name, shape in shapes.items():
                _check_columns(file, name, columns[name], shape)
                _check_alike(files[0], file, columns[name])
        taken = {column for names in columns.values() for column in names}
        rows = open_rows(_ParquetStore(path, shapes, files, columns))
        return Dataset(rows, self._ids(path, files, len(rows)) if self.id not in taken else None)

    def row_labels(self, column: str, shapes: Mapping[str, tuple[int, ...]]) -> RowLabels:  # noqa: ARG002
        """The values of a column in all files; no other column is read."""
        path = find_file_or_folder(self.path)
        files = [_open(file) for file in _files(path)]
        for file in files:
            if column not in file.types:
                raise NoColumnError(f"{file.path}: {no_column(column, '', list(file.types))}")
            if _pyarrow().types.is_nested(file.types[column]):
                raise NoColumnError(
                    f"{file.path}: column {clip(column)!r} holds {clip(file.types[column])}, expected one value for each row"
                )
        texts = [label_texts(_read(file, [column]).column(column).to_pylist()) for file in files]
        ends = np.cumsum([len(part) for part in texts])

        def where(row: int) -> str:
            number = int(np.searchsorted(ends, row, side="right"))
            of = f" of {files[number].path.name}" if len(files) > 1 else ""
            return f"row {row - int(ends[number]) + len(texts[number])}{of}"

        return RowLabels(f"column {clip(column)!r}", [text for part in texts for text in part], where, str(path))

    def _ids(self, path: Path, files: Sequence[_File], rows: int) -> np.ndarray | None:
        if self.id == "id" and not all("id" in file.types for file in files):
            return None
        parts = [_numpy_ids(file, self.id) for file in files]
        with naming(path):
            return check_ids(np.concatenate(parts), rows)


@dataclass(frozen=True)
class _File:
    """A file, the types of its columns, and the rows of each row group."""

    path: Path
    metadata: Any
    types: Mapping[str, Any]
    groups: tuple[int, ...]


class _ParquetStore(Store):
    """Row groups of one or more files, each a block."""

    def __init__(
        self, path: Path, shapes: Mapping[str, tuple[int, ...]], files: Sequence[_File], columns: Mapping[str, tuple[str, ...]]
    ) -> None:
        groups = [(file, group) for file in files for group, rows in enumerate(file.groups) if rows]
        super().__init__(path, shapes, [file.groups[group] for file, group in groups])
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
        table = _read(file, columns, group)
        with naming(file.path):
            first = int(self.starts[block]) - self._firsts[file.path]
            if len(columns) == 1:
                return _numbers(table.column(columns[0]), name, width, first)
            return np.concatenate([_numbers(table.column(column), name, 1, first) for column in columns], axis=1)


def _pyarrow() -> Any:
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    return pyarrow


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (_pyarrow().ArrowException, OSError, EOFError) as error:
        reason = clip((str(error).splitlines() or [type(error).__name__])[0], 100)
        raise DataError(f"{path}: not a parquet file, or truncated or damaged ({reason})") from error


def _read(file: _File, columns: Sequence[str], group: int | None = None) -> Any:
    """Reads some columns, of one row group or of all."""
    groups = range(len(file.groups)) if group is None else [group]
    with _reading(file.path), _pyarrow().parquet.ParquetFile(file.path, metadata=file.metadata) as reader:
        return reader.read_row_groups(list(groups), columns=list(columns), use_threads=False)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = parquet_files(path)
    if not files:
        raise DataError(f"{path}: no file *.parquet in this folder")
    return files


def _open(path: Path) -> _File:
    pyarrow = _pyarrow()
    with _reading(path):
        metadata = pyarrow.parquet.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        groups = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    return _File(path, metadata, {field.name: field.type for field in schema}, groups)


def _chosen(file: _File, name: str, asked: str | Sequence[str], reserved: Collection[str] = ()) -> tuple[str, ...]:
    """The columns of a modality, with patterns expanded in the order of the file; patterns do not match reserved columns."""
    columns: list[str] = []
    for word in [asked] if isinstance(asked, str) else asked:
        found = [column for column in matching(word, list(file.types)) if column == word or column not in reserved]
        if not found:
            raise _missing(file, name, word)
        columns += found
    if twice := next((column for column in columns if columns.count(column) > 1), None):
        raise DataError(f"columns: modality {name!r}: duplicate column {twice!r}")
    return tuple(columns)


def _missing(file: _File, name: str, word: str) -> DataError:
    of = f" for modality {name!r}" if word != name else ""
    names = list(file.types)
    shown = listing(names[:20]) + (f", and {len(names) - 20} more" if len(names) > 20 else "")
    return DataError(f"{file.path}: no column {word!r}{of}.{did_you_mean(word, names)} Found: {shown}")


def _check_columns(file: _File, name: str, columns: Sequence[str], shape: tuple[int, ...]) -> None:
    types = _pyarrow().types
    for column in columns:
        if column not in file.types:
            raise _missing(file, name, column)
        kind = file.types[column]
        inner = kind.value_type if _is_list(kind) else kind
        if not (types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)):
            raise DataError(
                f"{file.path}: modality {name!r}: column {column!r} of type {clip(kind)}, expected numbers, or lists of numbers"
            )
        if _is_list(kind) and len(columns) > 1:
            raise DataError(
                f"{file.path}: modality {name!r}: column {column!r} holds lists, expected one column of lists, or several of numbers"
            )
    if not _is_list(file.types[columns[0]]):
        with naming(file.path):
            _check_width(name, len(columns), shape)


def _check_alike(first: _File, file: _File, columns: Sequence[str]) -> None:
    for column in columns:
        if _is_list(first.types[column]) != _is_list(file.types[column]):
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


def _is_list(kind: Any) -> bool:
    types = _pyarrow().types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _check_size(file: _File, group: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    most = LIMIT // (2 * bytes_of(shapes))
    if file.groups[group] > most:
        raise DataError(
            f"{file.path}: row group {group} holds {file.groups[group]:,} rows, too many to read at once; "
            f"write the file again with row groups of {min(most, 10_000):,} rows or so"
        )


def _numbers(column: Any, name: str, width: int, first: int) -> np.ndarray:
    """A column as numbers, NaN for null: :math:`(N, width)`, or class indices, :math:`(N,)`, for scalars with a larger width."""
    pyarrow = _pyarrow()
    array = column.combine_chunks()
    if not _is_list(array.type):
        return _plain(array).reshape(-1, 1) if width == 1 else _plain(array)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    lengths = pyarrow.compute.list_value_length(array).to_numpy(zero_copy_only=False)
    if (wrong := np.flatnonzero(valid & (lengths != width))).size:
        row = wrong[0]
        raise DataError(
            f"modality {name!r}: row {first + row} holds {int(lengths[row])} values, expected {width}, or null where it is absent"
        )
    flat = _plain(array.flatten()).reshape(-1, width)
    if valid.all():
        return flat
    rows = np.full((len(array), width), np.nan, np.result_type(flat.dtype, np.float32))
    rows[valid] = flat
    return rows


def _plain(array: Any) -> np.ndarray:
    """Numbers of an Arrow array without lists, NaN for null."""
    pyarrow = _pyarrow()
    if pyarrow.types.is_boolean(array.type):
        array = array.cast(pyarrow.uint8())
    return array.to_numpy(zero_copy_only=False)


def _numpy_ids(file: _File, column: str) -> np.ndarray:
    if column not in file.types:
        names = list(file.types)
        raise DataError(f"{file.path}: no column {column!r}.{did_you_mean(column, names)} Found: {listing(names[:20])}")
    return _read(file, [column]).column(column).combine_chunks().to_numpy(zero_copy_only=False)
