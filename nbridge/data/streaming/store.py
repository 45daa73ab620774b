"""A format of rows on disk: all that it must offer, so that `nbridge.data.streaming.stored_rows` can serve the rows to training.

A store hands out raw arrays of consecutive rows. It is cut twice: into blocks, the rows that are cheap to read together and that are
shuffled as a whole, and these into pieces, the rows that are turned into values at a time.
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
"""Bytes of values that are shuffled together; training holds two windows, the one that it is in and the one that is read ahead."""
BLOCK = WINDOW // 64
"""Bytes of a block, where a format is free to choose: 64 places of the disk make a window."""
PIECE = 2**22
"""Bytes that are turned into values at a time."""


class Store(ABC):
    """Rows of named modalities on disk.

    Arguments:
        origin: The file or the folder, as messages name it.
        shapes: The shape of a row of each modality, by name.
        blocks: The number of rows of each block; a block never crosses a file.
    """

    def __init__(self, origin: str | Path, shapes: Mapping[str, tuple[int, ...]], blocks: Sequence[int]) -> None:
        self.origin = str(origin)
        self.shapes = dict(shapes)
        ends = np.cumsum(blocks, dtype=np.int64)
        self.rows = int(ends[-1]) if len(ends) else 0
        self.starts = ends - np.asarray(blocks, dtype=np.int64)
        size = rows_of(PIECE, self.shapes)
        cuts = [np.arange(start, end, size) for start, end in zip(self.starts, ends, strict=True)]
        self.cuts = np.concatenate(cuts) if cuts else self.starts

    @abstractmethod
    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Raw rows of a modality, from ``start`` up to ``stop``, all of one block.

        Raises:
            DataError: when they cannot be read.
        """

    def place(self, row: int) -> tuple[str, int]:  # noqa: ARG002 (for formats of several files)
        """The file that holds a row, as messages name it, and the number of its first row."""
        return self.origin, 0

    def mask(self, name: str) -> np.ndarray | None:  # noqa: ARG002 (for formats that have one)
        """A modality's raw array of presence, if there is one."""
        return None

    def pieces(self) -> Iterator[tuple[int, int]]:
        """All rows in order: where each piece starts and stops."""
        yield from zip(self.cuts.tolist(), [*self.cuts[1:].tolist(), self.rows], strict=True)

    def column(self, name: str, rows: np.ndarray) -> Column:
        """Values of one modality.

        Arguments:
            name: The modality.
            rows: Which rows, :math:`(N,)`, ascending, all of one piece.

        Raises:
            DataError: for the first row that holds what it may not, by its file and its number there.
        """
        start, stop = int(rows[0]), int(rows[-1]) + 1
        raw, mask = self.read(name, start, stop), self.mask(name)
        if not np.array_equal(rows, np.arange(start, stop)):
            raw = raw[rows - start]
        origin, first = self.place(start)
        with naming(origin):
            return read_column(name, raw, self.shapes[name], None if mask is None else mask[rows], first=start - first)


def bytes_of(shapes: Mapping[str, tuple[int, ...]], names: Iterable[str] | None = None) -> int:
    """Bytes of the values of a row in memory."""
    return 4 * sum(prod(shapes[name]) for name in (shapes if names is None else names))


def rows_of(size: int, shapes: Mapping[str, tuple[int, ...]], names: Iterable[str] | None = None) -> int:
    """How many rows a number of bytes in memory holds, at least one."""
    return max(1, size // bytes_of(shapes, names))


def even_blocks(rows: int, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """The number of rows of each block, where a format is free to choose."""
    size = rows_of(BLOCK, shapes)
    return [min(size, rows - start) for start in range(0, rows, size)]
