r"""Paired comparison of a model and a baseline on the same rows, with the standard error of the difference.

Scores are an array :math:`s_{rc}` over rows r and columns c, NaN where there is no score. A column's figure is the mean over its rows
(accuracy), or the root of that mean (RMSE). The figure of several columns is the mean over columns, so that units are not pooled.

The difference is paired, so the difficulty that a row has for both cancels. Its standard error follows from the influence of each row,

.. math:: \mathrm{SE}^2 = \frac{1}{n (n - 1)} \sum_r \Big( \frac{1}{C} \sum_c \frac{n}{n_c} \big( \psi^A_{rc} - \psi^B_{rc} \big) \Big)^2,
    \qquad \psi_{rc} = s_{rc} - \bar{s}_c \quad \text{or, of a root,} \quad \frac{s_{rc} - \bar{s}_c}{2 \sqrt{\bar{s}_c}}

which is the delta method. Rows without a score in column c have no influence on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """Figures of a model and a baseline on the n rows with a score, and the standard error of their difference."""

    rows: int
    model: float
    baseline: float
    standard_error: float


def paired(model: Scores, baseline: Scores, *, root: bool) -> Paired:
    """Compares the scores of two predictors.

    Arguments:
        model: The model's scores, shape (N, C); NaN where there is none.
        baseline: The baseline's scores, NaN in the same cells.
        root: Whether scores are squared errors, so that figures are roots of means.

    Example:
        >>> paired(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]), root=False)
        Paired(rows=2, model=0.5, baseline=0.5, standard_error=0.0)
    """
    scored = ~np.isnan(model)
    columns = scored.any(0)
    model, baseline, scored = model[:, columns], baseline[:, columns], scored[:, columns]
    rows = int(scored.any(1).sum())
    if not rows:
        return Paired(0, math.nan, math.nan, math.nan)
    first, first_influence = _figure(model, scored, root)
    second, second_influence = _figure(baseline, scored, root)
    per_row = ((first_influence - second_influence) * (rows / scored.sum(0))).mean(1)
    error = math.sqrt(float((per_row**2).sum()) / (rows * (rows - 1))) if rows > 1 else math.nan
    return Paired(rows, first, second, error)


def _figure(scores: Scores, scored: NDArray[np.bool_], root: bool) -> tuple[float, Scores]:
    """The mean of the columns' figures, and the influence of each score on its column's figure."""
    means = np.where(scored, scores, 0.0).sum(0) / scored.sum(0)
    influence = np.where(scored, scores - means, 0.0)
    if not root:
        return float(means.mean()), influence
    roots = np.sqrt(means)
    # A column without errors has zero influence, so any divisor works.
    return float(roots.mean()), influence / (2 * np.where(roots > 0, roots, 1.0))
