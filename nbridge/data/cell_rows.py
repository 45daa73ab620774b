"""Tables of single values, csv or parquet, read and written block by block: a modality is columns side by side.

The file is read once as text: its numbers go to a temporary file, and from there to a model as often as it takes. It is read again when
rows are written, so that whatever was observed is written as it stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nbridge.data.blocks import Block, Filled, Layout, Output, RowsIn, RowsOut
from nbridge.data.cell_style import CellStyle
from nbridge.data.cells import read_cells
from nbridge.data.column import PRESENT
from nbridge.data.csv_text import CsvWriter, as_cell, split_text
from nbridge.data.table_file import CsvTable, ParquetTable, TableFile, open_table
from nbridge.data.table_layout import ADDED, Field, TableLayout, check_presence
from nbridge.errors import DataError
from nbridge.files import replacing
from nbridge.phrases import clip, did_you_mean, listing

DRAW = "draw"
"""The column that tells draws of one row apart, from 1."""
_IMPUTED = "__imputed"
_NUMBER = np.dtype(np.float64)


class CellRows(RowsIn):
    """The columns of a table as modalities.

    Arguments:
        file: The table.
        layout: Which columns are which modality.
        scratch: A folder for numbers.
        levels: The levels of intervals, which name their columns.

    Raises:
        DataError: for the first cell that holds what it may not, or when a modality has some of its columns only.
    """

    noun: ClassVar[str] = "column"
    by_name: ClassVar[bool] = False

    def __init__(self, file: TableFile, layout: TableLayout, scratch: Path, levels: Sequence[float] = ()) -> None:
        self.file, self.layout_, self.levels = file, layout, levels
        self.there = tuple(name for name in layout.columns if _has(file, layout, name))
        taken = [column for name in self.there for column in layout.columns[name]]
        made = {stem + ending for stem in (*layout.columns, *taken, *_columns(layout)) for ending in ADDED}
        self.kept = tuple(column for column in file.columns if column in taken or column not in made)
        reserved = {*layout.columns, *(name + PRESENT for name in layout.columns)}
        self.passed = tuple(column for column in self.kept if column not in taken)
        self.keys = (*self.there, *(column for column in self.passed if column not in reserved))
        _no_slip(self.passed, layout, self.there)
        self.styles = {column: CellStyle(layout.classes.get(column, ())) for column in _columns(layout)}
        self._scratch = {name: scratch / f"{number}.numbers" for number, name in enumerate(self.there)}
        self._widths = {name: 0 if layout.is_index(name) else list(layout.fields(name))[-1].stop for name in self.there}
        self.rows = self._scan(taken)

    def layout(self, key: str) -> Layout:
        return Layout(_NUMBER, (self.rows, self._widths[key]) if self._widths[key] else (self.rows,))

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:  # noqa: ARG002
        # Python's texts take some sixty bytes each.
        return 60 * len(self.file.columns) + _NUMBER.itemsize * sum(max(1, width) for width in self._widths.values())

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        names = [key for key in keys if key in self._scratch]
        for first in range(start, stop, size):
            last = min(first + size, stop)
            yield Block(first, {name: self._numbers(name, first, last) for name in names})

    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:  # noqa: ARG002
        for chunk in self.file.chunks([key], size):
            yield np.array([text.strip() for text in chunk.cells[key]], dtype=object)

    def check_passed(self, key: str) -> None:
        """Has nothing to check: any column can be written as it was read."""

    @contextmanager
    def writing(self, target: Path, output: Output) -> Iterator[RowsOut]:
        with replacing(target) as temporary:
            if isinstance(self.file, CsvTable):
                out: _CsvOut | _ParquetOut = _CsvOut(temporary, self, self.file, output.start, packed=target.name.endswith(".gz"))
            else:
                assert isinstance(self.file, ParquetTable)
                out = _ParquetOut(temporary, self, self.file, output.start)
            try:
                yield out
            finally:
                out.close()

    def _scan(self, taken: Sequence[str]) -> int:
        """Reads all rows: their numbers to disk, the style of each column; gives how many there are."""
        masks = {name: name + PRESENT for name in self.there if name + PRESENT in self.file.columns}
        rows = 0
        for chunk in self.file.chunks(dict.fromkeys([*taken, *masks.values()])):
            numbers = self.layout_.numbers(chunk, taken)
            for column, values in numbers.items():
                self.styles[column].learn(chunk.cells[column], values)
            for name, path in self._scratch.items():
                array = self.layout_.array(name, numbers)
                if name in masks:
                    mask = read_cells(masks[name], chunk.cells[masks[name]], (), self.layout_.missing, chunk.where)
                    check_presence(name, mask, array, chunk.where)
                with path.open("ab") as out:
                    out.write(array.astype(_NUMBER).tobytes())
            rows += chunk.rows
        if not rows:
            raise DataError("no rows")
        return rows

    def _numbers(self, name: str, start: int, stop: int) -> np.ndarray:
        width = max(1, self._widths[name])
        count, offset = (stop - start) * width, start * width * _NUMBER.itemsize
        return np.fromfile(self._scratch[name], _NUMBER, count, offset=offset).reshape((-1, width) if self._widths[name] else -1)


@contextmanager
def cell_rows(path: Path, layout: TableLayout, scratch: Path, levels: Sequence[float] = ()) -> Iterator[CellRows]:
    """The modalities of a table.

    Arguments:
        path: The file.
        layout: Which columns are which modality.
        scratch: A folder for temporary files.
        levels: The levels of intervals, which name their columns.

    Raises:
        DataError: when it can't be read, or holds what it may not.
    """
    yield CellRows(open_table(path), layout, scratch, levels)


@dataclass(frozen=True)
class _Column:
    """Some rows of a column that is written.

    Arguments:
        name: Its name.
        numbers: Its values, draws first, (K, N).
        fill: Which cells are written anew, (N,); others keep their text.
        observed: What stands in other cells of a column that the file lacks: a text, or the column whose text is taken.
        style: How numbers are written; seven digits where there is none.
    """

    name: str
    numbers: np.ndarray
    fill: np.ndarray
    observed: str = ""
    same_as: str | None = None
    style: CellStyle | None = None

    def text(self, draw: int, row: int) -> str:
        number = float(self.numbers[draw if len(self.numbers) > 1 else 0, row])
        return f"{number:.7g}" if self.style is None else self.style.text(number)


def _columns_of(rows: CellRows, done: Mapping[str, Filled]) -> list[_Column]:
    """All columns to write: those filled in, then masks, then figures."""
    names = [name for name in rows.layout_.columns if name in done]
    values = [column for name in names for column in _filled(rows, name, done)]
    masks = [column for name in names for column in _masks(rows, name, done[name + _IMPUTED].array)]
    figures = [column for name in names for column in _figures(rows, name, done)]
    return [*values, *masks, *figures]


def _filled(rows: CellRows, name: str, done: Mapping[str, Filled]) -> Iterator[_Column]:
    filled, mask = done[name], done[name + _IMPUTED].array
    array = filled.array if filled.axis else filled.array[None]
    for field in rows.layout_.fields(name):
        yield _Column(field.column, _guess(rows, name, field, array), _cells(mask, field), style=rows.styles[field.column])


def _guess(rows: CellRows, name: str, field: Field, array: np.ndarray) -> np.ndarray:
    """The values of a column, (K, N), among those of its modality: a number, or the most likely class."""
    if rows.layout_.is_index(name):
        return array
    elements = array.reshape(*array.shape[:2], -1)[..., field.start : field.stop]
    return elements.argmax(-1) if field.stop - field.start > 1 else elements[..., 0]


def _cells(mask: np.ndarray, field: Field) -> np.ndarray:
    return mask if mask.ndim == 1 else mask.reshape(len(mask), -1)[:, field.start]


def _masks(rows: CellRows, name: str, mask: np.ndarray) -> Iterator[_Column]:
    """A column for the modality, or one for each of its columns where some row is observed in part."""
    fields = list(rows.layout_.fields(name))
    for column, cells in [(name, mask)] if mask.ndim == 1 else [(field.column, _cells(mask, field)) for field in fields]:
        yield _Column(column + _IMPUTED, cells[None].astype(int), np.ones(len(mask), dtype=bool))


def _figures(rows: CellRows, name: str, done: Mapping[str, Filled]) -> Iterator[_Column]:
    """Of columns of numbers the mean, the deviation and the ends of intervals; of classes the probability of the one that is written."""
    mask = done[name + _IMPUTED].array
    for field in rows.layout_.fields(name):
        cells, column = _cells(mask, field), field.column
        if field.classes or rows.layout_.is_index(name):
            if (probability := _probability(name, field, done)) is not None:
                yield _Column(f"{column}__probability", probability[None], cells, observed="1")
            continue
        for what in ("mean", "sd"):
            if (key := f"{name}__{what}") in done:
                numbers = done[key].array.reshape(len(mask), -1)[:, field.start]
                yield _Column(f"{column}__{what}", numbers[None], cells, "0", column if what == "mean" else None)
        for what in ("lower", "upper"):
            if (key := f"{name}__{what}") in done:
                ends = done[key].array if done[key].axis else done[key].array[None]
                for level, numbers in zip(rows.levels, ends.reshape(len(ends), len(mask), -1)[..., field.start], strict=True):
                    ending = f"_{level:g}" if len(ends) > 1 else ""
                    yield _Column(f"{column}__{what}{ending}", numbers[None], cells, "", column)


def _probability(name: str, field: Field, done: Mapping[str, Filled]) -> np.ndarray | None:
    """The probability of the class that is written, (N,)."""
    if (key := f"{name}__probability") in done:
        classes = done[name].array.astype(int)[:, None]
        return np.take_along_axis(done[key].array, classes, 1)[:, 0]
    if (key := f"{name}__mean") not in done:
        return None
    mean = done[key].array.reshape(len(done[key].array), -1)[:, field.start : field.stop].clip(0, 1)
    if field.stop - field.start == 1:
        return np.maximum(mean[:, 0], 1 - mean[:, 0])
    return mean.max(-1) / mean.sum(-1).clip(min=1e-30)


class _CsvOut(RowsOut):
    """A csv file that is written as another one stands."""

    def __init__(self, path: Path, rows: CellRows, file: CsvTable, start: int, *, packed: bool) -> None:
        self._rows, self._file = rows, file.file
        self._writer = CsvWriter(path, file.file, packed=packed)
        self._records = islice(file.file.records(), start, None)
        self._places = [file.columns.index(column) for column in rows.kept]
        self._begun = False

    def write(self, block: Block, done: Mapping[str, Filled]) -> None:  # noqa: ARG002 (rows are read again)
        columns = _columns_of(self._rows, done)
        draws = next((len(filled.array) for name, filled in done.items() if filled.axis and name in self._rows.layout_.columns), 0)
        _check_new(self._rows, columns, draws)
        if not self._begun:
            self._writer.write([self._header(columns, draws)])
            self._begun = True
        records = list(islice(self._records, len(columns[0].fill)))
        self._writer.write([line for row, record in enumerate(records) for line in self._lines(record, row, columns, draws)])

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _header(self, columns: Sequence[_Column], draws: int) -> str:
        there = split_text(self._file.header, self._file.columns, self._file.delimiter)
        new = [as_cell(column.name, self._file.delimiter) for column in columns if column.name not in self._rows.kept]
        return self._file.delimiter.join([*(there[place] for place in self._places), *new, *([DRAW] if draws else [])])

    def _lines(self, record: Any, row: int, columns: Sequence[_Column], draws: int) -> Iterator[str]:
        delimiter = self._file.delimiter
        there = split_text(record.text, record.values, delimiter)
        cells = {column: there[place] for column, place in zip(self._rows.kept, self._places, strict=True)}
        for draw in range(max(1, draws)):
            line = dict(cells)
            for column in columns:
                if column.fill[row]:
                    line[column.name] = as_cell(column.text(draw, row), delimiter)
                elif column.name not in cells:
                    line[column.name] = column.observed if column.same_as is None else cells[column.same_as]
            yield delimiter.join([*line.values(), *([str(draw + 1)] if draws else [])])


class _ParquetOut(RowsOut):
    """A Parquet file whose columns keep their types."""

    def __init__(self, path: Path, rows: CellRows, file: ParquetTable, start: int) -> None:
        self._path, self._rows, self._file, self._row = path, rows, file, start
        self._writer: Any = None

    def write(self, block: Block, done: Mapping[str, Filled]) -> None:  # noqa: ARG002 (rows are read again)
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        columns = {column.name: column for column in _columns_of(self._rows, done)}
        draws = next((len(filled.array) for name, filled in done.items() if filled.axis and name in self._rows.layout_.columns), 0)
        _check_new(self._rows, list(columns.values()), draws)
        table = self._slice(len(next(iter(columns.values())).fill))
        made: dict[str, Any] = {}
        for name in (*self._rows.kept, *(name for name in columns if name not in self._rows.kept)):
            made[name] = table.column(name).combine_chunks() if name not in columns else self._column(table, columns[name], max(1, draws))
            if draws and name not in columns:
                made[name] = made[name].take(pa.array(np.repeat(np.arange(table.num_rows), draws)))
        if draws:
            made[DRAW] = pa.array(np.tile(np.arange(1, draws + 1), table.num_rows))
        out = pa.table(made)
        if self._writer is None:
            self._writer = ParquetWriter(self._path, out.schema)
        if out.num_rows:
            self._writer.write_table(out)

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()

    def _slice(self, count: int) -> Any:
        """The next rows of the file."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        parts, first = [], 0
        with self._file.told(), ParquetFile(self._file.path) as file:
            for number in range(file.num_row_groups):
                last = first + file.metadata.row_group(number).num_rows
                if last > self._row and first < self._row + count:
                    group = file.read_row_group(number, columns=list(self._rows.kept), use_threads=False)
                    begin, end = max(first, self._row), min(last, self._row + count)
                    parts.append(group.slice(begin - first, end - begin))
                first = last
        self._row += count
        return pa.concat_tables(parts) if parts else self._file.schema.empty_table().select(list(self._rows.kept))

    def _column(self, table: Any, column: _Column, draws: int) -> Any:
        """A column, each row in as many draws, with the values that were filled in."""
        import pyarrow as pa

        rows = np.repeat(np.arange(table.num_rows), draws)
        numbers, fill = np.broadcast_to(column.numbers, (draws, len(column.fill))).T.reshape(-1), column.fill[rows]
        if column.name not in self._rows.kept:
            return self._new(table, column, numbers, fill, rows)
        given = table.column(column.name).combine_chunks()
        kind = given.type
        if not fill.any():
            return given.take(pa.array(rows))
        assert column.style is not None
        plain = given.dictionary_decode() if pa.types.is_dictionary(kind) else given
        values = plain.take(pa.array(rows)).to_pylist()
        for row in np.flatnonzero(fill).tolist():
            values[row] = _value(float(numbers[row]), plain.type, column.style)
        return pa.array(values, plain.type).cast(kind) if kind != plain.type else pa.array(values, kind)

    def _new(self, table: Any, column: _Column, numbers: np.ndarray, fill: np.ndarray, rows: np.ndarray) -> Any:
        """A column that the file lacks."""
        import pyarrow as pa

        if column.name.endswith(_IMPUTED):
            return pa.array(numbers.astype(bool))
        if column.same_as is not None:
            own = [None if value is None else float(value) for value in table.column(column.same_as).to_pylist()] if not fill.all() else []
            return pa.array(
                [float(number) if new else own[row] for number, new, row in zip(numbers, fill, rows, strict=True)], pa.float64()
            )
        if column.style is not None and self._rows.layout_.classes.get(column.name):
            return pa.array([column.style.text(float(number)) for number in numbers], pa.string())
        return pa.array([float(number) if new else float(column.observed or "nan") for number, new in zip(numbers, fill, strict=True)])


