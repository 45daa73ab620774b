"""Files of any size as named columns of equal length, read and written in blocks of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from nbridge.common.warnings import Finding
from nbridge.data.ids import IDS, Told


@dataclass(frozen=True)
class Layout:
    """The dtype and the shape, rows first, of a column's array, known before it is read."""

    dtype: np.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Some rows of some columns.

    Arguments:
        start: The index of the first row.
        arrays: The columns by key, in the dtype and the layout of the file.
        missing: By key, the null cells of a table, in the shape of the array, whose values there are undefined.
        table: The rows as the original table, for table formats.
    """

    start: int
    arrays: Mapping[str, np.ndarray]
    missing: Mapping[str, np.ndarray] = field(default_factory=dict)
    table: Any = None

    def with_nan(self, key: str) -> np.ndarray:
        """A column with NaN in its null cells."""
        array = self.arrays[key]
        if key not in self.missing:
            return array
        return np.where(self.missing[key], np.nan, array if array.dtype.kind == "f" else array.astype(np.float64))

    def none(self) -> Self:
        """The same columns without rows."""
        return type(self)(
            self.start,
            {key: array[:0] for key, array in self.arrays.items()},
            {key: array[:0] for key, array in self.missing.items()},
            None if self.table is None else self.table.slice(0, 0),
        )


@dataclass(frozen=True)
class Filled:
    """Some rows of a column to write.

    Arguments:
        array: Rows first, or after K draws.
        axis: The axis of rows: 0, or 1 after an axis of draws.
    """

    array: np.ndarray
    axis: int = 0


@dataclass(frozen=True)
class Output:
    """What to write besides the imputed columns.

    Arguments:
        passed: Columns copied unchanged.
        start: The index of the first row to write.
        stop: The index after the last row.
        total: The number of rows of the input file.
    """

    passed: tuple[str, ...]
    start: int
    stop: int
    total: int

    @property
    def partial(self) -> bool:
        """Whether only some rows of the file are written."""
        return (self.start, self.stop) != (0, self.total)


class RowsOut(ABC):
    """An output file, written block by block.

    Attributes:
        needs: The keys of other columns that each block must hold.
    """

    needs: tuple[str, ...] = ()

    @abstractmethod
    def write(self, block: Block, done: Mapping[str, Filled]) -> None:
        """Writes the next rows.

        Arguments:
            block: The input rows.
            done: The imputed columns and their masks, by key.
        """


class RowsIn(ABC):
    """A file of named columns.

    Attributes:
        noun: What its columns are called in messages.
        keys: Their names, in order.
        by_name: Whether a column named similarly to a modality is reported as a typo.
        place: Formats the location of a cell by modality, row and element; None if modalities are not made of columns.
        findings: Warnings about what could not be preserved, complete after writing.
    """

    noun: ClassVar[str]
    by_name: ClassVar[bool] = True
    keys: tuple[str, ...]
    place: Callable[[str, int, int], str] | None = None
    findings: tuple[Finding, ...] = ()

    def one_hot(self, key: str) -> tuple[tuple[int, int], ...]:  # noqa: ARG002 (for formats with classes)
        """The start and stop of each group of elements that one-hot encodes a class."""
        return ()

    @abstractmethod
    def layout(self, key: str) -> Layout:
        """The layout of a column that holds a modality.

        Raises:
            DataError: when it can't hold one.
        """

    @abstractmethod
    def row_bytes(self, keys: Iterable[str], rows: int) -> int:
        """The approximate memory of a row of these columns in bytes, for a given number of rows."""

    @abstractmethod
    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        """Iterates over rows ``start`` to ``stop`` (exclusive) in blocks; keys may include unchanged columns.

        Raises:
            DataError: when the file is damaged.
        """

    @abstractmethod
    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:
        """Iterates over the row identifiers in blocks.

        Raises:
            DataError: when the column holds none.
        """

    def told_ids(self, key: str) -> Told:  # noqa: ARG002 (for formats with named columns)
        """How errors in identifiers are worded."""
        return IDS

    @abstractmethod
    def check_passed(self, key: str) -> None:
        """Checks a column that will be copied unchanged, so that errors are reported before any work.

        Raises:
            DataError: when it is damaged or can't be written.
        """

    @abstractmethod
    def writing(self, target: Path, output: Output) -> AbstractContextManager[RowsOut]:
        """Context manager that writes a file in the same format atomically: complete on exit, absent on failure.

        Raises:
            OSError: when it can't be written.
        """
