"""Writes tables in the format of their inputs: observed cells are unchanged, and columns keep their types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nbridge.data.blocks import Block, RowWriter
from nbridge.data.endings import GZIP, has_ending
from nbridge.data.imputed import Imputed
from nbridge.data.output_names import DRAW
from nbridge.data.tables import arrow as arrow_cells
from nbridge.data.tables.columns import ArrowTable, CsvTable, ParquetTable, TableFile
from nbridge.data.tables.csv import CsvWriter, Record, as_cell, split_text
from nbridge.data.tables.output_columns import CellColumn, CellPlan, output_columns
from nbridge.data.tables.schema_metadata import with_metadata_of
from nbridge.data.tables.text_folder import TextFolder, TextFolderWriter


class CsvRowWriter(RowWriter):
    """Writes a csv file in the format of another; modalities of lists, which csv cannot hold, are left out.

    Arguments:
        more: Rows appended to those of the input: the values of some of its columns.
    """

    def __init__(
        self, path: Path, plan: CellPlan, file: CsvTable, start: int, *, packed: bool, more: Sequence[Mapping[str, str]] = ()
    ) -> None:
        own = {field.column for name in plan.layout.columns for field in plan.fields(name)}
        self._plan, self._file = replace(plan, written=frozenset(own - plan.layout.lists)), file.file
        self._writer = CsvWriter(path, file.file, packed=packed)
        self._records = islice(chain(file.file.records(), self._more(more)), start, None)
        self._places = [file.columns.index(column) for column in plan.kept]
        self._begun = False

    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:  # noqa: ARG002 (rows are read again)
        rows, draws = len(imputed), imputed.draws or 0
        columns = output_columns(self._plan, imputed)
        if not self._begun:
            self._writer.write([self._header(columns, draws)])
            self._begun = True
        records = list(islice(self._records, rows))
        self._writer.write([line for row, record in enumerate(records) for line in self._lines(record, row, columns, draws)])

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _more(self, rows: Sequence[Mapping[str, str]]) -> Iterator[Record]:
        for row in rows:
            values = [row.get(column, "") for column in self._file.columns]
            yield Record(0, values, self._file.delimiter.join(as_cell(value, self._file.delimiter) for value in values))

    def _header(self, columns: Sequence[CellColumn], draws: int) -> str:
        there = split_text(self._file.header, self._file.columns, self._file.delimiter)
        new = [as_cell(column.name, self._file.delimiter) for column in columns if column.name not in self._plan.kept]
        return self._file.delimiter.join([*(there[place] for place in self._places), *new, *([DRAW] if draws else [])])

    def _lines(self, record: Any, row: int, columns: Sequence[CellColumn], draws: int) -> Iterator[str]:
        delimiter = self._file.delimiter
        there = split_text(record.text, record.values, delimiter)
        cells = {column: there[place] for column, place in zip(self._plan.kept, self._places, strict=True)}
        for draw in range(max(1, draws)):
            line = dict(cells)
            for column in columns:
                if column.fill[row]:
                    line[column.name] = as_cell(column.text(draw, row), delimiter)
                elif column.name not in cells:
                    line[column.name] = column.observed if column.same_as is None else cells[column.same_as]
            yield delimiter.join([*line.values(), *([str(draw + 1)] if draws else [])])


@dataclass(frozen=True)
class Renewed:
    """Cells of a column to rewrite.

    Arguments:
        rows: The table row of each output row; repeated for draws.
        fill: Which output rows to rewrite, (len(rows),).
        values: Their values: an Arrow array of the column's type, one per rewritten row.
        marks: Which output rows were imputed, now or before, (len(rows),).
    """

    rows: np.ndarray
    fill: np.ndarray
    values: Any
    marks: np.ndarray

    def put(self, given: Any) -> Any:
        """Returns the column with these values in it."""
        pa = arrow_cells.pyarrow_of()
        if self.values is not None and self.values.type != arrow_cells.flat_type(given.type):
            # A column without a value; independent of the rows, so that all parts of a table have one type.
            given = pa.nulls(len(given), self.values.type)
        if not self.fill.any():
            return arrow_cells.take(given, self.rows)
        places = np.where(self.fill, len(given) + np.cumsum(self.fill) - 1, self.rows)
        kind = given.type
        plain = given.dictionary_decode() if pa.types.is_dictionary(kind) else given
        both = pa.concat_arrays([plain, self.values])
        found = arrow_cells.take(both, places)
        return arrow_cells.encoded(found, given) if pa.types.is_dictionary(kind) else found


class ArrowRowWriter(RowWriter):
    """Writes columns of an Arrow table."""

    masks: ClassVar[bool] = True
    """Whether mask columns are written."""

    def __init__(self, plan: CellPlan, table: ArrowTable, start: int) -> None:
        self.plan, self.table, self._row = plan, table, start

    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:  # noqa: ARG002 (rows are read again)
        columns, draws, count = output_columns(self.plan, imputed), imputed.draws or 0, len(imputed)
        rows = np.repeat(np.arange(count), max(1, draws))
        given = self.given(self._row, self._row + count, columns)
        self._row += count
        renewed: dict[str, Renewed] = {}
        added: dict[str, Any] = {}
        for column in columns:
            if column.name in self.plan.kept:
                fill = column.fill[rows]
                kind = self.table.kind(column.name)
                values, marks = (
                    self._values(column, np.flatnonzero(fill), max(1, draws), kind),
                    fill if column.marks is None else column.marks[rows],
                )
                renewed[column.name] = Renewed(rows, fill, values, marks)
            elif self.masks or not column.mask or column.name in self.table.columns:
                added[column.name] = self._added(given, column, rows, max(1, draws))
        if draws:
            added[DRAW] = arrow_cells.pyarrow_of().array(np.tile(np.arange(1, draws + 1), count))
        self.put(given, rows, renewed, added)

    def given(self, start: int, stop: int, columns: Sequence[CellColumn]) -> Any:  # noqa: ARG002 (for subclasses that need few columns)
        """The output rows, of all columns that are needed."""
        return self.table.read(self.plan.kept, start, stop)

    def put(self, given: Any, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> None:
        """Writes the next rows.

        Arguments:
            given: The input rows.
            rows: The output rows, each repeated for draws.
            renewed: The imputed cells, by column.
            added: New columns.
        """
        raise NotImplementedError

    def _values(self, column: CellColumn, places: np.ndarray, draws: int, kind: Any) -> Any:
        """The values of the output rows to rewrite."""
        pa = arrow_cells.pyarrow_of()
        if column.numbers.ndim > 2:
            kind = arrow_cells.list_type(column.numbers.shape[2:], pa.float64()) if pa.types.is_null(kind) else kind
            vectors = column.numbers[places % draws if len(column.numbers) > 1 else 0, places // draws]
            return arrow_cells.lists(arrow_cells.shaped(vectors, kind, self.plan.shapes.get(column.name, ())), kind)
        assert column.style is not None
        plain = column.style.type_of(arrow_cells.flat_type(kind))
        numbers = column.numbers[places % draws if len(column.numbers) > 1 else 0, places // draws].astype(np.float64)
        return pa.array(column.style.values(numbers, plain), plain)

    def _added(self, given: Any, column: CellColumn, rows: np.ndarray, draws: int) -> Any:
        """A column that the table lacks."""
        pa = arrow_cells.pyarrow_of()
        places = np.arange(len(rows)) % draws if len(column.numbers) > 1 else 0
        numbers, fill = column.numbers[places, rows], column.fill[rows]
        if numbers.ndim > 1:
            kind = pa.bool_() if column.mask else pa.float64()
            shape = arrow_cells.shaped(numbers, arrow_cells.list_type((numbers.shape[1],), kind), ())
            return arrow_cells.lists(shape, arrow_cells.list_type(shape.shape[1:], kind))
        if column.mask:
            return pa.array(numbers.astype(bool))
        if column.same_as is not None:
            own = [None if value is None else float(value) for value in given.column(column.same_as).to_pylist()] if not fill.all() else []
            return pa.array(
                [float(number) if new else own[row] for number, new, row in zip(numbers, fill, rows, strict=True)], pa.float64()
            )
        if column.style is not None and column.style.has_classes:
            return pa.array([column.style.text(float(number)) for number in numbers], pa.string())
        return pa.array(
            [float(number) if new else float(column.observed or "nan") for number, new in zip(numbers, fill, strict=True)], pa.float64()
        )


class ParquetRowWriter(ArrowRowWriter):
    """Writes a Parquet file whose columns keep their types, and the file its metadata.

    Arguments:
        part: The first row to write and the one after the last, if not all rows are written.
        rows: The number of rows of the table, if more are appended.
        more: Rows appended to those of the table: the values of some of its columns, as text.
    """

    def __init__(
        self,
        path: Path,
        plan: CellPlan,
        table: ParquetTable,
        part: tuple[int, int] | None = None,
        *,
        rows: int = 0,
        more: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(plan, table, part[0] if part else 0)
        self._path, self._rows, self._more, self._part, self._schema = path, rows, more, part, table.schema
        self._writer: Any = None

    def put(self, given: Any, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        none = np.zeros(len(rows), dtype=bool)
        every = Renewed(rows, none, None, none)
        columns = {name: renewed.get(name, every).put(given.column(name).combine_chunks()) for name in self.plan.kept}
        part = None if DRAW in added else self._part
        out = with_metadata_of(pa.table({**columns, **added}), self._schema, part=part, nullable=bool(self._more))
        if self._writer is None:
            self._writer = ParquetWriter(self._path, out.schema)
        if out.num_rows:
            self._writer.write_table(out)

    def given(self, start: int, stop: int, columns: Sequence[CellColumn]) -> Any:
        if not self._more or stop <= self._rows:
            return super().given(start, stop, columns)
        pa = arrow_cells.pyarrow_of()
        rows = self._more[max(0, start - self._rows) : stop - self._rows]
        fields = [(name, self.table.kind(name)) for name in self.plan.kept]
        added = {
            name: pa.array([row.get(name) for row in rows], pa.string()).cast(arrow_cells.flat_type(kind)).cast(kind)
            if any(name in row for row in rows)
            else pa.nulls(len(rows), kind)
            for name, kind in fields
        }
        there = super().given(start, min(stop, self._rows), columns) if start < self._rows else None
        return pa.concat_tables([*([] if there is None else [there]), pa.table(added)], promote_options="permissive")

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def table_writer(
    path: Path,
    target: Path,
    plan: CellPlan,
    file: TableFile,
    part: tuple[int, int] | None = None,
    *,
    rows: int = 0,
    more: Sequence[Mapping[str, str]] = (),
) -> Iterator[RowWriter]:
    """Context manager that writes a table, finally named `target`, in the format of another; arguments as of the writers."""
    if isinstance(file, TextFolder):
        out: CsvRowWriter | ParquetRowWriter | TextFolderWriter = TextFolderWriter(path, plan, file, more)
    elif isinstance(file, CsvTable):
        out = CsvRowWriter(path, plan, file, part[0] if part else 0, packed=has_ending(target, GZIP), more=more)
    else:
        assert isinstance(file, ParquetTable)
        out = ParquetRowWriter(path, plan, file, part, rows=rows, more=more)
    try:
        yield out
    finally:
        out.close()
