r"""The free baseline: the best model of a modality that ignores all others, fitted to training rows in closed form.

A multimodal model has to exceed its log-likelihood in imputation, and its entropy is the natural unit of a modality's weight. Elements are
independent:

==================================== ==============================================================================
``normal``                           mean and standard deviation
``laplace``                          median and mean absolute deviation
``bernoulli``                        frequency, smoothed by half a count
``categorical``                      frequencies, smoothed by half a count in total
``poisson``, ``negative_binomial``   negative binomial with the mean and the variance (Poisson if not overdispersed), times the row's size
``discretized_logistic``             rounded logistic with the mean and the standard deviation
``mixed``                            the above by column; dispersions of counts by gradient descent
``text``                             frequencies of tokens at each place, smoothed by half a count in total
any other likelihood                 raw parameters and a copy of the likelihood, fitted by gradient descent
==================================== ==============================================================================

Axes: N or B rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution

from nbridge.common.vocabulary import PAD
from nbridge.nn.distributions import DiscretizedLogistic as RoundedLogistic
from nbridge.nn.distributions import StableNormal
from nbridge.nn.likelihoods import (
    LOG_SCALE,
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Normal,
    Poisson,
)
from nbridge.nn.mixed import Mixed
from nbridge.nn.text_distributions import ParallelText
from nbridge.nn.text_likelihood import Text
from nbridge.spec.columns import COUNTS

MOST_ROWS = 10_000
"""Maximum number of rows that a marginal is fitted to, evenly spaced; more rows would hardly change it."""
MOST_NUMBERS = 2**24
"""Maximum number of values in these rows, to bound memory."""
COUNT_ROWS = 1000
"""Maximum number of rows that the counts of a mixed table are fitted to."""
STEPS, RATE = 200, 0.05
"""Steps and learning rate for likelihoods without a closed form."""
DISPERSION = 1e6
"""Largest dispersion of a negative binomial: practically a Poisson distribution, with log-gamma terms that are still exact."""


@dataclass(frozen=True)
class Marginal:
    r"""A distribution :math:`p(x_j)` that ignores all other modalities; see `fit_marginal`.

    Arguments:
        score: Log-likelihood of values in canonical form and their observed cells, shape (B,), in double precision.
        unit: Standard deviation of each element in the training rows, of the modality's shape, for real values; None for discrete ones.
    """

    score: Callable[[Tensor, Tensor | None], Tensor]
    unit: Tensor | None = None

    def log_prob(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        r""":math:`\log p(x_j)` in nats, shape (B,).

        Values are in canonical form, shape (B, \*shape); cells that are not observed are ignored.
        """
        if not len(x):
            # Torch's sum over the axes of an element is ambiguous without rows.
            return torch.zeros(0, dtype=torch.float64, device=x.device)
        return self.score(x, cells)


@torch.no_grad()
def fit_marginal(likelihood: Likelihood, x: Tensor, cells: Tensor | None = None) -> Marginal:
    r"""Fits the distribution :math:`p(x_j)` of one modality to its rows.

    Values are in canonical form, shape (N, \*shape); all their ``cells`` are observed by default.

    Raises:
        ValueError: if there are no rows.

    Example:
        >>> from nbridge.nn.likelihoods import Categorical
        >>> coin = fit_marginal(Categorical((2,)), torch.tensor([0, 1] * 50))
        >>> round(coin.log_prob(torch.tensor([0])).exp().item(), 3)
        0.5
    """
    if not len(x):
        raise ValueError("a marginal needs at least one row")
    x, cells = _some(x, cells)
    if type(likelihood) is Categorical:
        frequencies = torch.bincount(x, minlength=likelihood.shape[0]).double() + 0.5 / likelihood.shape[0]
        log_probs = (frequencies / frequencies.sum()).log()
        return Marginal(lambda values, _: log_probs[values])
    if isinstance(likelihood, Text):
        text = _text(likelihood, x)
        return Marginal(lambda values, _: text.log_prob(values))
    fit, observed = _CLOSED.get(type(likelihood)), torch.ones_like(x, dtype=torch.bool) if cells is None else cells
    if likelihood.has_size and isinstance(likelihood, Poisson | NegativeBinomial):
        return Marginal(_sized_counts(likelihood, x.double(), observed))
    if isinstance(likelihood, Mixed):
        return _of_columns(likelihood, x, cells)
    if fit is None:
        return _by_gradient(likelihood, x, cells)
    elements = fit(likelihood, x.double(), observed)
    unit = _moments(x.double(), observed)[1] if isinstance(likelihood, Normal | Laplace) else None
    return Marginal(lambda values, known: _summed(elements, values, known), unit)


def marginal_nats(likelihood: Likelihood, x: Tensor, cells: Tensor | None = None) -> float:
    r"""Nats of a modality under the free baseline, :math:`-\frac{1}{N} \sum_n \log p(x_{nj})`.

    Real values are measured in units of their standard deviation, so that the figure does not depend on the unit of a column: a normal
    column has :math:`\frac{1}{2} \log(2 \pi e)` nats, and a constant one none. Values are in canonical form, shape (N, \*shape); all their
    ``cells`` are observed by default.

    Example:
        >>> from nbridge.nn.likelihoods import Normal
        >>> round(marginal_nats(Normal((3,)), 1000 * torch.randn(10_000, 3, generator=torch.Generator().manual_seed(0))), 1)
        4.3
    """
    x, cells = _some(x, cells)
    marginal = fit_marginal(likelihood, x, cells)
    if marginal.unit is None:
        return -marginal.log_prob(x, cells).mean().item()
    varies = (marginal.unit > 0).expand(x.shape)
    observed = varies if cells is None else cells & varies
    log_unit = torch.where(observed, marginal.unit.clamp(min=1e-300).log(), 0.0).flatten(1).sum(1)
    return -(marginal.log_prob(x, observed) + log_unit).mean().item()


def _some(x: Tensor, cells: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Evenly spaced rows, as many as the limits allow."""
    most = min(MOST_ROWS, max(1, MOST_NUMBERS // math.prod(x.shape[1:])))
    if len(x) <= most:
        return x, cells
    rows = torch.arange(most, device=x.device) * len(x) // most
    return x.index_select(0, rows), None if cells is None else cells.index_select(0, rows)


def _summed(elements: Distribution, x: Tensor, cells: Tensor | None) -> Tensor:
    scores = elements.log_prob(x.double())
    return (scores if cells is None else torch.where(cells, scores, 0.0)).flatten(1).sum(1)


def _moments(x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each element over its observed rows; the latter is exactly 0 for constant elements."""
    number = observed.sum(0).clamp(min=1)
    mean = torch.where(observed, x, 0.0).sum(0) / number
    deviation = (torch.where(observed, x - mean, 0.0).square().sum(0) / number).sqrt()
    return mean, torch.where(deviation > 1e-6 * mean.abs().clamp(min=1e-30), deviation, 0.0)


def _bounded(spread: Tensor) -> Tensor:
    """The spread, with that of constant elements replaced by the lower bound of learned scales."""
    return torch.where(spread > 0, spread, math.exp(LOG_SCALE[0]))


def _text(likelihood: Text, x: Tensor) -> ParallelText:
    """Independent tokens at each place, with their frequencies among the texts that have not ended before."""
    counts = torch.stack([torch.bincount(place, minlength=likelihood.tokens) for place in x.unbind(1)]).double()
    counts[:, PAD] = 0
    return ParallelText((counts + 0.5 / likelihood.tokens).log())


def _normal(_: Likelihood, x: Tensor, observed: Tensor) -> Distribution:
    mean, deviation = _moments(x, observed)
    return StableNormal(mean, _bounded(deviation), validate_args=False)


def _laplace(_: Likelihood, x: Tensor, observed: Tensor) -> Distribution:
    median = torch.where(observed, x, math.nan).nanmedian(0).values.nan_to_num()
    spread = torch.where(observed, x - median, 0.0).abs().sum(0) / observed.sum(0).clamp(min=1)
    return distributions.Laplace(median, _bounded(spread), validate_args=False)


def _bernoulli(_: Likelihood, x: Tensor, observed: Tensor) -> Distribution:
    probability = (torch.where(observed, x, 0.0).sum(0) + 0.25) / (observed.sum(0) + 0.5)
    return distributions.Bernoulli(probability, validate_args=False)


def _count(_: Likelihood, x: Tensor, observed: Tensor) -> Distribution:
    number = observed.sum(0).clamp(min=1)
    mean = (torch.where(observed, x, 0.0).sum(0) + 0.5) / number
    variance = torch.where(observed, x - mean, 0.0).square().sum(0) / number
    dispersion = (mean.square() / (variance - mean).clamp(min=1e-30)).clamp(max=DISPERSION)
    return distributions.NegativeBinomial(dispersion, logits=mean.log() - dispersion.log(), validate_args=False)


def _sized_counts(likelihood: Likelihood, x: Tensor, observed: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
    r"""The score of counts around s times a mean, with the size s that their row shows, and the dispersion of the squared errors.

    .. math:: \mu = \frac{\sum_n x_n}{\sum_n s_n}, \qquad
        \theta = \frac{\mu^2 \sum_n s_n^2}{\sum_n (x_n - s_n \mu)^2 - s_n \mu}
    """

    def sizes(values: Tensor, known: Tensor | None) -> Tensor:
        size = likelihood.log_size(values, known)
        assert size is not None, "a likelihood with size factors"
        return size.exp()

    size = torch.where(observed, sizes(x, observed), 0.0)
    seen = torch.where(observed, x, 0.0)
    mean = (seen.sum(0) + 0.5) / size.sum(0).clamp(min=1e-30)
    excess = torch.where(observed, (x - size * mean).square() - size * mean, 0.0).sum(0)
    dispersion = (mean.square() * size.square().sum(0) / excess.clamp(min=1e-30)).clamp(1e-30, DISPERSION)

    def score(values: Tensor, known: Tensor | None) -> Tensor:
        rate = sizes(values.double(), known) * mean
        elements = distributions.NegativeBinomial(dispersion, logits=rate.log() - dispersion.log(), validate_args=False)
        return _summed(elements, values, known)

    return score


def _discretized_logistic(likelihood: Likelihood, x: Tensor, observed: Tensor) -> Distribution:
    assert isinstance(likelihood, DiscretizedLogistic)
    mean, deviation = _moments(x, observed)
    step = (likelihood.high - likelihood.low) / (likelihood.levels - 1)
    # A constant pixel has nearly all of its probability at one level.
    scale = (deviation * math.sqrt(3) / math.pi).clamp(min=step / 8)
    return RoundedLogistic(mean, scale.log(), likelihood.levels, likelihood.low, likelihood.high)


_CLOSED: Mapping[type[Likelihood], Callable[[Likelihood, Tensor, Tensor], Distribution]] = {
    Normal: _normal, Laplace: _laplace, Bernoulli: _bernoulli, Poisson: _count, NegativeBinomial: _count,
    DiscretizedLogistic: _discretized_logistic,
}  # fmt: skip


def _of_columns(likelihood: Mixed, x: Tensor, cells: Tensor | None) -> Marginal:
    """The marginal of a mixed table: its columns at the distributions that they start from; dispersions of counts by gradient."""
    family = copy.deepcopy(likelihood)
    with torch.no_grad():
        family.fit(x, torch.ones_like(x, dtype=torch.bool) if cells is None else cells)
        for parameter in family.parameters():
            # Scales in units of the spread, in logarithms.
            parameter.zero_()
    if any(kind.type in COUNTS for kind in family.kinds.values()):
        rows = torch.arange(min(COUNT_ROWS, len(x)), device=x.device) * len(x) // min(COUNT_ROWS, len(x))
        return _by_gradient(family, x.index_select(0, rows), None if cells is None else cells.index_select(0, rows))
    family.requires_grad_(requires_grad=False)
    raw = torch.zeros(family.raw_shape, device=x.device, dtype=family.dtype)
    return Marginal(lambda values, known: family.log_prob(raw.expand(len(values), -1), values, known).double(), family.units.double())


@torch.enable_grad()
def _by_gradient(likelihood: Likelihood, x: Tensor, cells: Tensor | None) -> Marginal:
    """The marginal of a likelihood without a closed form: one set of raw parameters for all rows."""
    family = copy.deepcopy(likelihood).requires_grad_()
    raw = torch.zeros(family.raw_shape, device=x.device, dtype=likelihood.dtype, requires_grad=True)

    def score(values: Tensor, known: Tensor | None) -> Tensor:
        return family.log_prob(raw.expand(len(values), *raw.shape), values, known)

    optimizer = torch.optim.Adam([raw, *family.parameters()], lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (-score(x, cells).mean()).backward()
        optimizer.step()
    family.requires_grad_(requires_grad=False)
    raw = raw.detach()
    return Marginal(lambda values, known: score(values, known).double(), _unit_of(family, x, cells))


def _unit_of(likelihood: Likelihood, x: Tensor, cells: Tensor | None) -> Tensor | None:
    """The units of real elements, which no closed form knows; None for discrete ones."""
    if isinstance(likelihood, Mixed):
        return likelihood.units.double()
    real = not (likelihood.support.is_discrete or likelihood.discrete) and x.is_floating_point()
    observed = torch.ones_like(x, dtype=torch.bool) if cells is None else cells
    return _moments(x.double(), observed)[1] if real else None
