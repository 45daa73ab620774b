r"""Accuracy and calibration of a model's predictive distributions.

Real values and counts are scored from m draws of :math:`p(x_j \mid x_S)`, including the spread of :math:`p(x_j \mid z)`: the error of the
mean, the continuous ranked probability score (Gneiting and Raftery, 2007) and the coverage of central intervals,

.. math:: \mathrm{CRPS} = \frac{1}{m} \sum_k |x_k - x| - \frac{1}{2 m (m - 1)} \sum_{k, l} |x_k - x_l|

Classes are scored by :math:`p(y \mid x_S) = \frac{1}{K} \sum_k p(y \mid z_k)`: accuracy, log-likelihood, Brier score (Brier, 1950) and
expected calibration error (Naeini et al., 2015).

Axes: K samples, B rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

from nbridge.data.batch import Batch
from nbridge.errors import DataError, require_positive
from nbridge.evaluation.rows import rows_to_score
from nbridge.inference.impute import chunks, serving
from nbridge.models.base import MultimodalVAE
from nbridge.models.conformal import has_intervals
from nbridge.nn.likelihoods import Categorical, Likelihood

LEVELS = (0.5, 0.9, 0.95)
"""Probabilities of the central intervals."""
MIN_DRAWS = 39
"""Fewest draws with which a value beyond all draws is outside the 95 % interval: each of its tails, 1/40, is then a whole rank."""

WIDTH = 128
"""Assumed minimum size of a draw when splitting rows into chunks: a decoder's layers are wider than a label."""


@dataclass(frozen=True)
class IntervalScores:
    r"""Scores of draws of real values or counts, in the units of the data, averaged over all observed cells.

    Arguments:
        cells: The number of observed cells that the scores average over.
        rmse: Root-mean-square error of the mean of the draws; m draws of variance v add v / m to its square.
        crps: Continuous ranked probability score, a proper score; for a point prediction it is the absolute error.
        coverage: Share of cells inside the central interval of each probability; equal to that probability when the draws are calibrated.
        marginal_rmse: RMSE of predicting each element by its mean over these rows, for comparison.
        marginal_crps: CRPS of predicting each element by its values in the other rows, for comparison.
    """

    given: tuple[str, ...]
    target: str
    rows: int
    cells: int
    rmse: float
    crps: float
    coverage: dict[float, float]
    marginal_rmse: float
    marginal_crps: float


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence.

    Arguments:
        low: Lower edge, excluded except in the first bin.
        high: Upper edge, included.
        accuracy: Share of correct predictions.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class LabelCalibration:
    r"""Scores of predicted class probabilities.

    Arguments:
        accuracy: Share of rows whose most probable class is the true one.
        majority_rate: Share of rows of the most frequent class, for comparison.
        brier: Brier score :math:`\sum_c (p_c - [y = c])^2`, from 0 to 2.
        ece: Expected calibration error of the most probable class.
        negative_log_likelihood: Mean :math:`-\log p(y \mid x_S)`, in nats.
        reliability: The non-empty bins of confidence, in ascending order.
    """

    given: tuple[str, ...]
    target: str
    rows: int
    accuracy: float
    majority_rate: float
    brier: float
    ece: float
    negative_log_likelihood: float
    reliability: tuple[Bin, ...]


