"""Chooses the likelihood of each column of a mixed modality from its kind, its name and its values.

========== ======================================================================================================================
classes    categorical; ordinal where their numbers have an order, such as answers from 1 to 6, stages, or 0, 0.5 and 1
binary     bernoulli
counts     poisson, or negative_binomial if they vary more than their mean; zero_inflated where zeros are far more than expected
numbers    normal; lognormal if they are positive and skewed, but their logarithms are not; whole and not negative as they are
========== ======================================================================================================================
"""

from __future__ import annotations

import numpy as np

from nbridge.data.column_names import hint_of, words_of
from nbridge.draft.column_kinds import FEW, ROWS_A_CLASS, Kind, Tally
from nbridge.spec.columns import ColumnKind

MOST_LEVELS = 20
"""Maximum number of levels of an ordinal column; more numbers without an order in their name are categorical."""
ORDERED = frozenset({"stage", "grade", "pclass", "level", "rating", "rank", "score", "severity", "degree"})
"""Words in the names of classes that have an order."""
SKEWED, STRAIGHTENED = 1.0, 0.5
"""Minimum skewness of a lognormal column, and maximum skewness of its logarithms, as a share of it."""
FEWEST = 20
"""Minimum number of rows to infer a distribution from."""
DISPERSED = 1.5
"""Variance-to-mean ratio from which counts are negative binomial."""
INFLATED = 0.1
"""Minimum share of rows that hold a zero beyond those that are expected, for zero inflation."""
NEAR_ZERO = 4.0
"""Numbers that are not negative have 0 as their bound if their mean is within this number of deviations of 0."""


def column_likelihood(name: str, kind: Kind, tally: Tally | None, classes: int) -> ColumnKind:
    """The likelihood of a column.

    Arguments:
        name: Its name.
        kind: Its kind; not ``left out``.
        tally: Its numbers; None for text.
        classes: The number of its classes, for classes.

    Example:
        >>> column_likelihood("edema", "classes", Tally.of(np.array([0, 0.5, 1.0])), 3).type
        'ordinal'
        >>> column_likelihood("species", "classes", None, 3).type
        'categorical'
    """
    if kind == "binary":
        return ColumnKind(type="bernoulli")
    if kind == "classes":
        return ColumnKind(type="ordinal" if tally is not None and _is_ordered(name, classes) else "categorical", classes=classes)
    assert tally is not None
    return _of_counts(tally) if kind == "counts" else real_likelihood(tally)


def array_likelihood(tally: Tally) -> ColumnKind:
    """The likelihood of a column of an array, whose type and name say little: bernoulli for 0 and 1, ordinal for few whole numbers.

    Example:
        >>> array_likelihood(Tally.of(np.arange(40.0) % 6)), array_likelihood(Tally.of(np.arange(40.0))).type
        (ColumnKind(type='ordinal', classes=6, whole=False, low=None, high=None, zero_inflated=False), 'normal')
    """
    if tally.values.tolist() == [0, 1]:
        return ColumnKind(type="bernoulli")
    count = len(tally.values)
    if tally.whole and 1 < count <= FEW and tally.mean_rows >= ROWS_A_CLASS:
        return ColumnKind(type="ordinal", classes=count)
    return real_likelihood(tally)


def real_likelihood(tally: Tally) -> ColumnKind:
    """The likelihood of numbers: normal or lognormal, with their bound and whether they are whole.

    Example:
        >>> real_likelihood(Tally.of(np.exp(np.random.default_rng(0).normal(size=99)))).type
        'lognormal'
        >>> real_likelihood(Tally.of(np.arange(1990.0, 2024)))
        ColumnKind(type='normal', classes=None, whole=True, low=0.0, high=None, zero_inflated=False)
    """
    if is_lognormal(tally):
        return ColumnKind(type="lognormal", whole=tally.whole)
    low = 0.0 if tally.low >= 0 and (tally.whole or _mean(tally) < NEAR_ZERO * np.sqrt(_variance(tally))) else None
    return ColumnKind(type="normal", whole=tally.whole, low=low)


def is_lognormal(tally: Tally) -> bool:
    """Whether numbers are positive and skewed, but their logarithms are not."""
    if tally.low <= 0 or tally.rows.sum() < FEWEST:
        return False
    skewness = _skewness(tally)
    return bool(skewness >= SKEWED and abs(_skewness(Tally(np.log(tally.values), tally.rows))) <= STRAIGHTENED * skewness)


def _is_ordered(name: str, classes: int) -> bool:
    named = hint_of(name) in ("classes", "codes") and ORDERED.isdisjoint(words_of(name))
    return not named and classes <= MOST_LEVELS


def _of_counts(tally: Tally) -> ColumnKind:
    mean, variance = _mean(tally), _variance(tally)
    dispersed = variance > DISPERSED * mean
    zeros = float(tally.rows[tally.values == 0].sum() / tally.rows.sum())
    # Of a negative binomial distribution with this mean and variance.
    excess = max(variance - mean, 1e-6 * mean)
    expected = (mean / variance) ** (mean**2 / excess) if dispersed else float(np.exp(-mean))
    inflated = tally.rows.sum() >= FEWEST and zeros > expected + INFLATED
    return ColumnKind(type="negative_binomial" if dispersed else "poisson", zero_inflated=bool(inflated))


def _mean(tally: Tally) -> float:
    return float(tally.values @ tally.rows / tally.rows.sum())


def _variance(tally: Tally) -> float:
    return float((tally.values - _mean(tally)) ** 2 @ tally.rows / tally.rows.sum())


def _skewness(tally: Tally) -> float:
    """The third moment of standardised numbers; 0 for a constant."""
    variance = _variance(tally)
    if variance <= 0:
        return 0.0
    return float((tally.values - _mean(tally)) ** 3 @ tally.rows / tally.rows.sum() / variance**1.5)
