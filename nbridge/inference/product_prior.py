r"""The prior in a product of posteriors: N(0, I), or a mixture fitted to the codes of training rows, whichever predicts better.

A product of Gaussians is one blob, however many digits go with the photograph that is given, and N(0, I) says that all of z is as likely as
any. With a mixture of many components in its place (`nbridge.nn.distributions.product_with_mixture`) each draw is from one component, near
codes that rows do have, and all hidden modalities are decoded from it. Nothing is trained for it.

It pays where modalities are images, and does harm where rows are few for the components. So it serves where hidden modalities of
validation rows are predicted better with it, beyond two standard errors, and none of them worse, beyond one; N(0, I) serves elsewhere.
"Better" is the objective of the exponents (`nbridge.inference.exponents`), with the contrast where the model has one. A mixture already
says what unimodal posteriors agree on; exponents that were fitted to the product with N(0, I) are tried as they are and smaller.

Axes: M modalities, B rows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.inference.exponents import contrast_weight, mean_of_hidden
from nbridge.inference.hidden import WORST, hidden_log_likelihood, random_parts, seeded
from nbridge.models.base import MultimodalVAE
from nbridge.models.joint import contrast_by_row

DRAWS, ITEMS = 32, 1024
"""Draws of z of each item, and items: rows with one random part each."""
CONTRASTED = 8
"""Draws of each item that are held against what is hidden of it."""
NUMBERS = 2**24
"""Numbers that decoders give for one candidate, at most."""
TEMPERS = (1.0, 0.7, 0.5, 0.35)
"""What exponents are multiplied by beside a mixture."""


def reset_prior(model: MultimodalVAE) -> None:
    """Lets N(0, I) serve again, in place."""
    if model.codes is not None:
        model.codes.reset()


def choose_prior(model: MultimodalVAE, train: Rows, validation: Rows | None, seed: int) -> bool:
    """Fits a mixture to the codes of training rows, and keeps it where it predicts hidden modalities of validation rows better.

    The model is trained, in eval mode and has its exponents; validation rows are prepared and were not seen by training.

    Returns:
        Whether the mixture serves.
    """
    reset_prior(model)
    codes = model.codes
    if codes is None:
        return False
    trial = None if validation is None else _Trial.of(model, validation, seed)
    if trial is None and not codes.always:
        return False
    normal = None if trial is None else trial.scores()
    codes.fit_rows(model.posterior, train, seed)
    if trial is None or normal is None:
        return codes.fitted
    fitted = None if model.exponents is None else model.exponents.clone()

    def temper(factor: float) -> None:
        if model.exponents is not None and fitted is not None:
            model.exponents.copy_(fitted * factor)

    scores: dict[float, Tensor] = {}
    for factor in TEMPERS if fitted is not None else (1.0,):
        temper(factor)
        scores[factor] = trial.scores()
    best = max(scores, key=lambda factor: float(scores[factor].sum()))
    if codes.always or _better(scores[best] - normal):
        temper(best)
        return codes.fitted
    reset_prior(model)
    temper(1.0)
    return False


def _better(gain: Tensor) -> bool:
    """Whether a gain in log-likelihood, shape (M, B), is one for all modalities together, and a loss for none of them."""
    errors = [(one.mean(), one.std() / math.sqrt(gain.shape[1])) for one in (gain.sum(0), *gain)]
    (mean, error), each = errors[0], errors[1:]
    return bool(mean > 2 * error) and all(bool(mean >= -error) for mean, error in each)


class _Trial:
    """Fixed rows with fixed parts hidden, repeated where rows are few."""

    def __init__(self, model: MultimodalVAE, batch: Batch, repeats: int, seed: int) -> None:
        self.model, self.rows, self.repeats, self.seed = model, len(batch), repeats, seed
        self.batch = batch.index(torch.arange(len(batch), device=batch.device).repeat(repeats))
        self.parts = random_parts(model, self.batch, torch.Generator().manual_seed(seed))
        self.hidden = model.presence(self.batch) & ~self.parts

    @classmethod
    def of(cls, model: MultimodalVAE, rows: Rows, seed: int) -> _Trial | None:
        """A trial on some of the rows with two modalities or more; None where fewer than two have them."""
        batch = rows.representative()
        several = (model.presence(batch).sum(0) >= 2).nonzero()[:, 0]
        if len(several) < 2:
            return None
        width = sum(math.prod(likelihood.raw_shape) for likelihood in model.likelihoods.values())
        items = max(2, min(ITEMS, NUMBERS // (DRAWS * width)))
        order = torch.randperm(len(several), generator=torch.Generator().manual_seed(seed))[:items]
        chosen = several[order.to(several.device)]
        return cls(model, batch.index(chosen), max(1, items // len(chosen)), seed)

    @torch.no_grad()
    def scores(self) -> Tensor:
        """The log-likelihood of what is hidden of each row, with the model's weights, shape (M, B), 0 where nothing is hidden.

        Beside a contrast, the row after the last says how well its draws distinguish each row from other rows, weighted as in training.
        """
        found = hidden_log_likelihood(self.model, self.batch, self.parts, DRAWS, torch.Generator().manual_seed(self.seed))
        scores = torch.zeros(self.hidden.shape, dtype=torch.float64, device=self.batch.device)
        for number, (name, weight) in enumerate(self.model.weights.items()):
            values = found[name].double().nan_to_num(WORST, WORST, WORST).clamp(min=WORST)
            scores[number, self.hidden[number]] = weight * values
        if weight := contrast_weight(self.model):
            scores = torch.cat([scores, -weight * self._contrast()[None]])
        return scores.view(-1, self.repeats, self.rows).mean(1)

    @cached_property
    def _hidden_means(self) -> Tensor:
        """What draws are held against, by repeat and row; neither exponents nor a mixture matter to it."""
        experts = self.model.experts(self.batch)
        assert experts is not None, "a model with a mixture multiplies experts"
        return mean_of_hidden(experts, self.hidden).view(self.repeats, self.rows, -1)

    def _contrast(self) -> Tensor:
        """InfoNCE of each item's draws and what is hidden of it, shape (B,); the negatives are other rows."""
        given = replace(self.batch, present=dict(zip(self.model.names, self.parts, strict=True)))
        with seeded(self.model, torch.Generator().manual_seed(self.seed)):
            z = self.model.posterior(given, CONTRASTED).rsample()
        alike = [self.model.alike(self.batch.slice(start, start + self.rows)) for start in range(0, len(self.batch), self.rows)]
        pairs = None if alike[0] is None else torch.stack([one for one in alike if one is not None])
        return contrast_by_row(z.view(len(z), *self._hidden_means.shape), self._hidden_means, alike=pairs).mean(0).flatten().double()
