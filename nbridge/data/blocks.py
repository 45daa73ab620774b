"""Rows in any format as named columns of equal length, read and written in blocks of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from nbridge.common.warnings import Finding
from nbridge.data.ids import IDS, IdWording, check_ids
from nbridge.data.imputed import Imputed
from nbridge.data.output_names import IMPUTED


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
class Output:
    """What to write besides the imputed columns.

    Arguments:
        passed: Columns copied unchanged.
        start: The index of the first row to write.
        stop: The index after the last row.
        total: The number of rows of the input.
        draws: The number K of draws, or None for a point estimate.
        statistics: Whether statistics are written with the point estimate.
    """

    passed: tuple[str, ...]
    start: int
    stop: int
    total: int
    draws: int | None = None
    statistics: bool = False

    @property
    def partial(self) -> bool:
        """Whether only some rows of the file are written."""
        return (self.start, self.stop) != (0, self.total)


class RowWriter(ABC):
    """Writes imputed rows block by block, into a file or into an object in memory.

    Attributes:
        needs: The keys of other columns that each block must hold.
        result: The completed object, for rows in memory, once all rows are written.
        flags: The masks of a completed data frame, as a frame of booleans.
    """

    needs: tuple[str, ...] = ()
    result: Any = None
    flags: Any = None

    @abstractmethod
    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:
        """Writes the next rows.

        Arguments:
            block: The input rows.
            imputed: The same rows, imputed, in the dtype and the layout of the input.
        """


class RowReader(ABC):
    """Opened rows: named columns, of which some are modalities.

    Attributes:
        noun: What its columns are called in messages.
        keys: Their names, in order.
        names: The column of each modality of the model, whether it exists or not.
        id_key: The column of identifiers; None if rows are identified by position, or were checked before.
        by_name: Whether a column named similarly to a modality is reported as a typo.
        place: Formats the location of a cell by modality, row and element; None if modalities are not made of columns.
        findings: Warnings about what could not be preserved, complete after writing.
        file_names: The names of the files that are written, if several.
        appended: The number of rows that each file lacked and that are appended to it.
    """

    noun: ClassVar[str]
    by_name: ClassVar[bool] = True
    keys: tuple[str, ...]
    names: Mapping[str, str]
    id_key: str | None = None
    place: Callable[[str, int, int], str] | None = None
    findings: tuple[Finding, ...] = ()
    file_names: tuple[str, ...] = ()
    appended: Mapping[str, int] = MappingProxyType({})

    @property
    def ids(self) -> np.ndarray | None:
        """The identifiers of all rows; None if there are none.

        Raises:
            DataError: when one is missing or duplicate.
        """
        if self.id_key is None or self.id_key not in self.keys:
            return None
        rows = self.layout(next(key for key in self.names.values() if key in self.keys)).shape[0]
        blocks = [*self.identifiers(self.id_key, rows, max(1, rows))]
        return check_ids(np.concatenate(blocks), rows, self.id_wording(self.id_key))

    def one_hot(self, name: str) -> tuple[tuple[int, int], ...]:  # noqa: ARG002 (for formats with classes)
        """The start and stop of each group of elements of a modality that one-hot encodes a class."""
        return ()

    @property
    def marks(self) -> Mapping[str, str]:
        """By modality, the column that marks its rows or cells that an earlier imputation filled, for `blocks`."""
        return {name: key + IMPUTED for name, key in self.names.items() if key + IMPUTED in self.keys}

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
            DataError: when the data are damaged.
        """

    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:
        """Iterates over the row identifiers in blocks.

        Raises:
            DataError: when the column holds none.
        """
        raise NotImplementedError("these rows are identified by position, or their identifiers are checked when they are opened")

    def id_wording(self, key: str) -> IdWording:  # noqa: ARG002 (for formats with named columns)
        """How errors in identifiers are worded."""
        return IDS

    def check_passed(self, key: str) -> None:  # noqa: B027 (most formats can copy any column as it was read)
        """Checks a column that will be copied unchanged, so that errors are reported before any work.

        Raises:
            DataError: when it is damaged or can't be written.
        """

    @abstractmethod
    def writing(self, target: Path | None, output: Output) -> AbstractContextManager[RowWriter]:
        """Context manager that writes the completed rows in the same format.

        Files are written atomically: complete on exit, absent on failure.

        Arguments:
            target: The file or folder; None for rows in memory.
            output: What to write besides imputed columns.

        Raises:
            OSError: when it can't be written.
        """
