r"""Predictive log-likelihood of hidden modalities: how well a model imputes, as a proper score.

Of each row a random nonempty part S of what it has is kept, and each hidden modality j is scored by

.. math:: \log p(x_j \mid x_S) \approx \log \frac{1}{K} \sum_k p(x_j \mid z_k), \qquad z_k \sim q(z \mid x_S)

Axes: K draws, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from nbridge.common import randomness
from nbridge.data.batch import Batch
from nbridge.inference.free import Marginal, fit_marginal
from nbridge.models.base import MultimodalVAE
from nbridge.models.subsets import random_part

NUMBERS = 2**22
"""Numbers decoded at a time, at most."""
WORST = -1e6
"""Log-likelihood of a row relative to the free baseline that an overflow counts as, so that a mean stays finite."""


def random_parts(model: MultimodalVAE, batch: Batch, generator: torch.Generator) -> Tensor:
    """A random nonempty part of what each row has, but not all of it: boolean, shape (M, B); empty for rows with fewer than two modalities.

    Arguments:
        model: Names the modalities and their order.
        batch: A prepared batch (`MultimodalVAE.prepare`).
        generator: Source of randomness.
    """
    present = model.presence(batch)
    with seeded(model, generator):
        return random_part(present) & (present.sum(0) >= 2)


def hidden_log_likelihood(model: MultimodalVAE, batch: Batch, parts: Tensor, draws: int, generator: torch.Generator) -> dict[str, Tensor]:
    r"""Predictive log-likelihood, in nats, of every hidden modality of every row.

    Gradients flow to the posterior where they are enabled (draws are reparameterised), so that parameters of the posterior can be fitted
    to it; wrap it in ``torch.no_grad()`` elsewhere. The model stays in the mode that it is in.

    Arguments:
        model: A model, in eval mode.
        batch: Rows with any pattern of presence.
        parts: The modalities S of each row that the model may see, boolean, shape (M, B); what else a row has is hidden.
        draws: The number K of draws of z for each row.
        generator: Source of randomness; the same state gives the same draws.

    Returns:
        By modality, the scores of the rows in which it is hidden (present, but not in S), in their order. Modalities that no row hides
        have an empty tensor.
    """
    batch = model.prepare(batch.to(model.device))
    present = model.presence(batch)
    hidden = present & ~parts
    widest = max(math.prod(likelihood.raw_shape) for likelihood in model.likelihoods.values())
    rows = max(1, NUMBERS // (draws * widest))
    scores: dict[str, list[Tensor]] = {name: [] for name in model.names}
    with seeded(model, generator):
        for start in range(0, len(batch), rows):
            part = batch.slice(start, start + rows)
            for name, values in _scores(model, part, parts[:, start : start + rows], hidden[:, start : start + rows], draws).items():
                scores[name].append(values)
    return {
        name: torch.cat(values) if values else torch.zeros(0, device=model.device, dtype=model.dtype) for name, values in scores.items()
    }


def _scores(model: MultimodalVAE, batch: Batch, parts: Tensor, hidden: Tensor, draws: int) -> dict[str, Tensor]:
    given = Batch(batch.values, dict(zip(model.names, parts, strict=True)), batch.cells)
    z = model.posterior(given, draws).rsample()
    scores = {}
    for name, mask in zip(model.names, hidden, strict=True):
        if len(rows := mask.nonzero()[:, 0]):
            cells = batch.cells[name].index_select(0, rows) if name in batch.cells else None
            each = model.decoder(name).log_prob(z.index_select(1, rows), batch.values[name].index_select(0, rows), cells)
            scores[name] = each.logsumexp(0) - math.log(draws)
    return scores


@contextmanager
def seeded(model: MultimodalVAE, generator: torch.Generator) -> Iterator[None]:
    """Lets posteriors draw with a seed that is the next number of a generator."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with randomness.own_draws(seed, redirect=randomness.draws_itself(model)):
        yield