def interval_scores(
    model: MultimodalVAE, batch: Batch, given: Iterable[str], target: str, *, samples: int = 100, seed: int = 0
) -> IntervalScores:
    r"""Scores draws of real values or counts over the rows in which the target and all given modalities are present.

    Draws are made as in `nbridge.Model.impute`: one :math:`z_k \sim q(z \mid x_S)` each, then x from :math:`p(x_j \mid z_k)`. Values of a
    `DiscretizedLogistic` are first rounded to its levels; counts with size factors are drawn at the size of their row, and the errors are
    those of log(1 + x). Coverage is computed from ranks, see `coverage`. Rows must not be used in
    training, and m, the number of draws, is 39 or more. With nothing given, z comes from the prior.

    Raises:
        DataError: when there are too few draws, no row has all of these modalities, or the target is neither real nor counts.
    """
    given = tuple(given)
    rows = rows_to_score(model, batch, given, target)
    likelihood = model.likelihoods[target]
    if not has_intervals(likelihood):
        raise unsupported("interval_scores", target, likelihood, "one of real values or counts")
    if samples < MIN_DRAWS:
        raise DataError(f"samples is {samples}, expected {MIN_DRAWS} or more, which {LEVELS[-1]:.0%} intervals need")
    require_cells(observed_cells(rows, target), target)
    with serving(model, seed):
        sums = [_interval_sums(model, part, given, target, samples) for part in row_chunks(model, rows, target, samples)]
    cells, square, *means = torch.stack(sums).sum(0).tolist()
    crps_mean, *inside = (total / cells for total in means)
    shares = dict(zip(LEVELS, inside, strict=True))
    marginal = _marginal_scores(model, rows, target)
    return IntervalScores(given, target, len(rows), int(cells), math.sqrt(square / cells), crps_mean, shares, *marginal)


def label_calibration(
    model: MultimodalVAE, batch: Batch, given: Iterable[str], target: str, *, samples: int = 200, bins: int = 15, seed: int = 0
) -> LabelCalibration:
    """Scores predicted class probabilities over the rows in which the target and all given modalities are present.

    Rows must not be used in training, and the target has a categorical likelihood. With nothing given, z comes from the prior. With few
    draws K of z, their noise adds to the calibration error.

    Raises:
        DataError: when no row has all of these modalities, or the target is not categorical.
    """
    given = tuple(given)
    rows = rows_to_score(model, batch, given, target)
    likelihood = model.likelihoods[target]
    if not isinstance(likelihood, Categorical):
        raise unsupported("label_calibration", target, likelihood, "a categorical one")
    require_positive(samples=samples, bins=bins)
    with serving(model, seed):
        parts = [_class_log_probs(model, part, given, target, samples) for part in row_chunks(model, rows, target, samples)]
    log_probs, labels = torch.cat(parts), likelihood.canonical(rows.values[target]).cpu()
    probabilities = log_probs.exp()
    confidence, guess = probabilities.max(1)
    table = reliability(confidence, guess == labels, bins)
    return LabelCalibration(
        given=given, target=target, rows=len(rows), accuracy=(guess == labels).double().mean().item(),
        majority_rate=labels.bincount().max().item() / len(labels), brier=brier(probabilities, labels), ece=calibration_error(table),
        negative_log_likelihood=F.nll_loss(log_probs, labels).item(), reliability=table,
    )  # fmt: skip


def crps(draws: Tensor, x: Tensor, *, fair: bool = True) -> Tensor:
    r"""Continuous ranked probability score of each element, from draws of its predictive distribution.

    .. math:: \frac{1}{m} \sum_k |x_k - x| - \frac{1}{2 m (m - 1)} \sum_{k, l} |x_k - x_l|,
        \qquad \sum_{k, l} |x_k - x_l| = 2 \sum_k (2 k - m - 1)\, x_{(k)}

    The second identity, over sorted draws, makes it :math:`O(m \log m)`.

    Arguments:
        draws: Draws of each element, two or more, shape (m, \*).
        x: Observed values, shape (\*).
        fair: Whether to average pairs over m (m - 1): an unbiased estimate of the score of the underlying distribution (Ferro, 2014), which
            can be negative. Otherwise over m squared: the score of the empirical distribution of the draws.

    Returns:
        The score in the units of x, float64, shape (\*); lower is better.

    Example:
        >>> crps(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(3.0), fair=False)
        tensor(2.5556, dtype=torch.float64)
    """
    errors = draws.double() - x.double()
    m = len(errors)
    return errors.abs().mean(0) - _pairs(errors.sort(0).values, m) / (m * (m - 1 if fair else m))


