r"""Candidate factors of a likelihood's spread, their predictive scores, and the best of them.

Axes: G candidate factors, K samples, B rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Independent

from nbridge.nn.likelihoods import Likelihood

FACTORS = torch.linspace(-2.0, 2.0, 17, dtype=torch.float64)
"""Logarithms of the candidate factors, which are refined by a parabola. Factors beyond them would indicate a wrong model."""
PRIOR, NUMBER_PRIOR = 0.5, 0.25
"""Prior standard deviations of the log of a modality's overall factor, and of its factors by number around it."""


def scores_by_factor(likelihood: Likelihood, raw: Tensor, x: Tensor) -> Tensor:
    r"""The predictive log-likelihood of single cells for all candidate factors, shape (G, B, \*shape), or (G, B), float64.

    Arguments:
        likelihood: A likelihood whose `forward` takes a factor.
        raw: Raw parameters, shape (K, B, \*raw_shape).
        x: Values in canonical form, shape (B, \*shape).
    """
    tried = []
    for log_factor in FACTORS.tolist():
        distribution = likelihood(raw, raw.new_tensor(math.exp(log_factor)))
        elements = distribution.base_dist if isinstance(distribution, Independent) and likelihood.elementwise else distribution
        tried.append((elements.log_prob(x).logsumexp(0) - math.log(len(raw))).double())
    return torch.stack(tried)


def summed(scores: Tensor, cells: Tensor | None) -> Tensor:
    """Scores of `scores_by_factor` summed over the observed cells of each row, shape (G, B)."""
    kept = scores if cells is None else torch.where(cells, scores, 0.0)
    return kept.flatten(2).sum(2) if kept.ndim > 2 else kept


def best_factor(objective: Tensor) -> float:
    """The log of the best factor: the vertex of the parabola through the best candidate and its neighbours; 0 if no score is finite."""
    objective = objective.nan_to_num(nan=-math.inf, neginf=-math.inf)
    place = int(objective.argmax())
    if not objective[place].isfinite():
        return 0.0
    if not 0 < place < len(FACTORS) - 1 or not objective[place - 1 : place + 2].isfinite().all():
        return FACTORS[place].item()
    left, top, right = objective[place - 1 : place + 2].tolist()
    curve = left - 2 * top + right
    step = 0.0 if curve == 0 else (left - right) / (2 * curve)
    return FACTORS[place].item() + step * (FACTORS[1] - FACTORS[0]).item()
