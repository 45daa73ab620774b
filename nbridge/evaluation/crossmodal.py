r"""Scores of modalities predicted from others.

The main score is the predictive log-likelihood, a proper score:

.. math:: \log p(x_j \mid x_S) \approx \log \frac{1}{K} \sum_k p(x_j \mid z_k), \qquad z_k \sim q(z \mid x_S)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.evaluation.calibration import observed_cells, on_scale
from nbridge.evaluation.rows import rows_with, rows_with_all
from nbridge.inference.impute import chunks, serving
from nbridge.models.base import MultimodalVAE
from nbridge.nn.mixed import Mixed
from nbridge.nn.text_likelihood import Text


@dataclass(frozen=True)
class Prediction:
    """One modality predicted from others.

    Arguments:
        log_likelihood: Mean predictive log-likelihood of a row, in nats.
        accuracy: Share of rows whose most probable class, or text but for blanks around it, is the true one; None for other targets.
        token_accuracy: Share of the places of texts, their ends included, with the true token; None unless the target is text.
            rmse: Root-mean-square error of the point estimate, per observed element, in the units of `on_scale`; None if the target is
            categorical, or mixed, whose columns have no common unit.
    """

    given: tuple[str, ...]
    target: str
    rows: int
    log_likelihood: float
    accuracy: float | None
    rmse: float | None
    token_accuracy: float | None = None

    @property
    def figures(self) -> dict[str, float]:
        """The scores that it has, by name."""
        found = {name: getattr(self, name) for name in ("log_likelihood", "accuracy", "rmse")}
        return {name: value for name, value in found.items() if value is not None}


def predict(model: MultimodalVAE, batch: Batch, given: Iterable[str], target: str, *, samples: int = 200, seed: int = 0) -> Prediction:
    """Predicts one modality from others and scores it, over the rows in which all of them are present.

    Rows must not be used in training. With nothing given, z comes from the prior.

    Raises:
        DataError: when the model lacks one of these modalities, or no row has all of them.
    """
    given = tuple(given)
    batch = rows_with_all(model, batch, (*given, target))
    with serving(model, seed):
        parts = [_scores(model, part, given, target, samples) for part in chunks(batch, samples * model.likelihoods[target].numbers)]
    log_likelihood, right, square, tokens = (torch.cat(scores).double().mean().item() for scores in zip(*parts, strict=True))
    likelihood = model.likelihoods[target]
    accuracy, rmse = (None, math.sqrt(square)) if likelihood.elementwise else (right, None)
    rmse = None if isinstance(likelihood, Mixed) else rmse
    return Prediction(given, target, len(batch), log_likelihood, accuracy, rmse, tokens if isinstance(likelihood, Text) else None)


def predict_each(model: MultimodalVAE, batch: Batch, *, samples: int = 200, seed: int = 0) -> list[Prediction]:
    """Predicts every modality from all others, over the complete rows; an empty list when there are none."""
    if not rows_with(batch, model.names).any():
        return []
    pairs = [(tuple(name for name in model.names if name != target), target) for target in model.names]
    return [predict(model, batch, given, target, samples=samples, seed=seed) for given, target in pairs]


def _scores(model: MultimodalVAE, batch: Batch, given: tuple[str, ...], target: str, samples: int) -> tuple[Tensor, ...]:
    """Predictive log-likelihood, whether the point estimate is right, its mean squared error, and its share of true tokens, by row."""
    likelihood = model.likelihoods[target]
    batch = model.prepare(batch.to(model.device))
    rows = batch.only(*given)
    z, number = model.posterior(rows, samples).sample(), model.given(target, rows)
    x, raw = batch.values[target], model.decoder_of(target, batch).network(z)
    distribution = likelihood.served(raw, number)
    point = likelihood.estimate(distribution)
    # The target is present in all of these rows.
    predictive = torch.logsumexp(likelihood.served_log_prob(raw, x, batch.cells.get(target), number), 0) - math.log(samples)
    right = likelihood.matches(point, x)
    cells = observed_cells(batch, target).reshape(len(x), -1)
    error = (point - x).double()
    if likelihood.has_size:
        # Counts at the depth of a shallow row would all be rounded to 0.
        error = on_scale(likelihood, likelihood.expectation(distribution).mean(0)) - on_scale(likelihood, x)
    square = torch.where(cells, error.square().reshape(len(x), -1), 0.0).sum(1) / cells.sum(1)
    tokens = likelihood.right_tokens(point, x) if isinstance(likelihood, Text) else right
    return predictive.cpu(), right.float().cpu(), square.cpu(), tokens.float().cpu()
