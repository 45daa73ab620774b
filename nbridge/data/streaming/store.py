"""The interface of an on-disk row format, from which `nbridge.data.streaming.stored_rows` serves rows to training.

A store returns raw arrays of consecutive rows. Its rows are divided into blocks, which are cheap to read together and shuffled as a whole,
and blocks into pieces, which are converted to values at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from nbridge.data.column import Column, read_column
from nbridge.errors import naming

WINDOW = 2**26
"""Bytes of values shuffled together; training holds two windows, the current one and the prefetched one."""
BLOCK = WINDOW // 64
"""Bytes per block, if the format is free to choose: a window reads from 64 disk locations."""
PIECE = 2**22
"""Bytes converted to values at a time."""


class Store(ABC):
    """Rows of named modalities on disk.

    Arguments:
        origin: The file or the folder, as named in messages.
        shapes: The shape of a row of each modality, by name.
        blocks: The number of rows of each block; a block never spans two files.

    Attributes:
        wide: Whether values of a modality are float64, by its name; until it is known, each piece decides (`read_column`).
    """

    def __init__(self, origin: str | Path, shapes: Mapping[str, tuple[int, ...]], blocks: Sequence[int]) -> None:
        self.origin = str(origin)
        self.shapes = dict(shapes)
        self.wide: dict[str, bool] = {}
        ends = np.cumsum(blocks, dtype=np.int64)
        self.rows = int(ends[-1]) if len(ends) else 0
        self.starts = ends - np.asarray(blocks, dtype=np.int64)
        size = rows_of(PIECE, self.shapes)
        cuts = [np.arange(start, end, size) for start, end in zip(self.starts, ends, strict=True)]
        self.cuts = np.concatenate(cuts) if cuts else self.starts

    @abstractmethod
    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Reads raw rows ``start`` to ``stop`` (exclusive) of a modality, all from one block.

        Raises:
            DataError: when they cannot be read.
        """

    def place(self, row: int) -> tuple[str, int]:  # noqa: ARG002 (for formats with several files)
        """The file that holds a row, as named in messages, and the index of the file's first row."""
        return self.origin, 0

    def mask(self, name: str) -> np.ndarray | None:  # noqa: ARG002 (for formats with presence arrays)
        """A modality's raw presence array, if there is one."""
        return None

    def pieces(self) -> Iterator[tuple[int, int]]:
        """The start and stop of each piece, in order."""
        yield from zip(self.cuts.tolist(), [*self.cuts[1:].tolist(), self.rows], strict=True)

    def column(self, name: str, rows: np.ndarray) -> Column:
        """Reads values of one modality.

        Arguments:
            name: The modality.
            rows: Row indices, :math:`(N,)`, ascending, all in one piece.

        Raises:
            DataError: for the first invalid row, by its file and its index there.
        """
        start, stop = int(rows[0]), int(rows[-1]) + 1
        raw, mask = self.read(name, start, stop), self.mask(name)
        if not np.array_equal(rows, np.arange(start, stop)):
            raw = raw[rows - start]
        origin, first = self.place(start)
        with naming(origin):
            present = None if mask is None else mask[rows]
            return read_column(name, raw, self.shapes[name], present, first=start - first, wide=self.wide.get(name))


def bytes_of(shapes: Mapping[str, tuple[int, ...]], names: Iterable[str] | None = None) -> int:
    """The memory of a row's values in bytes."""
    return 4 * sum(prod(shapes[name]) for name in (shapes if names is None else names))


def rows_of(size: int, shapes: Mapping[str, tuple[int, ...]], names: Iterable[str] | None = None) -> int:
    """How many rows fit into a number of bytes, at least one."""
    return max(1, size // bytes_of(shapes, names))


def even_blocks(rows: int, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """The number of rows of each block, if the format is free to choose."""
    size = rows_of(BLOCK, shapes)
    return [min(size, rows - start) for start in range(0, rows, size)]