def coverage(draws: Tensor, x: Tensor, level: float) -> Tensor:
    r"""Whether each element is in the central interval of its draws: 1 inside, 0 outside, a fraction at the interval's ends and for ties.

    If x and the m draws come from one distribution, each of the m + 1 ranks of x is equally likely. Rank r (the number of draws below x)
    therefore represents the probabilities from :math:`r / (m + 1)` to :math:`(r + 1) / (m + 1)`; draws equal to x extend this range by one
    rank each. The expected coverage of calibrated draws is then exactly ``level`` for any number of draws, for counts too (the probability
    integral transform of Czado et al., 2009). The interval ends at the quantiles of the draws at position p (m + 1). With fewer than
    :math:`2 / (1 - \mathrm{level}) - 1` draws, an x beyond all of them still counts as a fraction. Draws have the shape (m, \*), observed
    values (\*).

    Returns:
        Fractions, float64, shape (\*); their mean is the coverage.

    Example:
        >>> coverage(torch.arange(99.0)[:, None].expand(99, 3), torch.tensor([-5.0, 0.5, 50.0]), 0.9)
        tensor([0., 0., 1.], dtype=torch.float64)
    """
    return _inside(*_ranks(draws, x), level)


def brier(probabilities: Tensor, labels: Tensor) -> float:
    r"""Mean Brier score :math:`\sum_c (p_c - [y = c])^2`, from 0 to 2, of probabilities (N, C) and class indices (N,)."""
    truth = F.one_hot(labels, probabilities.shape[1]).to(probabilities)
    return (probabilities - truth).double().square().sum(1).mean().item()


def reliability(confidence: Tensor, right: Tensor, bins: int = 15) -> tuple[Bin, ...]:
    """Groups predictions by confidence into equal-width bins over [0, 1], both of shape (N,); empty bins are left out."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    confidence, right = confidence.double().cpu(), right.double().cpu()
    place = torch.bucketize(confidence, edges[1:-1])
    count, sure, true = (torch.bincount(place, weights, bins).tolist() for weights in (None, confidence, right))
    low, high = edges[:-1].tolist(), edges[1:].tolist()
    return tuple(Bin(low[b], high[b], sure[b] / count[b], true[b] / count[b], count[b]) for b in range(bins) if count[b])


def calibration_error(table: Iterable[Bin]) -> float:
    r"""Expected calibration error of reliability bins, :math:`\sum_b \frac{n_b}{N} |\mathrm{accuracy}_b - \mathrm{confidence}_b|`."""
    table = tuple(table)
    return sum(line.count * abs(line.accuracy - line.confidence) for line in table) / sum(line.count for line in table)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error of the most probable class, from probabilities (N, C) and class indices (N,)."""
    confidence, guess = probabilities.max(1)
    return calibration_error(reliability(confidence, guess == labels, bins))


def predictive(model: MultimodalVAE, batch: Batch, given: Iterable[str], target: str, samples: int) -> Distribution:
    r"""The calibrated :math:`p(x_j \mid z_k)`, batch shape (K, B), with :math:`z_k \sim q(z \mid x_S)`, for prepared rows of any size."""
    rows = batch.only(*given)
    return model.decoder_of(target, batch).served(model.posterior(rows, samples).sample(), model.given(target, rows))


def row_chunks(model: MultimodalVAE, batch: Batch, target: str, samples: int) -> Iterable[Batch]:
    """Yields prepared rows on the model's device, in chunks small enough that the draws of a target fit in memory."""
    return (model.prepare(part.to(model.device)) for part in chunks(batch, samples * draw_width(model, target)))


def draw_width(model: MultimodalVAE, target: str) -> int:
    """The assumed number of values that a draw of a target takes in memory, at least `WIDTH`."""
    return max(WIDTH, model.latent_dim, model.likelihoods[target].numbers)


def unsupported(metric: str, name: str, likelihood: Likelihood, expected: str) -> DataError:
    """The error for a metric that does not apply to a likelihood."""
    return DataError(f"metric {metric}: modality {name!r} has a {type(likelihood).__name__} likelihood, expected {expected}")


