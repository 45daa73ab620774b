r"""Imputed rows: values, masks, draws and statistics by modality.

Axes: K draws, L levels of intervals, B rows. Draws and levels come before rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

from nbridge.data.marks import either

Array = TypeVar("Array", Tensor, np.ndarray)
STATISTICS = ("mean", "sd", "lower", "upper", "probability")
"""The statistics of a predictive distribution; each modality has some of them."""
BY_LEVEL = ("lower", "upper")
"""The statistics with an axis of levels."""


@dataclass(frozen=True)
class Summary(Generic[Array]):
    r"""Statistics of predictive distributions. An observed cell has its own value, and standard deviation 0.

    Arguments:
        levels: The probabilities of the central intervals.
        mean: The mean by modality, shape (B, \*shape).
        sd: The standard deviation, shape (B, \*shape).
        lower: The lower end of the interval of each level, shape (L, B, \*shape).
        upper: The upper ends.
        probability: The probability of each class, shape (B, C), for categorical modalities, which have none of the above. For mixed
            modalities, shape (B, W), the probability that a binary or one-hot element is 1, which is its mean too; NaN for numbers. Where
            such elements are imputed, the ends of their intervals are NaN.
    """

    levels: tuple[float, ...]
    mean: dict[str, Array] = field(default_factory=dict)
    sd: dict[str, Array] = field(default_factory=dict)
    lower: dict[str, Array] = field(default_factory=dict)
    upper: dict[str, Array] = field(default_factory=dict)
    probability: dict[str, Array] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, Array]:
        """The statistics of a modality."""
        return {what: arrays[name] for what in STATISTICS if name in (arrays := getattr(self, what))}


@dataclass(frozen=True)
class Imputed(Generic[Array]):
    r"""Imputed rows.

    Arguments:
        values: By modality, shape (B, \*shape), or (K, B, \*shape) for K draws; observed values are bit-identical to the input, in
            its form (class index or one-hot) and dtype.
        mask: By modality, the mask of imputed rows, shape (B,), or cells, shape (B, \*shape).
        draws: The number K of draws, or None for the point estimate.
        statistics: Statistics of the predictive distribution, if intervals were asked for.
        earlier: By modality, the rows or cells that an earlier imputation filled; they are observed in this one. Empty where none was.
    """

    values: dict[str, Array]
    mask: dict[str, Array]
    draws: int | None = None
    statistics: Summary[Array] | None = None
    earlier: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.mask.values())))

    def each_draw(self, name: str) -> Array:
        r"""The values of a modality with an axis of draws, shape (K, B, \*shape); K is 1 for the point estimate."""
        return self.values[name] if self.draws is not None else self.values[name][None]


def take(imputed: Imputed[np.ndarray], rows: np.ndarray) -> Imputed[np.ndarray]:
    """Some of the rows."""
    return _changed(imputed, lambda _, axis, array: array.take(rows, axis))


def select(imputed: Imputed[np.ndarray], names: Collection[str]) -> Imputed[np.ndarray]:
    """The same rows of some modalities."""

    def some(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: array for name, array in arrays.items() if name in names}

    statistics = imputed.statistics
    if statistics is not None:
        statistics = Summary(statistics.levels, **{what: some(getattr(statistics, what)) for what in STATISTICS})
    return Imputed(some(imputed.values), some(imputed.mask), imputed.draws, statistics, some(imputed.earlier))


def marks_of(imputed: Imputed[np.ndarray], name: str) -> np.ndarray:
    r"""Which rows of a modality, (B,), or which cells, (B, \*shape), were imputed, now or before."""
    mask = imputed.mask[name]
    return either(mask, imputed.earlier[name]) if name in imputed.earlier else mask


def concatenated(parts: Sequence[Imputed[np.ndarray]]) -> Imputed[np.ndarray]:
    """The rows of all parts, one after the other."""
    every = [dict(_arrays(part)) for part in parts]
    return _changed(parts[0], lambda key, axis, _: np.concatenate([arrays[key] for arrays in every], axis))


_Key = tuple[str, str]


def _arrays(imputed: Imputed[np.ndarray]) -> list[tuple[_Key, np.ndarray]]:
    statistics = [] if imputed.statistics is None else [(what, getattr(imputed.statistics, what)) for what in STATISTICS]
    named = [("values", imputed.values), ("mask", imputed.mask), ("earlier", imputed.earlier), *statistics]
    return [((what, name), array) for what, arrays in named for name, array in arrays.items()]


def _changed(imputed: Imputed[np.ndarray], change: Callable[[_Key, int, np.ndarray], np.ndarray]) -> Imputed[np.ndarray]:
    """The same after a change of each array, given its key and the axis of its rows."""
    found: dict[str, dict[str, np.ndarray]] = {what: {} for what in ("values", "mask", "earlier", *STATISTICS)}
    for key, array in _arrays(imputed):
        what, name = key
        axis = int(what in BY_LEVEL or (what == "values" and imputed.draws is not None))
        found[what][name] = change(key, axis, array)
    statistics = None
    if imputed.statistics is not None:
        statistics = Summary(imputed.statistics.levels, **{one.name: found[one.name] for one in fields(Summary) if one.name != "levels"})
    return Imputed(found["values"], found["mask"], imputed.draws, statistics, found["earlier"])
