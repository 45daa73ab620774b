"""Files of any size as named columns with a row each, read in blocks of rows and written in blocks of rows."""

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
    """What is known of a column before it is read: the type and the shape, rows first, of its array."""

    dtype: np.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Some rows of some columns.

    Arguments:
        start: The number of the first row.
        arrays: The columns by key, in the type and the layout of the file.
        missing: By key, which cells a table marks as missing (null), in the shape of the array; what it holds there is undefined.
        table: The rows as the table that they come from, for files that are one.
    """

    start: int
    arrays: Mapping[str, np.ndarray]
    missing: Mapping[str, np.ndarray] = field(default_factory=dict)
    table: Any = None

    def with_nan(self, key: str) -> np.ndarray:
        """A column with NaN where the table marks cells as missing."""
        array = self.arrays[key]
        if key not in self.missing:
            return array
        return np.where(self.missing[key], np.nan, array if array.dtype.kind == "f" else array.astype(np.float64))

    def none(self) -> Self:
        """The same columns without any row."""
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
        array: Rows first, or behind K draws.
        axis: The axis of rows: 0, or 1 behind draws.
    """

    array: np.ndarray
    axis: int = 0


@dataclass(frozen=True)
class Output:
    """What is written beside the columns that are filled in.

    Arguments:
        passed: Columns that pass through.
        start: The number of the first row that is written.
        stop: The number of the row after the last.
        total: The rows of the file that is read.
    """

    passed: tuple[str, ...]
    start: int
    stop: int
    total: int

    @property
    def partial(self) -> bool:
        """Whether not all rows of the file are written."""
        return (self.start, self.stop) != (0, self.total)


class RowsOut(ABC):
    """A file that is being written, block by block.

    Attributes:
        needs: The keys of other columns that a block must hold.
    """

    needs: tuple[str, ...] = ()

    @abstractmethod
    def write(self, block: Block, done: Mapping[str, Filled]) -> None:
        """Writes the next rows.

        Arguments:
            block: As they were read.
            done: The columns that were filled in, and their masks, by key.
        """


class RowsIn(ABC):
    """A file of named columns.

    Attributes:
        noun: What its columns are called.
        keys: Their names, in order.
        by_name: Whether a column that bears nearly the name of a modality is a slip of the pen.
        place: The place of a cell, in words, by its modality, its row and its element; None where a modality is no columns.
        findings: What could not be kept as it was, once all is written.
    """

    noun: ClassVar[str]
    by_name: ClassVar[bool] = True
    keys: tuple[str, ...]
    place: Callable[[str, int, int], str] | None = None
    findings: tuple[Finding, ...] = ()

    def one_hot(self, key: str) -> tuple[tuple[int, int], ...]:  # noqa: ARG002 (for kinds that have classes)
        """The first element, and the element after the last, of each group of elements of a modality that show one class."""
        return ()

    @abstractmethod
    def layout(self, key: str) -> Layout:
        """The layout of a column that holds a modality.

        Raises:
            DataError: when it can't hold one.
        """

    @abstractmethod
    def row_bytes(self, keys: Iterable[str], rows: int) -> int:
        """About how many bytes a row of these columns takes in memory, when there are so many rows."""

    @abstractmethod
    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        """The rows from ``start`` up to ``stop``, so many at a time; keys of columns that pass through may be among them.

        Raises:
            DataError: when the file is damaged.
        """

    @abstractmethod
    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:
        """The identifiers of rows, so many at a time.

        Raises:
            DataError: when the column holds none.
        """

    def told_ids(self, key: str) -> Told:  # noqa: ARG002 (for kinds whose columns have names)
        """How mistakes in identifiers are told."""
        return IDS

    @abstractmethod
    def check_passed(self, key: str) -> None:
        """Checks what can be checked of a column that passes through, so that a mistake is told before work is done.

        Raises:
            DataError: when it is damaged or can't be written.
        """

    @abstractmethod
    def writing(self, target: Path, output: Output) -> AbstractContextManager[RowsOut]:
        """A file of the same kind, which is there as a whole at the end of the block, and not at all when it fails.

        Raises:
            OSError: when it can't be written.
        """
