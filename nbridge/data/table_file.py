"""Files of single values, csv or parquet, as columns of text: what a table source and an imputation of such a file read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nbridge.data.csv_text import ENDINGS, CsvFile
from nbridge.errors import DataError
from nbridge.phrases import clip, did_you_mean, listing

CHUNK = 8192
"""Rows that are held as text at a time."""
PARQUET = ".parquet"


@dataclass(frozen=True)
class Chunk:
    """Some rows of some columns.

    Arguments:
        start: The number of the first row.
        rows: How many there are.
        cells: The texts of each column; a null is an empty text.
        lines: The line that each row ends in, in files that have lines.
    """

    start: int
    rows: int
    cells: Mapping[str, Sequence[str]]
    lines: Sequence[int] = ()

    def where(self, row: int) -> str:
        """The place of a row, by its number in the chunk."""
        return f"row {self.start + row}" + (f" (line {self.lines[row]})" if self.lines else "")


class TableFile(ABC):
    """A file of named columns of single values.

    Attributes:
        path: The file.
        columns: The names of its columns.
    """

    path: Path
    columns: tuple[str, ...]

    @abstractmethod
    def chunks(self, columns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
        """All rows of these columns, so many at a time.

        Raises:
            DataError: when the file is damaged.
        """

    def require(self, column: str, what: str = "") -> None:
        """Checks that a column is there.

        Raises:
            DataError: when it is not, with the nearest one that is.
        """
        if column not in self.columns:
            raise DataError(f"{self.path}: {no_column(column, what, self.columns)}")


class CsvTable(TableFile):
    """A csv file.

    Arguments:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.file = CsvFile(path)
        self.path, self.columns = path, self.file.columns

    def chunks(self, columns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
        places = {column: self.columns.index(column) for column in columns}
        records, start = self.file.records(), 0
        while part := list(islice(records, size)):
            cells = {column: [record.values[place] for record in part] for column, place in places.items()}
            yield Chunk(start, len(part), cells, [record.line for record in part])
            start += len(part)


class ParquetTable(TableFile):
    """A Parquet file of columns of single values.

    Arguments:
        path: The file.

    Raises:
        DataError: when it is damaged or no such file, a column is there twice, or pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        pyarrow_of()
        with self.told():
            from pyarrow.parquet import read_schema

            self.schema = read_schema(path)
        self.columns = tuple(self.schema.names)
        if twice := [name for name in self.columns if self.columns.count(name) > 1]:
            raise DataError(f"{path}: column {twice[0]!r} is there twice")

    def chunks(self, columns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
        columns = tuple(columns)
        for column in columns:
            self._check_single(column)
        start = 0
        for batch in self.batches(columns, size):
            cells = {column: [_text(value) for value in batch.column(column).to_pylist()] for column in columns}
            yield Chunk(start, batch.num_rows, cells)
            start += batch.num_rows

    def batches(self, columns: Sequence[str], size: int) -> Iterator[Any]:
        """Record batches of so many rows at most."""
        from pyarrow.parquet import ParquetFile

        with self.told(), ParquetFile(self.path) as file:
            yield from file.iter_batches(size, columns=list(columns), use_threads=False)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tells what a damaged file raises as one line."""
        try:
            yield
        except (OSError, EOFError, pyarrow_of().ArrowException) as error:
            reason = clip((str(error).splitlines() or [type(error).__name__])[0], 100)
            raise DataError(f"{self.path}: not a parquet file, or truncated or damaged ({reason})") from error

    def _check_single(self, column: str) -> None:
        kind = self.schema.field(column).type
        if kind.num_fields:
            raise DataError(
                f"{self.path}: column {clip(column)!r} of type {clip(kind)}, expected single values; lists are read by `source: parquet`"
            )


def pyarrow_of() -> Any:
    """The package pyarrow.

    Raises:
        DataError: when it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise DataError('parquet files are read by pyarrow, which is not installed: pip install "nbridge[tables]"') from error
    return pyarrow


def is_csv(path: str | Path) -> bool:
    """Whether a file is a text table, by its name.

    Example:
        >>> is_csv("rows.csv.gz"), is_csv("rows.parquet")
        (True, False)
    """
    return ending_of(path) in ENDINGS


def ending_of(path: str | Path) -> str:
    """How the name of a table ends; empty where it is none.

    Example:
        >>> ending_of("my rows.CSV.gz"), ending_of("rows.npz")
        ('.csv.gz', '')
    """
    name = Path(path).name.lower()
    return next((ending for ending in (*ENDINGS, PARQUET) if name.endswith(ending)), "")


def open_table(path: Path) -> TableFile:
    """A file of single values, csv or parquet by its name.

    Raises:
        DataError: when it is neither, or can't be read.
    """
    if is_csv(path):
        return CsvTable(path)
    if ending_of(path) == PARQUET:
        return ParquetTable(path)
    raise DataError(f"{path}: not a table by its name, which ends in {listing((*ENDINGS, PARQUET))}")


def no_column(column: str, what: str, columns: Sequence[str]) -> str:
    """The message for a column that is not among others."""
    shown = listing(columns[:20]) + (f", and {len(columns) - 20} more" if len(columns) > 20 else "")
    return f"no column {clip(column)!r}{what}.{did_you_mean(column, columns)} Found: {clip(shown, 400)}"


def _text(value: object) -> str:
    return "" if value is None else str(value)
