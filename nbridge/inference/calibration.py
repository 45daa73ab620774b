r"""Calibration: fits scale factors of each likelihood's spread to validation rows.

Spreads and probabilities are learned on training rows from :math:`q(z \mid x_M)` of complete rows. In imputation, rows are new and z is
inferred from a subset S of their modalities. Decoders then have larger errors than in training, and products of posteriors, or single
Gaussians, are narrower than the true posterior, so intervals are too narrow, by an amount that depends on how many modalities are given.
So after training, each modality j gets a factor of its likelihood's spread (a temperature, for classes) for each number k of other given
modalities. First, one factor for all k is the posterior mode given validation rows, with the predictive log-likelihood of single cells, a
proper score:

.. math:: f_j = \arg\max_f \Big( \sum_{b,\, c} \log \frac{1}{K} \sum_k p_f(x_{bjc} \mid z_{bk}) - \frac{(\log f)^2}{2 \tau^2} \Big),
    \qquad z_{bk} \sim q(z \mid x_{bS}), \qquad S \subset O \setminus \{j\}

with S a random subset, of random size, of the other modalities of a row, and prior :math:`\log f \sim \mathcal{N}(0, \tau^2)`: otherwise a
dozen labels, all predicted correctly, would make a model certain of everything. The factors by number are shrunk towards it:

.. math:: f_{jk} = \arg\max_f \Big( \sum_{b : |S_b| = k} \frac{1}{C_b} \sum_c \log \frac{1}{K} \sum_k p_f(x_{bjc} \mid z_{bk})
    - \frac{(\log f - \log f_j)^2}{2 \tau_k^2} \Big)

where a row counts once, for any number C of cells, since the errors of its cells are correlated; a number k with few rows keeps nearly the
overall factor. All modalities of a row are still decoded from the same z, so that imputed values match each other, and point estimates of
real values do not change. Only imputations, intervals, probabilities and their scores are scaled; the densities in the ELBO and in
importance sampling are those of the trained model, one model for all patterns. Test rows are not used.

References:
    | On Calibration of Modern Neural Networks (Guo, Pleiss, Sun & Weinberger, 2017), https://arxiv.org/abs/1706.04599
    | Simple and Effective VAE Training with Calibrated Decoders (Rybkin, Daniilidis & Levine, 2021), https://arxiv.org/abs/2006.13202

Axes: G candidate factors, K samples, M modalities, B rows.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.errors import DataError
from nbridge.inference.column_calibration import fit_columns
from nbridge.inference.factors import FACTORS, NUMBER_PRIOR, PRIOR, best_factor, scores_by_factor, summed
from nbridge.models.base import MultimodalVAE
from nbridge.models.conformal import DRAWS as CONFORMAL_DRAWS
from nbridge.models.conformal import Conformal, scores
from nbridge.models.subsets import random_subset_of_size

DRAWS, ROUNDS = 64, 8
"""Number of samples of z per row, and minimum number of random subsets per row."""
NUMBERS = 2**22
"""Limit on the values of all samples of a modality, and of all rows, to bound memory; further rows are not used."""
FEWEST, MANY = 10, 16
"""Minimum number of rows for a factor, and number of rows that are used regardless of memory."""
CONFORMAL_ROWS = 4096
"""Maximum number of rows that conformal intervals are fitted to, for each number of given modalities."""


def uncalibrate(model: MultimodalVAE) -> None:
    """Resets the spread of every modality to that of training."""
    for likelihood in model.likelihoods.values():
        if likelihood.spread is not None:
            likelihood.spread.fill_(1.0)
    if model.conformal is not None:
        model.conformal.reset()


@torch.no_grad()
def calibrate(model: MultimodalVAE, rows: Rows) -> dict[str, tuple[float, ...]]:
    """Sets the factors of each modality's spread, in place, from rows that were not used in training.

    Subsets and z are sampled with torch's global generator.

    Arguments:
        model: A trained model, in eval mode.
        rows: Prepared rows with any missingness pattern; only those with at least two modalities are used.

    Returns:
        The factors by number of other given modalities, the overall one first, for modalities that have a spread and at least `FEWEST` rows
        in which another modality is observed as well. All others keep 1. Modalities with a factor for each column
        (`nbridge.inference.column_calibration`) have the mean over columns here.
    """
    uncalibrate(model)
    batch = rows.representative()
    several, width = model.presence(batch).sum(0) >= 2, sum(likelihood.numbers for likelihood in model.likelihoods.values())
    factors: dict[str, tuple[float, ...]] = {}
    for name, likelihood in model.likelihoods.items():
        if likelihood.partly and likelihood.spread is not None:
            if (found := fit_columns(model, name, batch)) is not None:
                likelihood.spread.copy_(found)
                factors[name] = tuple(found.mean(1).tolist())
            continue
        usable = (several & batch.present[name]).nonzero()[:, 0]
        if likelihood.spread is None or not likelihood.takes_factor or len(usable) < FEWEST:
            continue
        chosen = usable.repeat(max(ROUNDS, len(model.names) - 1))
        most = max(MANY, NUMBERS // max(width, DRAWS * math.prod(likelihood.raw_shape)))
        chosen = chosen[torch.randperm(len(chosen), device=chosen.device)][:most]
        found = _fitted(model, name, batch.index(chosen), chosen)
        likelihood.spread.copy_(found)
        factors[name] = tuple(found.tolist())
    return factors


def _fitted(model: MultimodalVAE, name: str, rows: Batch, sources: Tensor) -> Tensor:
    """Fits the factors of one modality, shape (n,); repeated rows have the same source index."""
    likelihood, numbers = model.likelihoods[name], _numbers(model, rows, name)
    raw = model.decoder_of(name, rows).network(model.posterior(_served_from(model, rows, name, numbers), DRAWS).sample())
    score = summed(scores_by_factor(likelihood, raw, rows.values[name]), rows.cells.get(name)).cpu()
    size = math.prod(likelihood.shape) if likelihood.elementwise else 1
    cells = rows.cells[name].flatten(1).sum(1).clamp(min=1).cpu() if name in rows.cells else size
    numbers, sources = numbers.cpu(), sources.cpu()
    overall = best_factor(score.sum(1) * _once(sources) - (FACTORS / PRIOR).square() / 2)
    found = torch.full((len(model.names),), overall, dtype=torch.float64)
    for number in range(1, len(model.names)):
        some = numbers == number
        if some.any():
            objective = (score / cells)[:, some].sum(1) * _once(sources[some])
            found[number] = best_factor(objective - ((FACTORS - overall) / NUMBER_PRIOR).square() / 2)
    return found.exp()


def _once(sources: Tensor) -> float:
    """The weight of each repetition of a row, such that rows count once on average."""
    return len(sources.unique()) / len(sources)


def _numbers(model: MultimodalVAE, rows: Batch, name: str) -> Tensor:
    """Samples how many of its other modalities each row is imputed from, at least one, integers, shape (B,)."""
    others = model.given(name, rows)
    return (1 + (torch.rand(len(rows), device=rows.device) * others).long()).minimum(others)


def _served_from(model: MultimodalVAE, rows: Batch, name: str, numbers: Tensor) -> Batch:
    """The rows with only a given number of their other modalities, chosen at random."""
    others = model.presence(rows)
    others[model.names.index(name)] = False
    return replace(rows, present=dict(zip(model.names, random_subset_of_size(others, numbers), strict=True)))


def halves(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Splits validation rows into rows for fitting, and rows that are reserved for conformal intervals.

    Raises:
        DataError: if there are fewer than two rows.
    """
    if len(rows) < 2:
        raise DataError(f"training.conformal: needs at least two validation rows, got {len(rows)}; raise data.validation")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    first = torch.zeros(len(rows), dtype=torch.bool)
    first[order[: len(rows) // 2]] = True
    return rows.subset(first), rows.subset(~first)


@torch.no_grad()
def conform(model: MultimodalVAE, rows: Rows) -> None:
    """Fits the model's conformal intervals, in place, to rows that were not used in training or calibration.

    For each modality and number of other given modalities, each row is used once, with a random subset of that size.

    Arguments:
        model: A trained and calibrated model, in eval mode, with a `nbridge.models.conformal.Conformal`.
        rows: Prepared rows with any missingness pattern.
    """
    assert model.conformal is not None, "a model without conformal intervals"
    model.conformal.reset()
    batch = rows.representative()
    for name in model.conformal.names:
        for number in range(len(model.names)):
            usable = (batch.present[name] & (model.given(name, batch) >= number)).nonzero()[:, 0]
            usable = usable[torch.randperm(len(usable), device=usable.device)][:CONFORMAL_ROWS]
            if len(usable):
                _conform_one(model, model.conformal, name, number, batch.index(usable))


def _conform_one(model: MultimodalVAE, conformal: Conformal, name: str, number: int, rows: Batch) -> None:
    likelihood, found = model.likelihoods[name], []
    size = max(1, NUMBERS // (CONFORMAL_DRAWS * math.prod(likelihood.raw_shape)))
    for start in range(0, len(rows), size):
        part = rows.slice(start, start + size)
        numbers = torch.full((len(part),), number, device=part.device)
        z = model.posterior(_served_from(model, part, name, numbers), CONFORMAL_DRAWS).sample()
        # At the size at which a row without this modality is served.
        draws = model.decoder_of(name, part.hide(name)).served(z, numbers).sample()
        found.append(scores(likelihood, draws, part.values[name]).flatten(1))
    cells = rows.cells[name] if name in rows.cells else torch.ones_like(rows.values[name], dtype=torch.bool)
    conformal.fit(name, number, torch.cat(found), cells.flatten(1))
