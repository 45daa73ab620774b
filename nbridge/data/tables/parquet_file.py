"""Parquet files: the types of their columns and their rows, with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.endings import PARQUET, parquet_files
from nbridge.data.names import repeated
from nbridge.data.tables.arrow import pyarrow_of
from nbridge.errors import DataError

DAMAGED = "not a parquet file, or truncated or damaged"
_BUFFER = 2**20
"""Bytes of a column read at a time."""


class ParquetFile:
    """A Parquet file, whose metadata are read once.

    Arguments:
        opening: The error for metadata that can't be read.
        reading: The error for rows that can't be read.

    Attributes:
        path: As given.
        schema: Its columns and their types.
        types: The type of each column.
        metadata: Its metadata.
        ends: The index of the first row of each row group, then the number of rows.

    Raises:
        DataError: when it is damaged or not a Parquet file.
    """

    def __init__(self, path: Path, opening: str = DAMAGED, reading: str = DAMAGED) -> None:
        from pyarrow.parquet import read_metadata

        self.path, self._reading = path, reading
        with self._reporting_damage(opening):
            self.metadata = read_metadata(path)
            self.schema = self.metadata.schema.to_arrow_schema()
            groups = [self.metadata.row_group(number) for number in range(self.metadata.num_row_groups)]
        self.types: dict[str, Any] = {field.name: field.type for field in self.schema}
        self.ends = np.cumsum([0, *(group.num_rows for group in groups)])
        self.bytes = sum(group.total_byte_size for group in groups)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.ends[-1])

    def check_names(self) -> None:
        """Checks that columns have different names.

        Raises:
            DataError: when two have the same name.
        """
        if (twice := repeated(self.schema.names)) is not None:
            raise DataError(f"{self.path}: duplicate column {clip(twice)!r}")

    def groups(self, start: int, stop: int) -> tuple[list[int], int]:
        """The row groups that contain some rows, and the index of the first row of the first group."""
        found = np.flatnonzero((self.ends[:-1] < stop) & (self.ends[1:] > start)).tolist()
        return found, int(self.ends[found[0]]) if found else start

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Any:
        """Rows ``start`` to ``stop`` (exclusive) of some columns, as a table.

        Raises:
            DataError: when the file is damaged.
        """
        stop = self.rows if stop is None else min(stop, self.rows)
        groups, first = self.groups(start, stop)
        with self._opened() as file:
            found = file.read_row_groups(groups, columns=list(columns), use_threads=False)
            # Reading checks neither the encoding of texts nor the lengths of nested lists.
            found.validate(full=True)
            return found.slice(max(0, start - first), max(0, stop - start))

    def batches(self, columns: Sequence[str], size: int, groups: Sequence[int] | None = None) -> Iterator[Any]:
        """Iterates over the rows of some columns in record batches.

        Arguments:
            columns: The columns.
            size: The largest number of rows of a batch.
            groups: The row groups; all by default.

        Raises:
            DataError: when the file is damaged.
        """
        with self._opened(buffer_size=_BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(size, row_groups=groups, columns=list(columns), use_threads=False):
                batch.validate(full=True)
                yield batch

    @contextmanager
    def _opened(self, **options: Any) -> Iterator[Any]:
        from pyarrow import parquet

        with self._reporting_damage(self._reading), parquet.ParquetFile(self.path, metadata=self.metadata, **options) as file:
            yield file

    @contextmanager
    def _reporting_damage(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, pyarrow_of().ArrowException) as error:
            reason = clip((str(error).splitlines() or [type(error).__name__])[0], 100)
            raise DataError(f"{self.path}: {what} ({reason})") from error


def parquet_parts(path: Path) -> list[ParquetFile]:
    """Opens a Parquet file, or the files of a folder, sorted by name.

    Raises:
        DataError: when one is damaged, or there is none.
    """
    if path.is_dir() and not parquet_files(path):
        raise DataError(f"{path}: no file *{PARQUET} in this folder")
    return [ParquetFile(file) for file in (parquet_files(path) if path.is_dir() else [path])]
