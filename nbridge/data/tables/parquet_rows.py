"""Reads and writes rows of a Parquet file block by block; a modality is a column of numbers, or of lists of fixed length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
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
from nbridge.data.tables.arrow import dense, is_list, is_number, is_text, list_type, lists
from nbridge.data.tables.parquet_file import ParquetFile
from nbridge.errors import DataError

_GROUP = 2**25
"""Bytes of a row group written."""


class ListRows(RowReader):
    """Columns of a Parquet file.

    Arguments:
        sizes: The number of values per row of each modality, by column.
    """

    noun: ClassVar[str] = "column"

    def __init__(self, file: ParquetFile, names: Mapping[str, str], sizes: Mapping[str, int], id_key: str) -> None:
        file.check_names()
        self._file, self.names, self._sizes, self.id_key = file, names, sizes, id_key
        self.schema, self.keys = file.schema, tuple(file.schema.names)

    def layout(self, key: str) -> Layout:
        kind, rows = self.schema.field(key).type, self._file.rows
        if is_number(kind):
            return Layout(np.dtype(kind.to_pandas_dtype()), (rows,))
        if is_list(kind) and is_number(kind.value_type):
            return Layout(np.dtype(kind.value_type.to_pandas_dtype()), (rows, getattr(kind, "list_size", self._sizes.get(key, 1))))
        hint = "; leave out a column that holds nothing" if str(kind) == "null" else ""
        raise DataError(f"column {key!r} is of type {clip(kind)}, expected numbers, or lists of numbers{hint}")

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:  # noqa: ARG002
        # Encoded columns take more memory once decoded.
        return 2 * self._file.bytes // max(1, rows)

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        keys = tuple(keys)
        numbers = [key for key in keys if key.removesuffix(PRESENT) in self._sizes]
        for first, table in self._tables(keys, start, stop, size):
            read = {key: self._read(key, table.column(key).combine_chunks(), first) for key in numbers}
            missing = {key: mask for key, (_, mask) in read.items() if mask is not None}
            yield Block(first, {key: array for key, (array, _) in read.items()}, missing, table)

    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:
        kind = self.schema.field(key).type
        if not (is_number(kind) or is_text(kind)):
            raise DataError(f"ids: column of type {clip(kind)}, expected integers or text")
        check_ids_layout((self._file.rows,), np.dtype(object), rows)
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

        groups, first = self._file.groups(start, stop)
        rest, wanted = None, stop - start
        for batch in self._file.batches(list(keys), size, groups):
            table = pa.Table.from_batches([batch])
            table, first = table.slice(max(0, start - first)), first + batch.num_rows
            rest = table if rest is None else pa.concat_tables([rest, table])
            rest = rest.slice(0, wanted)
            while wanted and rest.num_rows >= min(size, wanted):
                yield stop - wanted, rest.slice(0, size).combine_chunks()
                wanted -= min(size, rest.num_rows)
                rest = rest.slice(size)

    def _read(self, key: str, array: Any, first: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A column as an array, and its mask of missing cells; None if none is missing."""

        def message(row: int, length: int, _: int, expected: int) -> str:
            return f"column {key!r}: row {first + row} holds {length} values, expected {expected}"

        return dense(array, message, *self.layout(key).shape[1:])


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
                columns[key] = _column(*done[key], self._schema.field(key).type if key in self._schema.names else None)
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


def _column(array: np.ndarray, axis: int, kind: Any) -> Any:
    """Converts an array to a column of the original type, in lists of K if there are draws before the axis of rows."""
    import pyarrow as pa

    draws = array.shape[0] if axis else 1
    row = (prod(array.shape[1 + axis :]),) if array.ndim > 1 + axis else ()
    flat = np.moveaxis(array, axis, 0).reshape(-1, *row)
    column = lists(flat, list_type(row, pa.from_numpy_dtype(array.dtype)) if kind is None else kind)
    return pa.FixedSizeListArray.from_arrays(column, draws) if axis else column
