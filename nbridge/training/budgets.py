"""Training budgets of stages: epochs or updates from the spec, or updates derived from the number of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nbridge.spec.training import StageSpec

ROUNDS = 50
"""Number of rounds in a budget of updates; the trainer validates after each, that is, every 2 % of the budget."""
PATIENCE = 10
"""Default patience with a budget of updates, in rounds: 20 % of the budget."""
DECAY = 0.1
"""Share of the rounds over which the learning rate falls to 0 at the end of the schedule ``decay``."""


@dataclass(frozen=True)
class AutomaticBudget:
    """An automatic budget: a number of epochs, bounded in updates."""

    epochs: int
    least: int
    most: int

    def updates(self, steps: int) -> int:
        """The number of updates of a stage with ``steps`` updates per epoch."""
        return min(self.most, max(self.least, self.epochs * steps))


AUTOMATIC_BUDGETS: Mapping[str, AutomaticBudget] = {"joint": AutomaticBudget(60, 1500, 10_000)}
"""Automatic budgets of stages by name."""
DEFAULT_BUDGET = AutomaticBudget(40, 1500, 6000)
"""The automatic budget of every other stage; bridges and inference networks learn from a frozen joint model."""


@dataclass(frozen=True)
class Budget:
    """The length of a stage and of its rounds.

    A *round* is the interval between validations: an epoch if the budget is in epochs, else 2 % of the updates.

    Arguments:
        updates: Updates of the whole stage.
        steps: Updates per epoch.
        epochs: Epochs of the whole stage if the spec gives epochs, else None.
        automatic: Whether the spec gives neither epochs nor updates.
    """

    updates: int
    steps: int
    epochs: int | None = None
    automatic: bool = False

    @property
    def round(self) -> int:
        """Updates per round; the last round may have fewer."""
        return self.steps if self.epochs is not None else math.ceil(self.updates / ROUNDS)

    @property
    def decay(self) -> int:
        """Updates over which the schedule ``decay`` falls to 0: whole rounds, at least one."""
        return max(1, round(DECAY * math.ceil(self.updates / self.round))) * self.round

    @property
    def unit(self) -> Literal["epoch", "update"]:
        """The unit of the budget."""
        return "update" if self.epochs is None else "epoch"

    @property
    def total(self) -> int:
        """The budget in its unit."""
        return self.updates if self.epochs is None else self.epochs

    def counted(self, updates: int) -> int:
        """Converts a number of updates to the unit of the budget."""
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
    """The budget of a stage. Its steps are updates per epoch."""
    if settings.epochs is not None:
        return Budget(settings.epochs * steps, steps, settings.epochs)
    if settings.updates is not None:
        return Budget(settings.updates, steps)
    return Budget(AUTOMATIC_BUDGETS.get(stage, DEFAULT_BUDGET).updates(steps), steps, automatic=True)


def patience_of(settings: StageSpec, budget: Budget) -> int | None:
    """The number of updates without improvement after which a stage stops; None for never."""
    rounds = settings.patience
    if rounds == "auto":
        rounds = None if budget.epochs is not None else PATIENCE
    return None if rounds is None else rounds * budget.round


def schedule_of(settings: StageSpec, budget: Budget) -> Literal["constant", "cosine", "decay"]:
    """The learning rate schedule of a stage."""
    if settings.schedule != "auto":
        return settings.schedule
    return "decay" if budget.epochs is None else "constant"
