"""Data frames as tables of Arrow columns, rebuilt with imputed cells."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.tables.arrow import pyarrow_of, stored
from nbridge.data.tables.columns import ArrowTable
from nbridge.data.tables.write import Renewed
from nbridge.errors import DataError, naming


class Frame(ArrowTable):
    """A data frame, whose columns are converted when they are first used.

    Attributes:
        path: What it is called in messages.
        rows: The number of its rows.
    """

    path: Path | str = "data frame"
    rows: int

    @abstractmethod
    def arrow(self, name: str) -> Any:
        """A column as an Arrow array, null where absent.

        Raises:
            DataError: when it can't be converted.
        """

    def kind(self, column: str) -> Any:
        return self._array(column).type

    def batches(self, columns: Sequence[str], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for start in range(0, self.rows, size):
            yield min(size, self.rows - start), {column: self._array(column).slice(start, size) for column in columns}

    def read(self, columns: Sequence[str], start: int, stop: int) -> Any:
        return pyarrow_of().table({column: self._array(column).slice(start, stop - start) for column in columns})

    @cached_property
    def _known(self) -> dict[str, Any]:
        return {}

    def _array(self, column: str) -> Any:
        if column not in self._known:
            with naming(self.path):
                self._known[column] = self.arrow(column)
        return self._known[column]

    @abstractmethod
    def completed(self, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> Any:
        """Rebuilds a frame of the same kind.

        Arguments:
            rows: The source row of each output row.
            renewed: The imputed cells, by column.
            added: New columns, as Arrow arrays, which are appended or replace one of the same name.
        """

    @abstractmethod
    def flags(self, rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> Any:
        """A boolean frame with the same rows and the named columns."""

    def every(self, rows: np.ndarray) -> bool:
        """Whether the selected rows are all rows, once each and in order."""
        return len(rows) == self.rows and bool((rows == np.arange(self.rows)).all())


def converted(name: str, convert: Callable[[Any], Any], values: Iterable[object]) -> Any:
    """Converts a column to an Arrow array; on failure, the error lists the types that it holds.

    Arguments:
        name: Its name, for messages.
        convert: Returns the array, given the package pyarrow.
        values: The values of the column.

    Raises:
        DataError: when it can't be converted.
    """
    pa = pyarrow_of()
    try:
        array = convert(pa)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, NotImplementedError) as error:
        rows = [(row, type(value).__name__) for row, value in enumerate(values) if not _absent(value)]
        found = list(dict.fromkeys(kind for _, kind in rows))
        if len(found) > 1:
            other = next(row for row, kind in rows if kind == found[1])
            raise DataError(
                f"column {clip(name)!r} holds values of different types ({', '.join(found[:4])}), expected one of them; row {other} is the "
                f"first of another than {found[0]}"
            ) from error
        reason = clip(str(error).splitlines()[0] if str(error) else type(error).__name__, 100)
        raise DataError(f"column {clip(name)!r} can't be read ({reason})") from error
    return stored(array)


def _absent(value: object) -> bool:
    # NaN differs from itself; comparing other objects may not give a boolean.
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)  # noqa: PLR0124