def _value(number: float, kind: Any, style: CellStyle) -> object:
    """A number as a value of a type."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return number >= 0.5
    if pa.types.is_integer(kind):
        low, high = (-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1) if str(kind)[0] == "i" else (0, 2**kind.bit_width - 1)
        return min(max(round(float(style.text(number))), low), high)
    return style.number(number) if pa.types.is_floating(kind) and not style.has_classes else style.text(number)


def _has(file: TableFile, layout: TableLayout, name: str) -> bool:
    """Whether a file has a modality: all of its columns, or none of them."""
    missing = [column for column in layout.columns[name] if column not in file.columns]
    if missing and len(missing) < len(layout.columns[name]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        spare = [column for column in file.columns if column not in _columns(layout)]
        near = did_you_mean(missing[0], spare, cutoff=0.8)
        raise DataError(
            f"column {clip(missing[0])!r}{more} of modality {name!r} is missing.{near} Add it, with empty cells where nothing is known; "
            "a file may lack all columns of a modality, not some"
        )
    if missing and name + PRESENT in file.columns:
        raise DataError(f"modality {name!r}: {name}{PRESENT} is given without its columns ({clip(listing(layout.columns[name]), 100)})")
    return not missing


def _no_slip(passed: Sequence[str], layout: TableLayout, there: Sequence[str]) -> None:
    """Refuses a column that is nearly one of a modality that is not there, all of which would be imputed in silence."""
    absent = [column for name in layout.columns if name not in there for column in layout.columns[name]]
    for column in passed:
        if column != layout.id and (near := did_you_mean(column, absent, cutoff=0.8)):
            raise DataError(f"column {clip(column)!r}: no such column in the spec.{near}")
    if not there:
        raise DataError(f"no column of any modality ({clip(listing(absent), 200)}). Found: {clip(listing(passed), 200)}")


def _check_new(rows: CellRows, columns: Sequence[_Column], draws: int) -> None:
    """Checks that no two columns would bear one name."""
    names = [*rows.passed, *(column.name for column in columns), *([DRAW] if draws else [])]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"column {clip(twice)!r} would be written twice; rename that of the file")


def _columns(layout: TableLayout) -> set[str]:
    return {column for columns in layout.columns.values() for column in columns}
