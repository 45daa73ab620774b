"""The protocol that training requires of rows, in memory or on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, Self

import torch
from torch import Tensor

from nbridge.data.batch import Batch


class Rows(Protocol):
    """Rows of named modalities: a `Batch`, in memory, or `nbridge.data.streaming.stored_rows.StoredRows`, on disk.

    Only `index`, `slice`, `sample`, `representative` and `batches` read values.
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
        """Whether nothing is known to be absent."""
        ...

    def __len__(self) -> int: ...

    def index(self, rows: Tensor) -> Batch:
        """The rows selected by an index or a boolean mask, in memory."""
        ...

    def slice(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop`` (exclusive), in memory."""
        ...

    def sample(self, most: int | None = None) -> Batch:
        """A representative sample of at most ``most`` rows, in memory; all by default."""
        ...

    def representative(self) -> Batch:
        """The rows that statistics are computed from, in memory."""
        ...

    def subset(self, rows: Tensor) -> Self:
        """The rows selected by an index or a boolean mask, stored as before."""
        ...

    def select(self, *names: str) -> Self:
        """The same rows with these modalities only."""
        ...

    def without_values(self, *names: str) -> Self:
        """The same rows and presence masks, with empty values for these modalities."""
        ...

    def through(self, change: Callable[[Batch], Batch]) -> Self:
        """The same rows after a row-wise transformation."""
        ...

    def with_covariates(self, values: Mapping[str, Tensor]) -> Self:
        """The same rows with these covariates, each one value for each row."""
        ...

    def presence(self) -> Batch:
        """All rows as a batch of presence masks only."""
        ...

    def order(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """The row order of an epoch with steps of ``size`` rows; every row once."""
        ...

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Batch]:
        """The rows of each index, in turn; the next may be prefetched."""
        ...
