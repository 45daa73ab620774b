"""Reads and writes rows of a Parquet file block by block; a modality is a column of numbers, or of lists of fixed length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nbridge.common.atomic_files import replacing
from nbridge.common.messages import clip
from nbridge.data.blocks import Block, Layout, Output, RowReader, RowWriter
from nbridge.data.column import PRESENT
from nbridge.data.ids import check_ids_layout
from nbridge.data.imputed import Imputed
from nbridge.data.output_names import named_arrays
from nbridge.errors import DataError

_READ, _GROUP = 2**20, 2**25
"""Bytes of a column read at a time, and of a row group written."""


class ListRows(RowReader):
    """Columns of a Parquet file.

    Arguments:
        file: A `pyarrow.parquet.ParquetFile`.
        names: The column of each modality.
        sizes: The number of values per row of each modality, by column.
        id_key: The column of identifiers.
    """

    noun: ClassVar[str] = "column"

    def __init__(self, file: Any, names: Mapping[str, str], sizes: Mapping[str, int], id_key: str) -> None:
        self._file, self.names, self._sizes, self.id_key = file, names, sizes, id_key
        self.schema = file.schema_arrow
        self.keys = tuple(self.schema.names)
        if twice := [key for key in self.keys if self.keys.count(key) > 1]:
            raise DataError(f"duplicate column {twice[0]!r}")

    def layout(self, key: str) -> Layout:
        kind, rows = self.schema.field(key).type, self._file.metadata.num_rows
        if _is_number(kind):
            return Layout(np.dtype(kind.to_pandas_dtype()), (rows,))
        if _is_list(kind) and _is_number(kind.value_type):
            return Layout(np.dtype(kind.value_type.to_pandas_dtype()), (rows, getattr(kind, "list_size", self._sizes.get(key, 1))))
        hint = "; leave out a column that holds nothing" if str(kind) == "null" else ""
        raise DataError(f"column {key!r} is of type {clip(kind)}, expected numbers, or lists of numbers{hint}")

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:  # noqa: ARG002
        groups = (self._file.metadata.row_group(number).total_byte_size for number in range(self._file.num_row_groups))
        # Encoded columns take more memory once decoded.
        return 2 * sum(groups) // max(1, rows)

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        keys = tuple(keys)
        numbers = [key for key in keys if key.removesuffix(PRESENT) in self._sizes]
        for first, table in self._tables(keys, start, stop, size):
            read = {key: _read_column(key, table.column(key), self.layout(key).shape[1:], first) for key in numbers}
            missing = {key: mask for key, (_, mask) in read.items() if mask is not None}
            yield Block(first, {key: array for key, (array, _) in read.items()}, missing, table)

    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:
        import pyarrow as pa

        kind = self.schema.field(key).type
        if not (_is_number(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"ids: column of type {clip(kind)}, expected integers or text")
        check_ids_layout((self._file.metadata.num_rows,), np.dtype(object), rows)
        return (table.column(key).to_numpy() for _, table in self._tables([key], 0, rows, size))

    @contextmanager
    def writing(self, target: Path | None, output: Output) -> Iterator[RowWriter]:
        assert target is not None
        with replacing(target) as temporary:
            table = _Table(temporary, self.schema, self.names, output)
            try:
                yield table
                table.flush()
            finally:
                table.close()

    def _tables(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[tuple[int, Any]]:
        """Tables of a fixed number of rows, except the last, each with the index of its first row."""
        import pyarrow as pa

        groups, first = self._groups(start, stop)
        rest, wanted = None, stop - start
        for batch in _reporting_damage(self._file.iter_batches(size, row_groups=groups, columns=list(keys), use_threads=False)):
            table = pa.Table.from_batches([batch])
            table, first = table.slice(max(0, start - first)), first + batch.num_rows
            rest = table if rest is None else pa.concat_tables([rest, table])
            rest = rest.slice(0, wanted)
            while wanted and rest.num_rows >= min(size, wanted):
                yield stop - wanted, rest.slice(0, size).combine_chunks()
                wanted -= min(size, rest.num_rows)
                rest = rest.slice(size)

    def _groups(self, start: int, stop: int) -> tuple[list[int], int]:
        """The row groups that contain these rows, and the index of the first row of the first group."""
        ends = np.cumsum([0, *(self._file.metadata.row_group(number).num_rows for number in range(self._file.num_row_groups))])
        found = [number for number in range(len(ends) - 1) if ends[number] < stop and ends[number + 1] > start]
        return found, int(ends[found[0]]) if found else start


class _Table(RowWriter):
    """A Parquet file written by row groups."""

    def __init__(self, path: Path, schema: Any, names: Mapping[str, str], output: Output) -> None:
        self._path, self._schema, self._names, self._writer = path, schema, names, None
        self._pending: list[Any] = []
        self.needs = output.passed

    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:
        """Writes the next rows: columns stay in order, each followed by its mask; new ones come last."""
        import pyarrow as pa

        done = {key: (array, axis) for key, array, axis in named_arrays(imputed, self._names)}
        columns: dict[str, Any] = {}
        for key in dict.fromkeys([*_in_order(self._schema.names, done), *done]):
            if key in done:
                columns[key] = _arrow(*done[key], self._schema.field(key).type if key in self._schema.names else None)
            elif key in self.needs:
                columns[key] = block.table.column(key)
        table = pa.table(columns)
        self._pending.append(table.replace_schema_metadata(self._schema.metadata))
        if sum(table.nbytes for table in self._pending) >= _GROUP:
            self.flush()

    def flush(self) -> None:
        """Writes the buffered rows as a row group."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        table = pa.concat_tables(self._pending)
        if self._writer is None:
            self._writer = ParquetWriter(self._path, table.schema)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._pending = [table.schema.empty_table()]

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def list_rows(path: Path, names: Mapping[str, str], sizes: Mapping[str, int], id_key: str) -> Iterator[ListRows]:
    """Opens the columns of a Parquet file.

    Arguments:
        path: The file.
        names: The column of each modality.
        sizes: The number of values per row of each modality, by column.
        id_key: The column of identifiers.

    Raises:
        DataError: when it is damaged or not a Parquet file.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path, buffer_size=_READ, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"not a Parquet file, or damaged ({_line(error)})") from error
    with file:
        yield ListRows(file, names, sizes, id_key)


def _in_order(names: list[str], done: Mapping[str, Any]) -> Iterator[str]:
    """The original columns, each followed by the new ones that follow it in the imputed block."""
    filled = list(done)
    for name in names:
        yield name
        if name in done:
            for later in filled[filled.index(name) + 1 :]:
                if not later.startswith(name + "__"):
                    break
                yield later


def _reporting_damage(batches: Iterator[Any]) -> Iterator[Any]:
    import pyarrow as pa

    try:
        yield from batches
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"damaged Parquet file ({_line(error)})") from error


def _line(error: Exception) -> str:
    return clip((str(error).splitlines() or [type(error).__name__])[0], 100)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _read_column(key: str, column: Any, row: tuple[int, ...], first: int) -> tuple[np.ndarray, np.ndarray | None]:
    """A column's array, and its mask of missing cells; None if none is missing."""
    from pyarrow import compute

    array = column.combine_chunks()
    if not row:
        return _read_numbers(array)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    lengths = compute.call_function("list_value_length", [array]).fill_null(row[0]).to_numpy()
    if (wrong := np.flatnonzero(lengths != row[0])).size:
        raise DataError(f"column {key!r}: row {first + wrong[0]} holds {lengths[wrong[0]]} values, expected {row[0]}")
    flat, holes = _read_numbers(array.flatten())
    if valid.all():
        return flat.reshape(-1, *row), None if holes is None else holes.reshape(-1, *row)
    numbers, missing = np.zeros((len(valid), *row), flat.dtype), np.ones((len(valid), *row), bool)
    numbers[valid], missing[valid] = flat.reshape(-1, *row), False if holes is None else holes.reshape(-1, *row)
    return numbers, missing


