r"""Predictive log-likelihood of hidden modalities, a proper score of imputation.

A random nonempty subset S of the observed modalities of each row is kept, and each hidden modality j is scored by

.. math:: \log p(x_j \mid x_S) \approx \log \frac{1}{K} \sum_k p(x_j \mid z_k), \qquad z_k \sim q(z \mid x_S)

Axes: K samples, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from nbridge.common import randomness
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.inference.free import Marginal, fit_marginal
from nbridge.models.base import MultimodalVAE
from nbridge.models.holes import observed_elements, partly, random_holes, with_holes
from nbridge.models.subsets import random_subset

NUMBERS = 2**22
"""Maximum number of values decoded at a time."""
WORST = -1e6
"""Lower bound on the log-likelihood of a row relative to the free baseline, so that means stay finite after an overflow."""


def random_parts(model: MultimodalVAE, batch: Batch, generator: torch.Generator) -> Tensor:
    """Samples a random nonempty proper subset of the observed modalities of each row, boolean, shape (M, B). The batch is prepared.

    Rows with fewer than two modalities get the empty set.
    """
    present = model.presence(batch)
    with seeded(model, generator):
        return random_subset(present) & (present.sum(0) >= 2)


def hidden_log_likelihood(
    model: MultimodalVAE, batch: Batch, parts: Tensor, draws: int, generator: torch.Generator, holes: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    r"""Computes the predictive log-likelihood, in nats, of every hidden modality, and of the hidden cells of others, of every row.

    If gradients are enabled, they flow to the posterior (samples are reparameterised), so that its parameters can be fitted; otherwise wrap
    the call in ``torch.no_grad()``. The mode of the model is not changed. The modalities S of each row that are given to the model are
    ``parts``, boolean, shape (M, B); ``draws`` is K. By modality, ``holes`` are elements that are hidden where it is given, boolean,
    shape (B, W). The same state of the generator gives the same samples.

    Returns:
        By modality, the scores of the rows in which it is hidden (present, but not in S) or has holes, in order; an empty tensor if there
        are none.
    """
    batch = model.prepare(batch.to(model.device))
    hidden = hidden_rows(model, batch, parts, holes or {})
    widest = max(math.prod(likelihood.raw_shape) for likelihood in model.likelihoods.values())
    rows = max(1, NUMBERS // (draws * widest))
    scores: dict[str, list[Tensor]] = {name: [] for name in model.names}
    with seeded(model, generator):
        for start in range(0, len(batch), rows):
            part = batch.slice(start, start + rows)
            own = {name: mask[start : start + rows] for name, mask in (holes or {}).items()}
            for name, values in _scores(model, part, parts[:, start : start + rows], hidden[:, start : start + rows], draws, own).items():
                scores[name].append(values)
    return {
        name: torch.cat(values) if values else torch.zeros(0, device=model.device, dtype=model.dtype) for name, values in scores.items()
    }


def hidden_rows(model: MultimodalVAE, batch: Batch, parts: Tensor, holes: Mapping[str, Tensor]) -> Tensor:
    """The rows in which each modality is hidden, or has hidden cells, boolean, shape (M, B)."""
    hidden = model.presence(batch) & ~parts
    for name, mask in holes.items():
        hidden[model.names.index(name)] |= mask.any(1)
    return hidden


def hidden_cells(model: MultimodalVAE, batch: Batch, parts: Tensor, holes: Mapping[str, Tensor], name: str) -> Tensor | None:
    r"""The cells of a modality to score, boolean, shape (B, ...): all observed ones where it is hidden, else its holes."""
    if name not in holes:
        return batch.cells.get(name)
    given = parts[model.names.index(name)][:, None]
    return torch.where(given, holes[name], observed_elements(batch, name))


def _scores(
    model: MultimodalVAE, batch: Batch, parts: Tensor, hidden: Tensor, draws: int, holes: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    given = with_holes(replace(batch, present=dict(zip(model.names, parts, strict=True))), holes)
    z = model.posterior(given, draws).rsample()
    scores = {}
    for name, mask in zip(model.names, hidden, strict=True):
        if len(rows := mask.nonzero()[:, 0]):
            cells = hidden_cells(model, batch, parts, holes, name)
            cells = None if cells is None else cells.index_select(0, rows)
            decoder = model.decoder_of(name, batch).index(rows)
            each = decoder.log_prob(z.index_select(1, rows), batch.values[name].index_select(0, rows), cells)
            scores[name] = each.logsumexp(0) - math.log(draws)
    return scores


@contextmanager
def seeded(model: MultimodalVAE, generator: torch.Generator) -> Iterator[None]:
    """Seeds the samples of posteriors with the next number of a generator."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with randomness.own_draws(seed, redirect=randomness.draws_itself(model)):
        yield


