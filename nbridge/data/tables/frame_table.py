"""A data frame as a table of Arrow columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nbridge.data.tables.arrow import pyarrow_of
from nbridge.data.tables.columns import ArrowTable
from nbridge.data.tables.frame_adapter import Frame
from nbridge.errors import naming


class FrameTable(ArrowTable):
    """A data frame as a table; its columns are converted on demand.

    Arguments:
        frame: The frame.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame, self.path, self.columns = frame, frame.noun, frame.names
        self._arrays: dict[str, Any] = {}

    def kind(self, column: str) -> Any:
        return self._array(column).type

    def classes(self, column: str) -> tuple[str, ...]:
        return self.frame.classes(column)

    def batches(self, columns: Sequence[str], size: int) -> Iterator[Any]:
        for start in range(0, self.frame.rows, size):
            yield _Rows({column: self._array(column).slice(start, size) for column in columns}, min(size, self.frame.rows - start))

    def read(self, columns: Sequence[str], start: int, stop: int) -> Any:
        return pyarrow_of().table({column: self._array(column).slice(start, stop - start) for column in columns})

    def _array(self, column: str) -> Any:
        if column not in self._arrays:
            with naming(self.path):
                self._arrays[column] = self.frame.arrow(column)
        return self._arrays[column]


class _Rows:
    """Some rows of some columns, possibly none; a record batch without columns would lose its number of rows."""

    def __init__(self, columns: dict[str, Any], num_rows: int) -> None:
        self._columns, self.num_rows = columns, num_rows

    def column(self, name: str) -> Any:
        """A column."""
        return self._columns[name]
