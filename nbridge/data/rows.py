"""What training asks of rows, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, Self

import torch
from torch import Tensor

from nbridge.data.batch import Batch


class Rows(Protocol):
    """Rows of named modalities: a `Batch`, in memory, or `nbridge.data.streaming.stored_rows.StoredRows`, on disk.

    Only `index`, `slice`, `sample`, `representative` and `batches` give values; nothing else reads any.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities."""
        ...

    @property
    def present(self) -> Mapping[str, Tensor]:
        """Boolean masks by modality, :math:`(N,)`, in memory."""
        ...

    @property
    def whole(self) -> bool:
        """Whether it is known that nothing is absent."""
        ...

    def __len__(self) -> int: ...

    def index(self, rows: Tensor) -> Batch:
        """The rows picked by an index or a boolean mask, in memory."""
        ...

    def slice(self, start: int, stop: int) -> Batch:
        """The rows from ``start`` up to ``stop``, in memory."""
        ...

    def sample(self, most: int | None = None) -> Batch:
        """Rows that stand for all, at most so many, in memory; all when it is left out."""
        ...

    def representative(self) -> Batch:
        """Rows that statistics may be taken from, in memory."""
        ...

    def subset(self, rows: Tensor) -> Self:
        """The rows picked by an index or a boolean mask, where they lie."""
        ...

    def select(self, *names: str) -> Self:
        """The same rows of these modalities alone."""
        ...

    def without_values(self, *names: str) -> Self:
        """The same rows and presence, with nothing in the place of these modalities' values."""
        ...

    def through(self, change: Callable[[Batch], Batch]) -> Self:
        """The same rows after a change that treats each row by itself."""
        ...

    def presence(self) -> Batch:
        """All rows as a batch that need know no more than who is present."""
        ...

    def order(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """The order of an epoch of steps of ``size`` rows: every row once."""
        ...

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Batch]:
        """The rows of each index, one after the other; what comes next may be read ahead."""
        ...