class HiddenModalities:
    r"""The score of a model relative to the free baseline, on fixed rows with fixed hidden modalities, for repeated evaluation.

    .. math:: \Delta_j = \frac{1}{|B_j|} \sum_{b \in B_j} \big( \log p(x_{bj} \mid x_{bS}) - \log p_\mathrm{free}(x_{bj}) \big), \qquad
        \Delta = \frac{\sum_j w_j \Delta_j}{\sum_j w_j}

    in nats, over the rows :math:`B_j` in which j is hidden, with the likelihood weights :math:`w_j` (1 if all of them are 0). A score of 0
    is no better than the free baseline. Rows, subsets and random numbers are the same in each call, so scores differ only because the
    model's parameters differ. Of modalities whose cells are imputed from their other cells (`nbridge.Likelihood.partly`), a fifth of the
    observed columns is hidden too, and scored where the modality is not hidden.

    Arguments:
        model: The model, whose parameters may change between calls.
        rows: Prepared validation rows in memory; those with fewer than two modalities are ignored, unless cells can be hidden in them.
        free: The free baseline by modality (`free_baseline`).
        draws: The number K of samples of z for each row.
        chunk: Rows per chunk; each chunk has its own seed, so that chunks can be distributed over processes.
    """

    def __init__(
        self, model: MultimodalVAE, rows: Batch, free: Mapping[str, Marginal], *, draws: int = 16, seed: int = 0, chunk: int = 256
    ) -> None:
        self.model, self.rows, self.draws, self.seed, self.chunk = model, rows.index(scored(model, rows)), draws, seed, chunk
        generator = torch.Generator().manual_seed(seed)
        self.parts = random_parts(model, self.rows, generator)
        self.holes = self._holes(generator) if partly(model) else {}
        self.hidden = hidden_rows(model, self.rows, self.parts, self.holes)
        self.free = {
            name: free[name].log_prob(*self._picked(name, mask))
            for name, mask in zip(model.names, self.hidden, strict=True)
            if name in free
        }

    def _holes(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Hidden cells of each modality that has some, where it is given; alone in its row, it is given."""
        present = self.model.presence(self.rows)
        self.parts |= present & (present.sum(0) == 1)
        holes = {}
        with seeded(self.model, generator):
            for name in partly(self.model):
                drawn = random_holes(self.model.likelihoods[name], observed_elements(self.rows, name))
                holes[name] = drawn & self.parts[self.model.names.index(name)][:, None]
        return holes

    def _picked(self, name: str, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values and scored cells of one modality in some rows."""
        picked = mask.nonzero()[:, 0]
        cells = hidden_cells(self.model, self.rows, self.parts, self.holes, name)
        return self.rows.values[name].index_select(0, picked), None if cells is None else cells.index_select(0, picked)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return math.ceil(len(self) / self.chunk)

    @torch.no_grad()
    def sums(self, number: int) -> Tensor:
        """Sums the scores relative to the free baseline over the rows of one chunk, by modality, shape (M,), float64."""
        start, stop = number * self.chunk, (number + 1) * self.chunk
        generator = torch.Generator().manual_seed((self.seed + number + 1) % 2**63)
        holes = {name: mask[start:stop] for name, mask in self.holes.items()}
        scores = hidden_log_likelihood(self.model, self.rows.slice(start, stop), self.parts[:, start:stop], self.draws, generator, holes)
        sums = torch.zeros(len(self.model.names), dtype=torch.float64, device=self.model.device)
        for place, (name, mask) in enumerate(zip(self.model.names, self.hidden, strict=True)):
            if name in self.free and len(scores[name]):
                before = int(mask[:start].sum())
                free = self.free[name][before : before + len(scores[name])]
                sums[place] = (scores[name].double() - free).nan_to_num(WORST, WORST, WORST).clamp(min=WORST).sum()
        return sums

    def figures(self, sums: Tensor | None = None) -> dict[str, float]:
        """The mean score of each modality that is hidden in some row. Sums over all chunks, shape (M,), may come from several processes."""
        if sums is None:
            sums = torch.stack([self.sums(number) for number in range(self.chunks)]).sum(0)
        counts = self.hidden.sum(1).tolist()
        each = zip(self.model.names, sums.tolist(), counts, strict=True)
        return {name: total / count for name, total, count in each if count and name in self.free}

    def overall(self, figures: Mapping[str, float]) -> float:
        """The overall score: the mean over modalities, with the model's likelihood weights."""
        weights = {name: self.model.weights[name] for name in figures}
        if not any(weights.values()):
            weights = dict.fromkeys(figures, 1.0)
        return sum(weights[name] * value for name, value in figures.items()) / sum(weights.values())


def scored(model: MultimodalVAE, rows: Rows) -> Tensor:
    """The rows of which something can be hidden, boolean, shape (N,): two modalities, or one with cells to hide.

    Arguments:
        model: The model.
        rows: Rows; of those on disk only the presence is read.
    """
    present = rows.presence().present
    several = torch.stack(list(present.values())).sum(0) >= 2
    return several | torch.stack([present[name] for name in partly(model) if name in present] or [torch.zeros_like(several)]).any(0)


def free_baseline(model: MultimodalVAE, rows: Batch) -> dict[str, Marginal]:
    """Fits the free baseline of every modality with observed rows. Rows are prepared training rows in memory."""
    found = {}
    for name, likelihood in model.likelihoods.items():
        if rows.present[name].any():
            found[name] = fit_marginal(likelihood, *_picked(rows, name, rows.present[name]))
    return found


def _picked(rows: Batch, name: str, mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Values and observed cells of one modality in some rows."""
    picked = mask.nonzero()[:, 0]
    return rows.values[name].index_select(0, picked), rows.cells[name].index_select(0, picked) if name in rows.cells else None
