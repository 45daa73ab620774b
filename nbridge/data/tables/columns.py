"""Csv and Parquet tables as Arrow columns, read in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.data.endings import TABLES, ending_among
from nbridge.data.ids import IdWording
from nbridge.data.names import Names
from nbridge.data.tables import arrow as arrow_cells
from nbridge.data.tables.arrow import pyarrow_of
from nbridge.data.tables.csv import CsvFile
from nbridge.data.tables.parquet_file import parquet_parts
from nbridge.data.texts import EMPTY, MISSING
from nbridge.errors import DataError

CHUNK = 8192
"""Number of rows read at a time."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of some columns.

    Arguments:
        start: The index of the first row.
        columns: The Arrow array of each scalar column; cells of csv files are text.
        lines: The line in which each row ends, in files that have lines.
        vectors: The vectors of each list column, :math:`(N, *shape)`, from `nbridge.data.tables.arrow.vectors`.
        absent: The texts that mark an absent cell.
        files: The file of each row, in folders of one file a row.
    """

    start: int
    rows: int
    columns: Mapping[str, Any]
    lines: Sequence[int] = ()
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    absent: frozenset[str] = EMPTY
    files: Sequence[Path] = ()

    def column(self, name: str) -> Any:
        """The Arrow array of a scalar column.

        Raises:
            DataError: when it holds lists.
        """
        if name in self.vectors:
            raise DataError(f"column {clip(name)!r} holds lists, expected single values; lists are a modality of their own")
        return self.columns[name]

    def where(self, row: int) -> str:
        """The location of a row, by its index in the chunk."""
        if self.files:
            return self.files[row].name
        return f"row {self.start + row}" + (f" (line {self.lines[row]})" if self.lines else "")


class TableFile(ABC):
    """Named columns, of a file or in memory.

    Attributes:
        path: The file; a description for data in memory.
        columns: The names of the columns.
        absent: The texts that mark an absent cell.
        named_by_files: Whether rows are files, whose names are the identifiers.
    """

    path: Path | str
    columns: tuple[str, ...]
    absent: frozenset[str] = EMPTY
    named_by_files: ClassVar[bool] = False

    @abstractmethod
    def chunks(self, columns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
        """Iterates over all rows of these columns in chunks.

        Raises:
            DataError: when the file is damaged.
        """

    def is_list(self, column: str) -> bool:  # noqa: ARG002 (for formats with lists)
        """Whether a column holds vectors."""
        return False

    def unfit(self, column: str) -> str:  # noqa: ARG002 (for formats with types)
        """Why a column can't be a modality; empty if it can."""
        return ""

    def classes(self, column: str) -> tuple[str, ...]:  # noqa: ARG002 (for formats that declare classes)
        """The classes that a column declares, in order; empty if none."""
        return ()

    def whole_bytes(self, column: str) -> bool:  # noqa: ARG002 (for formats with types)
        """Whether a column of lists holds bytes."""
        return False

    def as_text(self) -> TableFile:
        """The same columns as stored, without decoding the images that paths refer to."""
        return self

    def identified_by(self, column: str) -> TableFile:  # noqa: ARG002 (for folders)
        """The same table; one whose rows are named by files calls its column of identifiers so."""
        return self

    def id_wording(self, column: str) -> IdWording:
        """How errors in a column of identifiers are worded."""
        return IdWording(f"column {clip(column)!r}", self.where)

    def where(self, row: int) -> str:
        """The location of a row, for messages."""
        for chunk in self.chunks([]):
            if chunk.start <= row < chunk.start + chunk.rows:
                return chunk.where(row - chunk.start)
        return f"row {row}"

    def require(self, column: str, what: str = "") -> None:
        """Checks that a column exists.

        Raises:
            DataError: when it does not, with the closest match.
        """
        if column not in self.columns:
            raise DataError(f"{self.path}: {no_column(column, what, self.columns)}")


