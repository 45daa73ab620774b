"""The data source of specs whose rows are a data frame, and the adapter from frames to tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nbridge.data.tables.arrow import pyarrow_of
from nbridge.data.tables.columns import ArrowTable, TableFile
from nbridge.data.tables.frame_adapter import Frame
from nbridge.data.tables.source import Table
from nbridge.errors import DataError, naming


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


class FrameSource(Table):
    """Rows of a data frame passed from Python, nbridge.train(spec, data=frame): pandas, polars, pyarrow, datasets, or arrays.

    A modality is one or more columns, as in `table`, or a column of lists of numbers, of arrays or of images. None, NaN and
    empty text mark absent values. Rows are identified by position; neither an index nor identifiers are needed.

    Arguments:
        columns: The columns of each modality: a name, a pattern such as lab_*, or a list; by default the column of the same name.
        classes: The ordered classes of categorical columns. Text is categorical; two classes are 0 and 1, more are one-hot, or the class
            index if the column is the whole modality. There they can be omitted: those of the data are then stored with the model.
        missing: Additional placeholders for absent cells, such as -999 or unknown.
    """

    def __init__(
        self,
        *,
        columns: dict[str, str | tuple[str, ...]] | None = None,
        classes: dict[str, tuple[str | int | float, ...]] | None = None,
        missing: tuple[str | int | float, ...] = (),
    ) -> None:
        super().__init__(path=(), columns=columns, classes=classes, id="", missing=missing)

    def files(self, shapes: Mapping[str, tuple[int, ...]]) -> list[TableFile]:
        """Returns the frame passed from Python.

        Arguments:
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: when none was passed.
        """
        if self._given is None:
            raise DataError("the rows of this spec are a data frame: pass it from Python, nbridge.train(spec, data=frame)")
        return super().files(shapes)
