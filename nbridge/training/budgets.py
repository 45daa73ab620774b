"""How long a stage is trained: epochs or updates as the spec says, or a number of updates that follows from its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nbridge.spec.training import StageSpec

ROUNDS = 50
"""Rounds in a budget of updates: after each of them, 2 % of the budget, the trainer validates."""
PATIENCE = 10
"""Rounds without improvement after which a stage with a budget of updates stops, by default: 20 % of the budget."""
DECAY = 0.1
"""Share of the rounds over which the learning rate falls to 0 at the end of the schedule ``decay``."""


@dataclass(frozen=True)
class Automatic:
    """An automatic budget: a number of epochs, within bounds in updates.

    Arguments:
        epochs: Passes over the rows.
        least: Updates that even a stage of few rows gets.
        most: Updates that even a stage of many rows needs no more of.
    """

    epochs: int
    least: int
    most: int

    def updates(self, steps: int) -> int:
        """Updates of a stage whose epochs have this number of them."""
        return min(self.most, max(self.least, self.epochs * steps))


AUTOMATIC: Mapping[str, Automatic] = {"joint": Automatic(60, 1500, 10_000)}
"""Automatic budgets of stages by name."""
OTHERS = Automatic(40, 1500, 6000)
"""The automatic budget of every other stage: bridges and inference networks learn from features that no longer change."""


@dataclass(frozen=True)
class Budget:
    """Length of a stage and of its rounds.

    A *round* is what lies between two validations: an epoch where the budget is in epochs, else 2 % of the updates.

    Arguments:
        updates: Updates of the whole stage.
        steps: Updates of an epoch.
        epochs: Epochs of the whole stage, where the spec gives epochs; None elsewhere.
        automatic: Whether neither epochs nor updates are given.
    """

    updates: int
    steps: int
    epochs: int | None = None
    automatic: bool = False

    @property
    def round(self) -> int:
        """Updates of a round; the last one may have fewer."""
        return self.steps if self.epochs is not None else math.ceil(self.updates / ROUNDS)

    @property
    def decay(self) -> int:
        """Updates over which the schedule ``decay`` ends: whole rounds, one at least."""
        return max(1, round(DECAY * math.ceil(self.updates / self.round))) * self.round

    @property
    def unit(self) -> Literal["epoch", "update"]:
        """What the budget is counted in."""
        return "update" if self.epochs is None else "epoch"

    @property
    def total(self) -> int:
        """The budget in its unit."""
        return self.updates if self.epochs is None else self.epochs

    def counted(self, updates: int) -> int:
        """A number of updates in the budget's unit."""
        return updates if self.epochs is None else updates // self.steps

    def __str__(self) -> str:
        """The budget in words.

        Example:
            >>> str(Budget(600, 10, epochs=60)), str(Budget(1500, 10)), str(Budget(1500, 10, automatic=True))
            ('60 epochs', '1,500 updates (150 epochs)', 'up to 1,500 updates (150 epochs, automatic)')
        """
        if self.epochs is not None:
            return f"{self.epochs} epochs"
        passes = f"{self.updates / self.steps:,.3g} epochs"
        return f"up to {self.updates:,} updates ({passes}, automatic)" if self.automatic else f"{self.updates:,} updates ({passes})"


def budget_of(stage: str, settings: StageSpec, steps: int) -> Budget:
    """The budget of a stage.

    Arguments:
        stage: Its name.
        settings: Its settings.
        steps: Updates of an epoch.
    """
    if settings.epochs is not None:
        return Budget(settings.epochs * steps, steps, settings.epochs)
    if settings.updates is not None:
        return Budget(settings.updates, steps)
    return Budget(AUTOMATIC.get(stage, OTHERS).updates(steps), steps, automatic=True)


def patience_of(settings: StageSpec, budget: Budget) -> int | None:
    """Updates without improvement after which a stage stops; None where it never does."""
    rounds = settings.patience
    if rounds == "auto":
        rounds = None if budget.epochs is not None else PATIENCE
    return None if rounds is None else rounds * budget.round


def schedule_of(settings: StageSpec, budget: Budget) -> Literal["constant", "cosine", "decay"]:
    """The schedule of a stage's learning rate."""
    if settings.schedule != "auto":
        return settings.schedule
    return "decay" if budget.epochs is None else "constant"
