r"""Calibration by column, for modalities whose cells are imputed from their other cells.

As in `nbridge.inference.calibration`, but each column has its own factor. Validation rows are served with a random subset of the other
modalities, and in half of them, or if the modality is alone, with the cells of the modality except a fifth of its columns. Those that are
hidden are scored: all columns, or a fifth. The number of what is given counts the modality itself where cells of it are observed
(`nbridge.MultimodalVAE.given`).

Axes: G candidate factors, K samples, M modalities, B rows, W elements, C columns.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.inference.factors import FACTORS, NUMBER_PRIOR, PRIOR, best_factor, scores_by_factor
from nbridge.models.base import MultimodalVAE
from nbridge.models.holes import columns_of, observed_elements, random_holes, with_holes
from nbridge.models.subsets import random_subset_of_size

DRAWS, FEWEST = 16, 10
"""Number of samples of z per row, and minimum number of hidden cells of a column for a factor of its own."""
ROUNDS = 8
"""Number of times that each row is served, with other cells hidden."""
NUMBERS = 2**20
"""Limit on the values of all samples, to bound memory; further rows are not used."""


def fit_columns(model: MultimodalVAE, name: str, batch: Batch) -> Tensor | None:
    """The factors of a modality's elements, shape (M + 1, W), float64; None with fewer than `FEWEST` rows.

    Subsets, cells and z are sampled with torch's global generator.

    Arguments:
        model: A trained model, in eval mode.
        name: A modality.
        batch: Prepared validation rows in memory.
    """
    likelihood = model.likelihoods[name]
    usable = batch.present[name].nonzero()[:, 0]
    if len(usable) < FEWEST:
        return None
    chosen = usable.repeat(ROUNDS)
    most = max(FEWEST, NUMBERS // (DRAWS * math.prod(likelihood.raw_shape)))
    rows = batch.index(chosen[torch.randperm(len(chosen), device=chosen.device)][:most])
    served, hidden = _served(model, rows, name)
    numbers = model.given(name, served).cpu()
    raw = model.decoder_of(name, served).network(model.posterior(served, DRAWS).sample())
    scores = torch.where(hidden, scores_by_factor(likelihood, raw, rows.values[name]), 0.0).nan_to_num(nan=-math.inf).cpu()
    columns, hidden = columns_of(likelihood).cpu(), hidden.cpu()
    number = int(columns.max()) + 1
    # A column counts once: its elements are one class.
    by_column = torch.zeros(*scores.shape[:2], number, dtype=scores.dtype).index_add_(2, columns, scores)
    seen = torch.zeros(len(hidden), number).index_add_(1, columns, hidden.float()) > 0
    rounds = len(rows) / len(usable) if len(rows) > len(usable) else 1.0
    found = torch.stack(
        [_by_number(by_column[:, :, place], seen[:, place], numbers, len(model.names), rounds) for place in range(number)], 1
    )
    return found.index_select(1, columns).exp()


def _by_number(scores: Tensor, seen: Tensor, numbers: Tensor, modalities: int, rounds: float) -> Tensor:
    """The logs of a column's factors by number of what is given, shape (M + 1,), from scores of shape (G, B)."""
    found = torch.zeros(modalities + 1, dtype=torch.float64)
    if seen.sum() < FEWEST:
        return found
    overall = best_factor(scores.sum(1) / rounds - (FACTORS / PRIOR).square() / 2)
    found.fill_(overall)
    for number in range(1, modalities + 1):
        if (some := seen & (numbers == number)).any():
            found[number] = best_factor(scores[:, some].sum(1) / rounds - ((FACTORS - overall) / NUMBER_PRIOR).square() / 2)
    return found


def _served(model: MultimodalVAE, rows: Batch, name: str) -> tuple[Batch, Tensor]:
    """Rows to impute from, and the elements of the modality that are hidden in them, boolean, shape (B, W)."""
    present, place = model.presence(rows), model.names.index(name)
    others = present.clone()
    others[place] = False
    count = others.sum(0)
    own = (torch.rand(len(rows), device=rows.device) < 0.5) | (count == 0)
    # At least one other modality where the modality itself is hidden.
    least = (~own).long()
    numbers = (least + (torch.rand(len(rows), device=rows.device) * (count + 1 - least)).long()).minimum(count)
    parts = random_subset_of_size(others, numbers)
    parts[place] = own
    observed = observed_elements(rows, name)
    holes = random_holes(model.likelihoods[name], observed) & own[:, None]
    served = replace(rows, present=dict(zip(model.names, parts, strict=True)))
    return with_holes(served, {name: holes}), torch.where(own[:, None], holes, observed)