def require_cells(cells: Tensor, name: str) -> None:
    """Checks that at least one cell of a modality is observed.

    Raises:
        DataError: when none is.
    """
    if not cells.any():
        raise DataError(f"modality {name!r}: no observed cell in the {len(cells)} rows to evaluate")


def on_scale(likelihood: Likelihood, x: Tensor) -> Tensor:
    """Canonical values on the scale on which errors are measured: log(1 + x) of counts with size factors, all others as they are."""
    return torch.log1p(x.double()) if likelihood.has_size else x


def observed_cells(batch: Batch, name: str) -> Tensor:
    """The observed mask of a modality's cells, boolean, of the shape of its values; only meaningful in rows where it is present."""
    return batch.cells.get(name, torch.ones_like(batch.values[name], dtype=torch.bool))


def _interval_sums(model: MultimodalVAE, batch: Batch, given: tuple[str, ...], target: str, samples: int) -> Tensor:
    """Sums over observed cells: their number, squared error, CRPS, and coverage of each interval."""
    likelihood, cells = model.likelihoods[target], observed_cells(batch, target)
    draws = on_scale(likelihood, predictive(model, batch, given, target, samples).sample()[:, cells])
    # Rounded to the same levels as the draws, so that equal values compare as ties despite floating-point error.
    x = on_scale(likelihood, likelihood.point(batch.values[target].to(draws))[cells])
    square = (draws.double().mean(0) - x).square()
    ranks = _ranks(draws, x)
    scores = [torch.ones_like(square), square, crps(draws, x), *(_inside(*ranks, level) for level in LEVELS)]
    return torch.stack(scores).sum(1).cpu()


def _marginal_scores(model: MultimodalVAE, batch: Batch, target: str) -> tuple[float, float]:
    """RMSE of predicting each element by its mean, and CRPS of predicting it by its values in the other rows."""
    likelihood, cells = model.likelihoods[target], observed_cells(batch, target)
    x, count = on_scale(likelihood, likelihood.point(likelihood.canonical(batch.values[target])).double()), cells.sum(0)
    mean = torch.where(cells, x, 0.0).sum(0) / count.clamp(min=1)
    square = torch.where(cells, (x - mean).square(), 0.0).sum() / count.sum()
    # Averaged over rows, both terms of this CRPS are mean pairwise differences, the second one halved.
    differences = _pairs((x - mean).masked_fill(~cells, math.inf).sort(0).values, count) / (count - 1).clamp(min=1)
    return math.sqrt(square.item()), (differences.sum() / count.sum()).item()


def _class_log_probs(model: MultimodalVAE, batch: Batch, given: tuple[str, ...], target: str, samples: int) -> Tensor:
    r""":math:`\log p(y \mid x_S)` of every class, shape (B, C)."""
    distribution = predictive(model, batch, given, target, samples)
    assert isinstance(distribution, torch.distributions.Categorical)
    return (torch.logsumexp(distribution.logits.double(), 0) - math.log(samples)).cpu()


def _pairs(ordered: Tensor, count: Tensor | int) -> Tensor:
    """Sum of pairwise distances among the first ``count`` values, each pair once, of values sorted along the first axis."""
    rank = torch.arange(len(ordered), device=ordered.device).reshape(-1, *(1 for _ in ordered.shape[1:]))
    return torch.where(rank < count, (2 * rank - count + 1) * ordered, 0.0).sum(0)


def _ranks(draws: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper probability represented by the rank of x among the draws."""
    below, ties = (draws < x).sum(0).double(), (draws == x).sum(0)
    return below / (len(draws) + 1), (below + ties + 1) / (len(draws) + 1)


def _inside(low: Tensor, high: Tensor, level: float) -> Tensor:
    """The fraction of each probability range that is inside the central interval."""
    overlap = high.clamp(max=(1 + level) / 2) - low.clamp(min=(1 - level) / 2)
    return overlap.clamp(min=0) / (high - low)