class CsvTable(TableFile):
    """A csv file."""

    absent = frozenset(MISSING)

    def __init__(self, path: Path) -> None:
        self.file = CsvFile(path)
        self.path, self.columns = path, self.file.columns

    def chunks(self, columns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
        places = {column: self.columns.index(column) for column in columns}
        pa, records, start = pyarrow_of(), self.file.records(), 0
        while part := list(islice(records, size)):
            cells = {column: pa.array([record.values[place] for record in part], pa.large_string()) for column, place in places.items()}
            yield Chunk(start, len(part), cells, [record.line for record in part], absent=self.absent)
            start += len(part)


class ArrowTable(TableFile):
    """Apache Arrow columns, whose types declare what they hold."""

    @abstractmethod
    def kind(self, column: str) -> Any:
        """The type of a column."""

    @abstractmethod
    def batches(self, columns: Sequence[str], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Iterates over all rows of these columns in chunks of limited size: the number of rows, and their arrays."""

    @abstractmethod
    def read(self, columns: Sequence[str], start: int, stop: int) -> Any:
        """Rows ``start`` to ``stop`` (exclusive) of these columns, as a table."""

    def is_list(self, column: str) -> bool:
        return arrow_cells.is_vector(self.kind(column))

    def unfit(self, column: str) -> str:
        return arrow_cells.unfit(self.kind(column))

    def whole_bytes(self, column: str) -> bool:
        return str(arrow_cells.value_type(self.kind(column))) == "uint8"

    def where(self, row: int) -> str:
        return f"row {row}"

    def chunks(self, columns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
        columns = tuple(columns)
        for column in columns:
            if reason := self.unfit(column):
                raise DataError(f"{self.path}: column {clip(column)!r} {reason}")
        single, listed = [c for c in columns if not self.is_list(c)], [c for c in columns if self.is_list(c)]
        start = 0
        for rows, arrays in self.batches(columns, size):
            vectors = {column: self._vectors(column, arrays[column], start) for column in listed}
            yield Chunk(start, rows, {column: arrays[column] for column in single}, vectors=vectors, absent=self.absent)
            start += rows

    def _vectors(self, column: str, array: Any, start: int) -> np.ndarray:
        try:
            return arrow_cells.vectors(column, array, lambda row: f"row {start + row}")
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error


def _unified(known: Any, own: Any, path: Path, first: Path) -> Any:
    """The columns of all parts of a table, with types that can hold those of every part.

    Raises:
        DataError: when a part has other columns, or incompatible types.
    """
    pa = pyarrow_of()
    if other := [*(name for name in known.names if name not in own.names), *(name for name in own.names if name not in known.names)]:
        which = "lacks" if other[0] in known.names else "has"
        raise DataError(f"{path}: {which} column {clip(other[0])!r}, unlike {first.name}; expected parts of one table, of the same columns")
    try:
        return pa.unify_schemas([known.remove_metadata(), own.remove_metadata()], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        unlike = next((name for name in known.names if known.field(name).type != own.field(name).type), "")
        types = f"{clip(own.field(unlike).type)}, but {clip(known.field(unlike).type)} in {first.name}" if unlike else clip(error, 100)
        raise DataError(f"{path}: column {clip(unlike)!r} of type {types}; expected parts of one table, of the same types") from error


class ParquetTable(ArrowTable):
    """A Parquet file, or the sorted files of a folder, which are the parts of one table.

    Raises:
        DataError: when a file is damaged or there is none, a column is duplicate, or parts differ in columns.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._files = path, parquet_parts(path)
        for number, file in enumerate(self._files):
            file.check_names()
            self.schema = _unified(self.schema, file.schema, file.path, self._files[0].path) if number else file.schema
        self.columns = Names(self.schema.names)

    def kind(self, column: str) -> Any:
        return self.schema.field(column).type

    def where(self, row: int) -> str:
        if len(self._files) == 1:
            return super().where(row)
        for file in self._files:
            if row < file.rows:
                return f"row {row} of {file.path.name}"
            row -= file.rows
        return f"row {row}"

    def batches(self, columns: Sequence[str], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for file in self._files:
            for batch in file.batches(columns, size):
                yield batch.num_rows, self._like(batch, columns)

    def read(self, columns: Sequence[str], start: int, stop: int) -> Any:
        parts, first = list[Any](), 0
        for file in self._files:
            if first < stop and first + file.rows > start:
                parts.append(pyarrow_of().table(self._like(file.read(columns, max(0, start - first), stop - first), columns)))
            first += file.rows
        return pyarrow_of().concat_tables(parts) if parts else self.schema.empty_table().select(list(columns))

    def _like(self, part: Any, columns: Sequence[str]) -> dict[str, Any]:
        """The columns of one part, in the common types of all parts."""
        if len(self._files) == 1:
            return {name: part.column(name) for name in columns}
        return {name: part.column(name).cast(self.kind(name)) for name in columns}


def ending_of(path: str | Path) -> str:
    """The ending of a table's file name; empty if it is not a table.

    Example:
        >>> ending_of("my rows.CSV.gz"), ending_of("rows.npz")
        ('.csv.gz', '')
    """
    return ending_among(path, TABLES)


def no_column(column: str, what: str, columns: Sequence[str]) -> str:
    """The message for a missing column."""
    shown = listing(columns[:20]) + (f", and {len(columns) - 20} more" if len(columns) > 20 else "")
    return f"no column {clip(column)!r}{what}.{did_you_mean(column, columns)} Found: {clip(shown, 400)}"
