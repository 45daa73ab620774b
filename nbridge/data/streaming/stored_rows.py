r"""Streams rows from disk to training, reading only what is requested.

Memory holds the presence of all rows, a byte per modality, and their positions in the files. An epoch permutes the blocks of a store, and
the rows within windows of `nbridge.data.streaming.store.WINDOW` bytes: each window is read at once, from few disk locations, while training
consumes the previous one. Rows that fit into one window are in the same order as in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from nbridge.common.progress import Progress, no_progress
from nbridge.data.arrays import check_some_present
from nbridge.data.batch import Batch
from nbridge.data.column import Column
from nbridge.data.streaming import store as sizes
from nbridge.data.streaming.store import Store, bytes_of, rows_of
from nbridge.errors import DataError, naming

LIMIT = 2**32
"""Maximum bytes of values read at once; larger requests are rejected."""
STATISTICS_ROWS = 65_536
"""Maximum number of rows that statistics are computed from; fewer if they would exceed eight windows."""


@dataclass(frozen=True)
class StoredRows:
    """All or some rows of a store, as `nbridge.data.rows.Rows`.

    Created by `open_rows`.

    Arguments:
        positions: Row indices in the store, :math:`(N,)`.
        present: Boolean masks by modality, :math:`(N,)`.
        template: A batch of no rows, with the dtypes and shapes of values; it has cells for modalities with partially observed rows in the
            store.
        contents: A hash of the store's contents.
        change: A transformation of each batch that is read.
        unread: Modalities whose values are not read.
        covariates: The covariates of all rows, :math:`(N,)`, in memory.
    """

    store: Store
    positions: Tensor
    present: Mapping[str, Tensor]
    template: Batch
    contents: str
    change: Callable[[Batch], Batch] | None = None
    unread: frozenset[str] = frozenset()
    covariates: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether nothing is absent from any row, single cells included; cached."""
        if "_whole" not in vars(self):
            vars(self)["_whole"] = not self.template.cells and all(bool(mask.all()) for mask in self.present.values())
        return vars(self)["_whole"]

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities."""
        return tuple(self.present)

    def __len__(self) -> int:
        return len(self.positions)

    # Views: nothing is read

    def subset(self, rows: Tensor) -> StoredRows:
        """The rows selected by an index or a boolean mask, still on disk."""
        present, given = ({name: x[rows] for name, x in part.items()} for part in (self.present, self.covariates))
        return replace(self, positions=self.positions[rows], present=present, covariates=given)

    def select(self, *names: str) -> StoredRows:
        """The same rows with these modalities only; the others are not read."""
        return replace(self, template=self.template.select(*names), present={name: self.present[name] for name in names})

    def without_values(self, *names: str) -> StoredRows:
        """The same rows and presence masks, with empty values for these modalities, which are not read."""
        return replace(self, unread=self.unread | set(names)).through(lambda batch: batch.without_values(*names))

    def with_covariates(self, values: Mapping[str, Tensor]) -> StoredRows:
        """The same rows with these covariates, each one value for each row."""
        return replace(self, covariates={**self.covariates, **values})

    def through(self, change: Callable[[Batch], Batch]) -> StoredRows:
        """The same rows, with a transformation applied to each batch on reading.

        Arguments:
            change: A row-wise transformation; a modality that it adds counts as absent from every row.
        """
        before = self.change
        whole = change if before is None else lambda batch: change(before(batch))
        absent = torch.zeros(len(self), dtype=torch.bool)
        return replace(self, change=whole, present={name: self.present.get(name, absent) for name in whole(self.template).names})

    def presence(self) -> Batch:
        """All rows with their presence masks and empty values."""
        return Batch({name: torch.empty(len(self), 0) for name in self.names}, self.present, covariates=self.covariates)

    # In memory

    def index(self, rows: Tensor) -> Batch:
        """The rows selected by an index or a boolean mask.

        Raises:
            DataError: when they exceed `LIMIT` bytes, or can no longer be read.
        """
        return self._served(self._read(rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows))

    def slice(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop`` (exclusive)."""
        first, last, _ = slice(start, stop).indices(len(self))
        return self.index(torch.arange(first, max(first, last)))

    def sample(self, most: int | None = None) -> Batch:
        """At most ``most`` random rows, always the same ones; all, in order, if there are no more or by default."""
        if most is None or most >= len(self):
            return self.slice(0, len(self))
        return self.index(torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:most])

    def representative(self) -> Batch:
        """The rows that statistics are computed from: a sample of `STATISTICS_ROWS`."""
        return self.sample(min(STATISTICS_ROWS, self._fitting(8 * sizes.WINDOW)))

    # An epoch

    def order(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """The row order of an epoch: blocks are permuted, then the rows within each window; every row occurs once.

        Arguments:
            size: Rows per step; no step spans two windows.
            generator: Source of randomness; torch's global one by default.
        """
        shuffled = torch.randperm(len(self), generator=generator)
        window = self._window(size)
        if len(self) <= window:
            return shuffled
        block = torch.searchsorted(torch.from_numpy(self.store.starts), self.positions[shuffled], right=True) - 1
        place = torch.randperm(len(self.store.starts), generator=generator)
        by_block = shuffled[place[block].argsort(stable=True)]
        again = torch.randperm(len(self), generator=generator)
        return by_block[again[(again // window).argsort(stable=True)]]

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Batch]:
        """The rows of each index, in turn; those of a window are read at once, and the next window is prefetched.

        Raises:
            DataError: when rows can no longer be read.
        """
        with ThreadPoolExecutor(max_workers=1) as reader:
            served: Iterator[Batch] = iter(())
            for group in self._grouped(parts):
                reading = reader.submit(self._read, torch.cat(group))
                yield from served
                served = self._cut(reading.result, group)
            yield from served

    def _grouped(self, parts: Iterable[Tensor]) -> Iterator[list[Tensor]]:
        """Groups consecutive parts to fill a window."""
        group: list[Tensor] = []
        rows = 0
        for part in parts:
            if group and rows + len(part) > self._window(len(part)):
                yield group
                group, rows = [], 0
            group.append(part)
            rows += len(part)
        if group:
            yield group

    def _cut(self, rows: Callable[[], Batch], group: list[Tensor]) -> Iterator[Batch]:
        window, start = rows(), 0
        for part in group:
            yield self._served(window.slice(start, start + len(part)))
            start += len(part)

    def _window(self, size: int) -> int:
        """The number of rows in a window: whole steps only."""
        rows = self._fitting(sizes.WINDOW)
        return max(rows - rows % size, size)

    # Reading

    def check(self, check: Callable[[Batch, int], None], progress: Progress = no_progress) -> None:
        """Checks all rows of a store, a piece at a time; not for a subset of the rows.

        Arguments:
            check: Takes a batch and the index of its first row, and raises a DataError.
            progress: Progress callback: (task, done, total).

        Raises:
            DataError: the same, prefixed with the file.
        """
        assert len(self) == self.store.rows
        for start, stop in self.store.pieces():
            origin, first = self.store.place(start)
            batch = self.slice(start, stop)
            with naming(origin):
                check(batch, start - first)
            progress("checking rows", stop, len(self))

    def digest(self) -> str:
        """A hash of these rows and their contents, computed without reading them again."""
        return hashlib.sha256(f"{self.contents} {self.names}".encode() + self.positions.numpy().tobytes() + self._given()).hexdigest()

    def _given(self) -> bytes:
        return b"".join(name.encode() + self.covariates[name].numpy().tobytes() for name in sorted(self.covariates))

    def _fitting(self, size: int) -> int:
        return rows_of(size, self.store.shapes, self.template.names)

    def _changed(self, batch: Batch) -> Batch:
        return batch if self.change is None else self.change(batch)

    def _served(self, batch: Batch) -> Batch:
        batch = self._changed(batch)
        # As in memory: batches selected from complete rows inherit the answer, and no step need check.
        vars(batch)["_whole"] = self.whole
        return batch

    def _read(self, rows: Tensor) -> Batch:
        if len(rows) > (most := self._fitting(LIMIT)):
            size = bytes_of(self.store.shapes, self.template.names)
            raise DataError(
                f"{len(rows):,} rows on disk of {size:,} bytes each are too many to hold in memory at once; take {most:,} at most"
            )
        positions, places = self.positions[rows].sort()
        spans = _spans(self.store, positions.numpy())
        read = {name: self._column(name, positions.numpy(), places, spans, self.present[name][rows]) for name in self.template.names}
        return Batch(
            {name: column.values for name, column in read.items()},
            {name: column.present for name, column in read.items()},
            {name: column.cells for name, column in read.items() if column.cells is not None},
            {name: x[rows] for name, x in self.covariates.items()},
        )

    def _column(self, name: str, positions: np.ndarray, places: Tensor, spans: list[tuple[int, int]], present: Tensor) -> Column:
        """Values of one modality in the order of the rows, read a piece at a time."""
        like = self.template.values[name]
        if name in self.unread:
            return Column(like.new_zeros(()).expand(len(places), *like.shape[1:]), present)
        values = like.new_empty((len(places), *like.shape[1:]))
        cells = torch.empty(values.shape, dtype=torch.bool) if name in self.template.cells else None
        for start, stop in spans:
            column, place = self.store.column(name, positions[start:stop]), places[start:stop]
            unlike = column.values.dtype != like.dtype or (cells is None and column.cells is not None)
            if unlike or not torch.equal(column.present, present[place]):
                raise DataError(f"{self.store.place(int(positions[start]))[0]}: modality {name!r} has changed since it was opened")
            values[place] = column.values
            if cells is not None:
                cells[place] = _cells(column)
        return Column(values, present, cells)


def open_rows(store: Store) -> StoredRows:
    """Opens all rows of a store, after a pass over them that determines presence and checks every value.

    Raises:
        DataError: for the first invalid row, by its file and its index there; when there are no rows, or a modality is present in none.
    """
    if not store.rows:
        raise DataError(f"{store.origin}: no rows")
    found = {name: _scan(store, name) for name in store.shapes}
    present = {name: one.present for name, one in found.items()}
    with naming(store.origin):
        check_some_present(present)
    template = Batch(
        {name: one.values for name, one in found.items()},
        {name: one.present[:0] for name, one in found.items()},
        {name: one.cells for name, one in found.items() if one.cells is not None},
    )
    contents = hashlib.sha256(" ".join(one.digest for one in found.values()).encode()).hexdigest()
    return StoredRows(store, torch.arange(store.rows), present, template, contents)


@dataclass(frozen=True)
class _Scanned:
    """The result of a pass over a modality: empty values and cells, the presence of all rows, and a hash."""

    values: Tensor
    cells: Tensor | None
    present: Tensor
    digest: str


def _scan(store: Store, name: str) -> _Scanned:
    digest = hashlib.sha256(name.encode())
    present = torch.empty(store.rows, dtype=torch.bool)
    values, partial = torch.empty(0), False
    for start, stop in store.pieces():
        column = store.column(name, np.arange(start, stop))
        if column.values.dtype == torch.float64 and name not in store.wide:
            # All pieces have one dtype.
            store.wide[name] = True
            return _scan(store, name)
        present[start:stop] = column.present
        values, partial = column.values, partial or column.cells is not None
        digest.update(_spelt(column).view(torch.uint8).numpy().data)
    store.wide.setdefault(name, False)
    digest.update(f"{tuple(values.shape[1:])} {values.dtype}".encode() + present.numpy().tobytes())
    return _Scanned(values[:0].clone(), torch.empty(values[:0].shape, dtype=torch.bool) if partial else None, present, digest.hexdigest())


def _spans(store: Store, positions: np.ndarray) -> list[tuple[int, int]]:
    """Splits ascending positions into ranges within one piece each."""
    if not len(positions):
        return []
    piece = np.searchsorted(store.cuts, positions, side="right")
    ends = [*(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(positions)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _spelt(column: Column) -> Tensor:
    """Values with NaN in unobserved cells of present rows: independent of how rows are divided into pieces."""
    if column.cells is None:
        return column.values
    absent = ~column.present.reshape(-1, *(1 for _ in column.values.shape[1:]))
    return torch.where(column.cells | absent, column.values, torch.nan)


def _cells(column: Column) -> Tensor:
    """Observed cells of every row, including complete and absent rows."""
    if column.cells is not None:
        return column.cells
    return column.present.reshape(-1, *(1 for _ in column.values.shape[1:])).expand(column.values.shape)
