"""Validation of a stage: its own loss, and how well hidden modalities are predicted."""

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
from nbridge.inference.hidden import HiddenModalities, free_baseline
from nbridge.models.base import MultimodalVAE, Stage
from nbridge.training.budgets import Budget
from nbridge.training.seeds import seed_of
from nbridge.training.stage_rows import StageRows

ROWS = 1000
"""Validation rows of a round, at most."""
DRAWS, FEWEST_DRAWS = 16, 4
"""Draws of z for each row: the most, and the fewest before rows are left out instead."""
NUMBERS = 2**22
"""Numbers that a round may always decode for validation, however short it is."""


@dataclass(frozen=True)
class Validated:
    """What validation found.

    Arguments:
        terms: Mean of every term of the stage's loss; none without validation rows.
        hidden: Predictive log-likelihood of hidden modalities relative to the free baseline, as one figure; None where nothing is hidden.
        hidden_terms: The same by modality.
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
        """What the best weights have least of; None without validation rows."""
        return self.loss if self.hidden is None else -self.hidden


class Validator:
    """Validates a stage on the same rows with the same noise each time, so that two figures differ by weights alone.

    Arguments:
        stage: The stage.
        rows: Validation rows of the stage; none where there are none.
        hidden: The score of hidden modalities, where it counts.
        seed: Seed of the training.
        world: The processes that share the rows; each gets the same figures, bit for bit.
        device: Where losses are computed.
    """

    def __init__(
        self, stage: Stage, rows: StageRows | None, hidden: HiddenModalities | None, seed: int, world: World, device: torch.device
    ) -> None:
        self.stage, self.rows, self.hidden, self.seed, self.world, self.device = stage, rows, hidden, seed, world, device

    @classmethod
    def of(
        cls,
        model: MultimodalVAE,
        stage: Stage,
        validation: Rows | None,
        free: Callable[[], Mapping[str, Marginal]],
        budget: Budget,
        batch_size: int,
        *,
        cache: bool,
        seed: int,
        world: World,
    ) -> Self:
        """The validation that a stage's budget asks for: all rows and the loss alone with epochs, some rows and both with updates.

        Arguments:
            model: The model.
            stage: The stage.
            validation: Prepared validation rows, or None.
            free: Gives the free baseline, when it is needed.
            budget: The stage's budget.
            batch_size: Rows of an update.
            cache: Whether frozen features are kept.
            seed: Seed of the training.
            world: The processes.
        """
        if validation is None:
            return cls(stage, None, None, seed, world, model.device)
        if budget.epochs is not None:
            return cls(stage, StageRows.of(stage, validation, cache=cache) or None, None, seed, world, model.device)
        some = some_of(validation, stage.rows(validation.presence()), ROWS)
        rows = StageRows.of(stage, some, cache=cache) if some is not None else None
        hidden = (
            _hidden(model, validation, free, budget.round * batch_size, seed_of(seed, f"{stage.name}/hidden", 0)) if stage.serves else None
        )
        return cls(stage, rows, hidden, seed, world, model.device)

    def __len__(self) -> int:
        return len(self.rows or ())

    @torch.no_grad()
    def __call__(self, names: tuple[str, ...]) -> Validated:
        """Validates the weights of this moment.

        Arguments:
            names: The terms of the stage's loss.
        """
        for module in self.stage.modules:
            module.eval()
        terms = self._terms(self.rows, names) if self.rows else {}
        figures = self._hidden(self.hidden) if self.hidden else {}
        return Validated(terms, self.hidden.overall(figures) if self.hidden and figures else None, figures)

    def _terms(self, rows: StageRows, names: tuple[str, ...]) -> dict[str, float]:
        """The mean of every term: the same bits whatever the number of processes, for each chunk has its own noise and its own place."""
        losses = torch.zeros(rows.chunks, len(names), dtype=torch.float64, device=self.device)
        for number in range(self.world.rank, rows.chunks, self.world.size):
            # The same noise each time.
            reseed(seed_of(self.seed, self.stage.name, -1, number))
            part = rows.chunk(number)
            terms = self.stage.loss(part.batch, rows.features_of(part), 1.0)
            # Of rows in which nothing is absent a loss may have fewer terms than of others.
            losses[number] = torch.stack([terms.get(name, losses.new_zeros(())) for name in names]) * len(part)
        return dict(zip(names, (self.world.total(losses).sum(0) / len(rows)).tolist(), strict=True))

    def _hidden(self, hidden: HiddenModalities) -> dict[str, float]:
        sums = torch.zeros(hidden.chunks, len(hidden.model.names), dtype=torch.float64, device=self.device)
        for number in range(self.world.rank, hidden.chunks, self.world.size):
            sums[number] = hidden.sums(number)
        return hidden.figures(self.world.total(sums).sum(0))


def baseline_of(model: MultimodalVAE, train: Rows) -> dict[str, Marginal]:
    """The free baseline, fitted to as many training rows as its precision needs and memory has room for."""
    width = sum(math.prod(likelihood.shape) for likelihood in model.likelihoods.values())
    rows = some_of(train, _number_present(train) >= 1, min(MOST_ROWS, MOST_NUMBERS // width))
    return {} if rows is None else free_baseline(model, rows)


def _number_present(rows: Rows) -> Tensor:
    """The number of modalities of each row, shape (N,)."""
    return torch.stack(list(rows.presence().present.values())).sum(0)


def some_of(rows: Rows, mask: Tensor, most: int) -> Batch | None:
    """Rows that a mask picks, at equal distances and at most so many, in memory; None where it picks none."""
    picked = mask.nonzero()[:, 0]
    number = min(max(1, most), len(picked))
    return rows.index(picked[torch.arange(number, device=picked.device) * len(picked) // number]) if number else None


def _hidden(
    model: MultimodalVAE, validation: Rows, free: Callable[[], Mapping[str, Marginal]], learned: int, seed: int
) -> HiddenModalities | None:
    """The score of hidden modalities with rows and draws that cost little beside the rows learned from in a round."""
    several = _number_present(validation) >= 2
    if not several.any():
        return None
    width = sum(math.prod(likelihood.raw_shape) for likelihood in model.likelihoods.values())
    # A flow integrates an equation for each draw, which costs several times what a step of its training does.
    decoded = max(learned // 16, 512) if model.noise_width else max(learned // 4, NUMBERS // width)
    number = min(ROWS, int(several.sum()), decoded // FEWEST_DRAWS)
    rows = some_of(validation, several, number)
    assert rows is not None
    draws = min(DRAWS, max(FEWEST_DRAWS, decoded // number))
    return HiddenModalities(model, rows, free(), draws=draws, seed=seed)