def _read_numbers(array: Any) -> tuple[np.ndarray, np.ndarray | None]:
    if not array.null_count:
        return array.to_numpy(zero_copy_only=False), None
    dtype = np.dtype(array.type.to_pandas_dtype())
    return array.fill_null(dtype.type(0)).to_numpy(zero_copy_only=False), array.is_null().to_numpy(zero_copy_only=False)


def _arrow(array: np.ndarray, axis: int, kind: Any) -> Any:
    """Converts an array to a column of the original type, in lists of K if there are draws before the axis of rows."""
    import pyarrow as pa

    draws = array.shape[0] if axis else 1
    array = np.moveaxis(array, axis, 0)
    rows, row = draws * len(array), array.shape[1 + axis :]
    size = int(np.prod(row))
    flat = array.reshape(-1)
    if kind is None:
        numbers = pa.array(flat)
        column = pa.FixedSizeListArray.from_arrays(numbers, size) if row else numbers
    elif _is_list(kind):
        numbers = pa.array(flat, kind.value_type)
        offsets = () if pa.types.is_fixed_size_list(kind) else (pa.array(np.arange(rows + 1) * size, _offset_type(kind)),)
        lists = {True: pa.FixedSizeListArray, False: pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray}[not offsets]
        column = lists.from_arrays(*offsets, numbers, type=kind)
    else:
        column = pa.array(flat, kind)
    return pa.FixedSizeListArray.from_arrays(column, draws) if axis else column


def _offset_type(kind: Any) -> Any:
    import pyarrow as pa

    return pa.int64() if pa.types.is_large_list(kind) else pa.int32()
