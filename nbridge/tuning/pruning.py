"""Stops trials early that are worse than others were at the same point, by what the trainer reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nbridge.training.callbacks import Callback, StageBegun
from nbridge.training.records import EpochRecord

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.trial import Trial

Pruner = Literal["median", "hyperband", "none"]
PRUNERS: tuple[Pruner, ...] = ("median", "hyperband", "none")
ROUNDS = 50
"""Rounds of a budget in updates."""
UNPRUNED, WARMUP = 4, 10
"""The median prunes neither the first trials nor in the first rounds."""


def pruner_of(name: Pruner) -> BasePruner:
    """The pruner of a name."""
    from optuna import pruners

    if name == "none":
        return pruners.NopPruner()
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=WARMUP, max_resource=ROUNDS)
    return pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=WARMUP)


class PruningCallback(Callback):
    """Passes the log-likelihood of hidden modalities of each round to a trial.

    Only stages whose parts serve imputation report it, and only with a budget in updates; a trial without reports is never pruned.

    Arguments:
        trial: The trial.
        prunes: Whether it may be stopped; the spec as it stands is not.

    Raises:
        TrialPruned: in `on_validation`, to stop the training.
    """

    def __init__(self, trial: Trial, *, prunes: bool = True) -> None:
        self.trial, self.prunes, self.step, self.best = trial, prunes, 0, -float("inf")

    def on_stage(self, begun: StageBegun) -> None:  # noqa: ARG002
        self.best = -float("inf")

    def on_validation(self, record: EpochRecord) -> None:
        if record.hidden is None:
            return
        from optuna import TrialPruned

        self.step, self.best = self.step + 1, max(self.best, record.hidden)
        self.trial.report(self.best, self.step)
        if self.prunes and self.trial.should_prune():
            raise TrialPruned
