r"""Honest spreads: rows that no weight was fitted to say how widely the values of each modality lie about what is served.

Spreads and probabilities are learned together with all else, on training rows, from :math:`q(z \mid x_M)` of complete rows. What is served
is another thing: new rows, and z from a part S of what they have. There decoders err by more than they did in training, and posteriors
that meet as a product, or as a single Gaussian, are narrower than the truth; both make intervals too narrow. So, once training is over,
each modality j gets one factor :math:`f_j` of its likelihood's spread, a temperature for classes: the most probable one, given the
validation rows and the predictive log-likelihood of their single cells, a proper score,

.. math:: f_j = \arg\max_f \Big( \sum_{b,\, c} \log \frac{1}{K} \sum_k p_f(x_{bjc} \mid z_{bk}) - \frac{(\log f)^2}{2 \tau^2} \Big),
    \qquad z_{bk} \sim q(z \mid x_{bS}), \qquad S \subset O \setminus \{j\}

with S a random part, of random size, of what else a row has, and :math:`\log f \sim \mathcal{N}(0, \tau^2)` beforehand: a dozen labels,
all guessed rightly, would otherwise make a model certain of everything. All draws of a row come from its own z as ever, so that what is
imputed together still agrees; point estimates of real values stay as they are. A factor is one number: it cannot follow the validation
rows, and test rows are never seen. Likelihoods are then those of the calibrated model everywhere, in ``nbridge evaluate`` as well.

References:
    | On Calibration of Modern Neural Networks (Guo, Pleiss, Sun & Weinberger, 2017), https://arxiv.org/abs/1706.04599
    | Simple and Effective VAE Training with Calibrated Decoders (Rybkin, Daniilidis & Levine, 2021), https://arxiv.org/abs/2006.13202

Axes: K samples, B rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Independent

from nbridge.batch import Batch
from nbridge.likelihoods import Likelihood
from nbridge.models.base import MultimodalVAE
from nbridge.rows import Rows
from nbridge.subsets import random_part

DRAWS, ROUNDS = 64, 8
"""Draws of z of each row, and parts of each row that it is served from."""
NUMBERS = 2**24
"""Numbers that all draws of one modality, or all values of the rows, may come to: a bound for memory; rows beyond it do not count."""
BOUNDS = (-2.0, 2.0)
"""Bounds of the log of a factor: beyond them something else than the spread is wrong."""
PRIOR = 0.5
"""Spread of the log of a factor before any row was seen: two in three lie between 0.6 and 1.6."""


def uncalibrate(model: MultimodalVAE) -> None:
    """Gives every modality the spread that training gave it."""
    for likelihood in model.likelihoods.values():
        if likelihood.spread is not None:
            likelihood.spread.fill_(1.0)


@torch.no_grad()
def calibrate(model: MultimodalVAE, rows: Rows) -> dict[str, float]:
    """Sets the factor of each modality's spread, in place, from rows that training has not seen.

    It draws from torch's own generator: parts of rows, and z.

    Arguments:
        model: A trained model, in eval mode.
        rows: Prepared rows, with any pattern of presence; those with two modalities or more count.

    Returns:
        The factors, of the modalities that have one and that some rows have together with others.
    """
    uncalibrate(model)
    batch = rows.representative()
    several, width = model.presence(batch).sum(0) >= 2, sum(math.prod(likelihood.shape) for likelihood in model.likelihoods.values())
    factors: dict[str, float] = {}
    for name, likelihood in model.likelihoods.items():
        chosen = (several & batch.present[name]).nonzero()[:, 0].repeat(ROUNDS)
        chosen = chosen[torch.randperm(len(chosen), device=chosen.device)][
            : max(1, NUMBERS // max(width, DRAWS * math.prod(likelihood.raw_shape)))
        ]
        if likelihood.spread is not None and len(chosen):
            factors[name] = _fitted(model, name, batch.index(chosen))
            likelihood.spread.fill_(factors[name])
    return factors


def _fitted(model: MultimodalVAE, name: str, rows: Batch) -> float:
    """The factor of one modality, hidden in all of these rows."""
    from scipy.optimize import minimize_scalar  # Not above: it takes a quarter of a second.

    likelihood = model.likelihoods[name]
    raw = model.decoder(name).network(model.posterior(_without(model, rows, name), DRAWS).sample())

    def loss(log_factor: float) -> float:
        assert likelihood.spread is not None
        likelihood.spread.fill_(math.exp(log_factor))
        # A row that is served several times has been seen once.
        return (log_factor / PRIOR) ** 2 / 2 - _score(likelihood, raw, rows.values[name], rows.cells.get(name)) / ROUNDS

    best = minimize_scalar(loss, bounds=BOUNDS, method="bounded", options={"xatol": 0.01})
    return math.exp(best.x)


def _without(model: MultimodalVAE, rows: Batch, name: str) -> Batch:
    """The rows with a random part of what they have besides a modality: one other at least, perhaps all others."""
    present = model.presence(rows)
    hidden = model.names.index(name)
    others = present.clone()
    others[hidden] = False
    # A part of all that a row has is, without the modality, anything from one of the others to all of them.
    part = random_part(present)
    part[hidden] = False
    alone = ~part.any(0)
    part = torch.where(alone, _one_of(others), part)
    return Batch(rows.values, dict(zip(model.names, part, strict=True)), rows.cells)


def _one_of(present: Tensor) -> Tensor:
    """One of the modalities present, at random, boolean, shape (M, B)."""
    place = torch.where(present, torch.rand(present.shape, device=present.device), -1.0).argmax(0)
    return torch.zeros_like(present).scatter(0, place[None], value=True)


def _score(likelihood: Likelihood, raw: Tensor, x: Tensor, cells: Tensor | None) -> float:
    """The sum of the predictive log-likelihoods of single cells, of raw numbers of shape (K, B, ...)."""
    distribution = likelihood(raw)
    elements = distribution.base_dist if isinstance(distribution, Independent) and likelihood.elementwise else distribution
    scores = (elements.log_prob(x).logsumexp(0) - math.log(len(raw))).double()
    return (scores if cells is None else scores[cells]).sum().item()