class HiddenModalities:
    r"""The score of one model on fixed rows with fixed parts hidden, relative to the free baseline, to be asked for again and again.

    .. math:: \Delta_j = \frac{1}{|B_j|} \sum_{b \in B_j} \big( \log p(x_{bj} \mid x_{bS}) - \log p_\mathrm{free}(x_{bj}) \big), \qquad
        \Delta = \frac{\sum_j w_j \Delta_j}{\sum_j w_j}

    in nats, over the rows :math:`B_j` in which j is hidden, with the model's weights :math:`w_j` (1, where all of them are 0). 0 is as
    good as no model at all. Rows, parts and draws are the same at each call, so that two figures differ by the model's weights alone.

    Arguments:
        model: The model, whose tensors may change between calls.
        rows: Prepared validation rows in memory; those with fewer than two modalities do not count.
        free: The free baseline by modality (`free_baseline`).
        draws: The number K of draws of z for each row.
        seed: Seed of parts and draws.
        chunk: Rows at a time; each chunk has draws of its own, so that processes may share chunks.
    """

    def __init__(
        self, model: MultimodalVAE, rows: Batch, free: Mapping[str, Marginal], *, draws: int = 16, seed: int = 0, chunk: int = 256
    ) -> None:
        several = model.presence(rows).sum(0) >= 2
        self.model, self.rows, self.draws, self.seed, self.chunk = model, rows.index(several), draws, seed, chunk
        self.parts = random_parts(model, self.rows, torch.Generator().manual_seed(seed))
        self.hidden = model.presence(self.rows) & ~self.parts
        self.free = {
            name: free[name].log_prob(*_picked(self.rows, name, mask))
            for name, mask in zip(model.names, self.hidden, strict=True)
            if name in free
        }

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return math.ceil(len(self) / self.chunk)

    @torch.no_grad()
    def sums(self, number: int) -> Tensor:
        """Sums over one chunk's rows of the scores relative to the free baseline, by modality, shape (M,), in double precision."""
        start, stop = number * self.chunk, (number + 1) * self.chunk
        generator = torch.Generator().manual_seed((self.seed + number + 1) % 2**63)
        scores = hidden_log_likelihood(self.model, self.rows.slice(start, stop), self.parts[:, start:stop], self.draws, generator)
        sums = torch.zeros(len(self.model.names), dtype=torch.float64, device=self.model.device)
        for place, (name, mask) in enumerate(zip(self.model.names, self.hidden, strict=True)):
            if name in self.free and len(scores[name]):
                before = int(mask[:start].sum())
                free = self.free[name][before : before + len(scores[name])]
                sums[place] = (scores[name].double() - free).nan_to_num(WORST, WORST, WORST).clamp(min=WORST).sum()
        return sums

    def figures(self, sums: Tensor | None = None) -> dict[str, float]:
        """The mean by modality, of those that some row hides.

        Arguments:
            sums: Sums over all chunks, shape (M,), where several processes computed them; computed here when left out.
        """
        if sums is None:
            sums = torch.stack([self.sums(number) for number in range(self.chunks)]).sum(0)
        counts = self.hidden.sum(1).tolist()
        each = zip(self.model.names, sums.tolist(), counts, strict=True)
        return {name: total / count for name, total, count in each if count and name in self.free}

    def overall(self, figures: Mapping[str, float]) -> float:
        """One figure: the mean over modalities with the model's weights."""
        weights = {name: self.model.weights[name] for name in figures}
        if not any(weights.values()):
            weights = dict.fromkeys(figures, 1.0)
        return sum(weights[name] * value for name, value in figures.items()) / sum(weights.values())


def free_baseline(model: MultimodalVAE, rows: Batch) -> dict[str, Marginal]:
    """The free baseline of every modality that some row has.

    Arguments:
        model: The model, whose likelihoods say what values mean.
        rows: Prepared training rows in memory, with any pattern of presence.
    """
    found = {}
    for name, likelihood in model.likelihoods.items():
        if rows.present[name].any():
            found[name] = fit_marginal(likelihood, *_picked(rows, name, rows.present[name]))
    return found


def _picked(rows: Batch, name: str, mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Values and observed cells of one modality in some rows."""
    picked = mask.nonzero()[:, 0]
    return rows.values[name].index_select(0, picked), rows.cells[name].index_select(0, picked) if name in rows.cells else None
