"""Validation of a stage: its loss, and the predictive log-likelihood of hidden modalities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from nbridge.acceleration.distributed import World
from nbridge.common.randomness import reseed
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.inference.free import MOST_NUMBERS, MOST_ROWS, Marginal
from nbridge.inference.hidden import HiddenModalities, free_baseline, scored
from nbridge.models.base import MultimodalVAE, Stage
from nbridge.models.holes import partly
from nbridge.training.budgets import Budget
from nbridge.training.seeds import derive_seed
from nbridge.training.stage_rows import StageRows

MAX_ROWS = 1000
"""Largest number of validation rows per round."""
MAX_DRAWS, MIN_DRAWS = 16, 4
"""Largest and smallest number of samples of z per row; below the smallest, fewer rows are used instead."""
MAX_ROUNDS = 16
"""Largest number of times that a validation row is scored with other cells hidden."""
MIN_VALUES = 2**22
"""Number of values that validation may decode per round, even if the round is short."""


@dataclass(frozen=True)
class ValidationResult:
    """Means of the terms of the stage's loss, none without validation rows, and the score of hidden modalities, if computed.

    That score is their predictive log-likelihood relative to the free baseline, over all modalities and by modality.
    """

    terms: dict[str, float]
    hidden: float | None
    hidden_terms: dict[str, float]

    @property
    def loss(self) -> float | None:
        """The stage's loss; None without validation rows."""
        return sum(self.terms.values()) if self.terms else None

    @property
    def score(self) -> float | None:
        """The score that the best weights minimise; None without validation rows."""
        return self.loss if self.hidden is None else -self.hidden


class Validator:
    """Validates a stage on the same rows with the same noise each time, so that results differ by the weights alone.

    Rows are shared by the processes of the world; each gets bit-identical results.
    """

    def __init__(
        self, stage: Stage, rows: StageRows | None, hidden: HiddenModalities | None, seed: int, world: World, device: torch.device
    ) -> None:
        self.stage, self.rows, self.hidden, self.seed, self.world, self.device = stage, rows, hidden, seed, world, device

    @classmethod
    def of(
        cls, model: MultimodalVAE, stage: Stage, validation: Rows | None, free: Callable[[], Mapping[str, Marginal]], budget: Budget,
        batch_size: int, *, cache: bool, seed: int, world: World,
    ) -> Self:  # fmt: skip
        """The validator for a budget: the loss on all rows for epochs; the loss and hidden modalities on some rows for updates."""
        if validation is None:
            return cls(stage, None, None, seed, world, model.device)
        if budget.epochs is not None:
            return cls(stage, StageRows.of(stage, validation, cache=cache) or None, None, seed, world, model.device)
        some = evenly_spaced(validation, stage.rows(validation.presence()), MAX_ROWS)
        rows = StageRows.of(stage, some, cache=cache) if some is not None else None
        hidden_seed = derive_seed(seed, f"{stage.name}/hidden", 0)
        hidden = _hidden(model, validation, free, budget.round * batch_size, hidden_seed) if stage.serves else None
        return cls(stage, rows, hidden, seed, world, model.device)

    def __len__(self) -> int:
        return len(self.rows or ())

    @torch.no_grad()
    def __call__(self, names: tuple[str, ...]) -> ValidationResult:
        """Validates the current weights."""
        for module in self.stage.modules:
            module.eval()
        terms = self._terms(self.rows, names) if self.rows else {}
        figures = self._hidden(self.hidden) if self.hidden else {}
        return ValidationResult(terms, self.hidden.overall(figures) if self.hidden and figures else None, figures)

    def _terms(self, rows: StageRows, names: tuple[str, ...]) -> dict[str, float]:
        """The mean of every term; bit-identical for any number of processes, because each chunk has its own noise and entry."""
        losses = torch.zeros(rows.chunks, len(names), dtype=torch.float64, device=self.device)
        for number in range(self.world.rank, rows.chunks, self.world.size):
            # The same noise each time.
            reseed(derive_seed(self.seed, self.stage.name, -1, number))
            part = rows.chunk(number)
            terms = self.stage.loss(part.batch, rows.features_of(part), 1.0)
            # For complete rows a loss may have fewer terms.
            losses[number] = torch.stack([terms.get(name, losses.new_zeros(())) for name in names]) * len(part)
        return dict(zip(names, (self.world.total(losses).sum(0) / len(rows)).tolist(), strict=True))

    def _hidden(self, hidden: HiddenModalities) -> dict[str, float]:
        sums = torch.zeros(hidden.chunks, len(hidden.model.names), dtype=torch.float64, device=self.device)
        for number in range(self.world.rank, hidden.chunks, self.world.size):
            sums[number] = hidden.sums(number)
        return hidden.figures(self.world.total(sums).sum(0))


def fit_baseline(model: MultimodalVAE, train: Rows) -> dict[str, Marginal]:
    """The free baseline, fitted to as many training rows as its precision needs and memory allows."""
    width = sum(likelihood.numbers for likelihood in model.likelihoods.values())
    rows = evenly_spaced(train, _number_present(train) >= 1, min(MOST_ROWS, MOST_NUMBERS // width))
    return {} if rows is None else free_baseline(model, rows)


def _number_present(rows: Rows) -> Tensor:
    """The number of modalities of each row, shape (N,)."""
    return torch.stack(list(rows.presence().present.values())).sum(0)


def evenly_spaced(rows: Rows, mask: Tensor, most: int) -> Batch | None:
    """At most ``most`` evenly spaced rows of a mask, in memory; None if the mask is empty."""
    picked = mask.nonzero()[:, 0]
    number = min(max(1, most), len(picked))
    return rows.index(picked[torch.arange(number, device=picked.device) * len(picked) // number]) if number else None


def _hidden(
    model: MultimodalVAE, validation: Rows, free: Callable[[], Mapping[str, Marginal]], learned: int, seed: int
) -> HiddenModalities | None:
    """The score of hidden modalities, with numbers of rows and samples that are cheap compared with training for a round."""
    several = scored(model, validation)
    if not several.any():
        return None
    width = sum(math.prod(likelihood.raw_shape) for likelihood in model.likelihoods.values())
    # A flow solves a differential equation per sample, which costs several times as much as a training step.
    decoded = max(learned // 16, 512) if model.noise_width else max(learned // 4, MIN_VALUES // width)
    number = min(MAX_ROWS, int(several.sum()), decoded // MIN_DRAWS)
    rows = evenly_spaced(validation, several, number)
    assert rows is not None
    if partly(model):
        # Each time with other cells hidden: a tenth of a small table says little about any one of them.
        number *= (times := max(1, min(MAX_ROUNDS, min(MAX_ROWS, decoded // MIN_DRAWS) // number)))
        rows = rows.index(torch.arange(len(rows), device=rows.device).repeat(times))
    draws = min(MAX_DRAWS, max(MIN_DRAWS, decoded // number))
    return HiddenModalities(model, rows, free(), draws=draws, seed=seed)
