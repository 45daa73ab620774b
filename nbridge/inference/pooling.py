"""Pools the results of an analysis over several imputations (Rubin, 1987; Barnard and Rubin, 1999)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nbridge.errors import DataError


@dataclass(frozen=True)
class Pooled:
    """Estimates pooled over imputations. All arrays have the shape of one estimate.

    Arguments:
        estimate: The mean over imputations.
        within: The mean of the variances within imputations: what would remain with nothing missing.
        between: The variance of the estimates between imputations.
        variance: The total variance.
        degrees_of_freedom: Those of Student's t distribution of the estimate; infinite where nothing depends on the imputations.
        fraction_missing: The fraction of the information about each estimate that is missing, between 0 and 1.
    """

    estimate: np.ndarray
    within: np.ndarray
    between: np.ndarray
    variance: np.ndarray
    degrees_of_freedom: np.ndarray
    fraction_missing: np.ndarray

    @property
    def standard_error(self) -> np.ndarray:
        """The square root of the total variance."""
        return np.sqrt(self.variance)

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """The lower and upper ends of the central confidence interval by Student's t distribution.

        Arguments:
            level: Its probability, between 0 and 1.

        Raises:
            DataError: if the level is not a probability.
        """
        if not 0 < level < 1:
            raise DataError(f"level {level}: expected a probability between 0 and 1")
        from scipy.stats import t  # Not above: it takes half a second.

        half = t.ppf((1 + level) / 2, self.degrees_of_freedom) * self.standard_error
        return self.estimate - half, self.estimate + half

    def p_value(self, null: ArrayLike = 0.0) -> np.ndarray:
        """The two-sided p-value of the hypothesis that the true values are ``null``; NaN where the variance is 0."""
        from scipy.stats import t

        with np.errstate(divide="ignore", invalid="ignore"):
            return 2 * t.sf(np.abs((self.estimate - np.asarray(null)) / self.standard_error), self.degrees_of_freedom)


def pool(estimates: ArrayLike, variances: ArrayLike, *, complete_degrees_of_freedom: float = np.inf) -> Pooled:
    r"""Pools estimates from M imputations of the same rows by Rubin's rules.

    With estimates :math:`\hat Q_m` and their squared standard errors :math:`U_m`: :math:`\bar Q = \sum_m \hat Q_m / M`,
    :math:`\bar U = \sum_m U_m / M`, :math:`B = \sum_m (\hat Q_m - \bar Q)^2 / (M - 1)`, total variance :math:`T = \bar U + (1 + 1/M) B`,
    :math:`\lambda = (1 + 1/M) B / T`, degrees of freedom :math:`\nu = (M - 1) / \lambda^2`, and fraction of missing information
    :math:`(r + 2 / (\nu + 3)) / (r + 1)` with :math:`r = \lambda / (1 - \lambda)`.

    Draws of ``impute(rows, samples=M)`` take the weights of the model as known, so that intervals are narrow where it saw few rows.

    Arguments:
        estimates: The estimates of each imputation, :math:`(M, *)`.
        variances: Their squared standard errors, of the same shape.
        complete_degrees_of_freedom: Degrees of freedom of the analysis with nothing missing, such as rows minus coefficients. Few of them
            lower :math:`\nu`: :math:`1 / \nu \to 1 / \nu + 1 / \nu_o` with :math:`\nu_o = \nu_c (1 - \lambda) (\nu_c + 1) / (\nu_c + 3)`.

    Raises:
        DataError: if there are fewer than two imputations, shapes differ, a number is not finite, or a variance is negative.

    Example:
        >>> pooled = pool([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
        >>> float(pooled.estimate), round(float(pooled.variance), 3), round(float(pooled.degrees_of_freedom), 3)
        (2.0, 1.833, 3.781)
    """
    found, squared = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    _check(found, squared, complete_degrees_of_freedom)
    number = len(found)
    within, between = squared.mean(0), found.var(0, ddof=1)
    added = (1 + 1 / number) * between
    total = within + added
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(added > 0, added / total, 0.0)
        freedom = (number - 1) / share**2
        if np.isfinite(complete_degrees_of_freedom):
            observed = (1 - share) * complete_degrees_of_freedom * (complete_degrees_of_freedom + 1) / (complete_degrees_of_freedom + 3)
            freedom = 1 / (1 / freedom + 1 / observed)
        # (r + 2 / (nu + 3)) / (r + 1) with both sides multiplied by 1 - lambda, which may be 0.
        missing = np.where(share > 0, share + (1 - share) * 2 / (freedom + 3), 0.0)
    return Pooled(found.mean(0), within, between, total, freedom, missing)


def _check(estimates: np.ndarray, variances: np.ndarray, freedom: float) -> None:
    if estimates.shape != variances.shape:
        raise DataError(f"variances: shape {variances.shape}, expected {estimates.shape}, that of the estimates")
    if not estimates.ndim or len(estimates) < 2:
        raise DataError(f"estimates: shape {estimates.shape}, expected those of two imputations or more, (M, ...)")
    if not (np.isfinite(estimates).all() and np.isfinite(variances).all()):
        raise DataError("estimates and variances: expected finite numbers; did an analysis fail?")
    if (variances < 0).any():
        raise DataError(f"variances: {variances.min():g}, expected squared standard errors of 0 or more")
    if not freedom > 0:
        raise DataError(f"complete_degrees_of_freedom: {freedom:g}, expected a number above 0")
