"""Converts columns of numbers to the elements of a mixed modality, and back: classes to 0 and 1 or one-hot, all others as they are.

Axes: N rows, C columns, W elements, L levels of a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nbridge.spec.columns import CLASSES, ColumnKind


@dataclass(frozen=True, eq=False)
class MixedColumn:
    """A column of a mixed modality.

    Arguments:
        kind: Its likelihood.
        levels: The values of its classes, in order; None for others than classes.
        inferred: Whether the likelihood was inferred from values, so that others may follow that it does not admit.
    """

    kind: ColumnKind
    levels: np.ndarray | None = None
    inferred: bool = False

    def known(self, values: np.ndarray) -> np.ndarray:
        """Which values, (N,), are in the support of the column, or missing."""
        missing = np.isnan(values)
        if self.levels is not None:
            return missing | np.isin(values, self.levels)
        if self.kind.type == "bernoulli":
            return missing | np.isin(values, (0, 1))
        return missing | (values > 0) if self.kind.type == "lognormal" else np.ones(len(values), dtype=bool)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """The elements of known values, (N, width), NaN where missing."""
        if self.levels is None:
            return values[:, None]
        places = np.where(np.isnan(values), np.nan, np.searchsorted(self.levels, values))[:, None]
        if self.kind.width == 1:
            return places
        return np.where(np.isnan(places), np.nan, places == np.arange(self.kind.width))

    def decode(self, elements: np.ndarray) -> np.ndarray:
        """Values from elements, (*, width), with one class where classes have probabilities."""
        if self.levels is None:
            return elements[..., 0]
        places = elements.argmax(-1) if self.kind.width > 1 else (elements[..., 0] >= 0.5).astype(np.int64)
        return self.levels[places.clip(max=len(self.levels) - 1)]

    def quantile(self, probabilities: np.ndarray, share: float) -> np.ndarray:
        """The lowest level up to which the probabilities of the levels sum to a share, from those of elements, (N, width)."""
        shares = probabilities if self.kind.width > 1 else np.concatenate([1 - probabilities, probabilities], 1)
        levels = np.array([0.0, 1.0]) if self.levels is None else self.levels
        places = (shares.cumsum(-1) < share).sum(-1)
        return levels[places.clip(max=len(levels) - 1)]


@dataclass(frozen=True, eq=False)
class MixedColumns:
    """The columns of a mixed modality, in order.

    Example:
        >>> stage = MixedColumn(ColumnKind(type="ordinal", classes=3), np.array([0, 0.5, 1]))
        >>> columns = MixedColumns((stage, MixedColumn(ColumnKind(type="normal"))))
        >>> columns.encode(np.array([[0.5, 7], [np.nan, 8]]))
        array([[ 0.,  1.,  0.,  7.],
               [nan, nan, nan,  8.]])
        >>> columns.decode(np.array([[0.1, 0.2, 0.7, 7]]))
        array([[1., 7.]])
    """

    columns: Sequence[MixedColumn]

    @property
    def width(self) -> int:
        """The number of elements."""
        return sum(column.kind.width for column in self.columns)

    @property
    def spans(self) -> list[slice]:
        """The elements of each column."""
        ends = np.cumsum([0, *(column.kind.width for column in self.columns)]).tolist()
        return [slice(start, stop) for start, stop in pairwise(ends)]

    def encode(self, table: np.ndarray) -> np.ndarray:
        """The elements, (N, W), of a table, (N, C), NaN where missing."""
        return np.concatenate([column.encode(table[:, number]) for number, column in enumerate(self.columns)], axis=1)

    def decode(self, elements: np.ndarray) -> np.ndarray:
        """A table, (*, C), from elements, (*, W)."""
        return np.stack([column.decode(elements[..., span]) for column, span in zip(self.columns, self.spans, strict=True)], axis=-1)

    def ends(self, ends: np.ndarray, probabilities: np.ndarray, share: float) -> np.ndarray:
        """The ends of intervals, (N, C), from those of elements; NaN for classes without an order.

        Arguments:
            ends: The end of the interval of each element, (N, W).
            probabilities: The probability of each class, (N, W).
            share: The probability up to the end.
        """
        found = self.decode(ends).astype(np.float64)
        for number, (column, span) in enumerate(zip(self.columns, self.spans, strict=True)):
            if column.kind.type == "categorical":
                found[:, number] = np.nan
            elif column.kind.type in CLASSES or column.kind.binary:
                found[:, number] = column.quantile(probabilities[:, span], share)
        return found
