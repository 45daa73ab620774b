"""Callbacks of training: what a progress bar, a tracker or code of yours is called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbridge.common.warnings import Finding
from nbridge.training.budgets import Budget
from nbridge.training.records import EpochRecord


class StopTraining(Exception):  # noqa: N818 (not an error)
    """Raised by a callback to end the current stage: its best weights are kept, and the next stage begins.

    From `Callback.on_update` it takes effect at the end of the round, with whose validation the weights are chosen.
    """


@dataclass(frozen=True)
class StageBegun:
    """A stage that begins or resumes.

    Arguments:
        stage: Its name.
        rows: The number of training rows that it can use.
        total_rows: The number of all training rows.
        validation_rows: The number of validation rows that it can use.
        budget: Its length.
        done: The number of updates that were made before.
    """

    stage: str
    rows: int
    total_rows: int
    validation_rows: int
    budget: Budget
    done: int = 0


@dataclass(frozen=True)
class StageEnded:
    """A stage that has ended; its best weights are in the model.

    Arguments:
        stage: Its name.
        best: The update of these weights.
        done: The number of updates that were made.
    """

    stage: str
    best: int
    done: int


class Callback:
    """Called during training; override what you need. Under torchrun, only the first process has callbacks.

    An exception ends training with a checkpoint of the last round, from which `nbridge.resume` continues; `StopTraining` ends a stage.

    Example:
        >>> class BelowOne(Callback):
        ...     def on_validation(self, record):
        ...         if record.validation_loss is not None and record.validation_loss < 1:
        ...             raise StopTraining
    """

    def on_warning(self, finding: Finding) -> None:
        """Called for a warning about the rows or the model; if no callback overrides it, warnings are issued as `NBridgeWarning`."""

    def on_stage(self, begun: StageBegun) -> None:
        """Called when a stage begins or resumes."""

    def on_update(self, stage: str, update: int) -> None:
        """Called after each update of the weights, with the number of updates of the stage so far; loop overhead only if overridden."""

    def on_validation(self, record: EpochRecord) -> None:
        """Called after each round, an epoch or 2 % of a budget in updates, with the losses of training and validation rows."""

    def on_stage_end(self, ended: StageEnded) -> None:
        """Called after a stage."""

    def on_end(self, run: Any) -> None:
        """Called last in `nbridge.train` and `nbridge.resume`, with the `Run`, once its model is saved; not by `nbridge.fit`."""

    def close(self) -> None:
        """Called when training has ended in whatever way, by who created the callback."""


class Callbacks(Callback):
    """Several callbacks, called in order."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks

    def on_warning(self, finding: Finding) -> None:
        for callback in self.callbacks:
            callback.on_warning(finding)

    def on_stage(self, begun: StageBegun) -> None:
        for callback in self.callbacks:
            callback.on_stage(begun)

    def on_update(self, stage: str, update: int) -> None:
        self._each(lambda callback: callback.on_update(stage, update))

    def on_validation(self, record: EpochRecord) -> None:
        self._each(lambda callback: callback.on_validation(record))

    def on_stage_end(self, ended: StageEnded) -> None:
        for callback in self.callbacks:
            callback.on_stage_end(ended)

    def on_end(self, run: Any) -> None:
        for callback in self.callbacks:
            callback.on_end(run)

    def close(self) -> None:
        for callback in self.callbacks:
            callback.close()

    def _each(self, call: Callable[[Callback], None]) -> None:
        """Calls all, also if one of them stops the stage."""
        stop: StopTraining | None = None
        for callback in self.callbacks:
            try:
                call(callback)
            except StopTraining as asked:
                stop = asked
        if stop is not None:
            raise stop

    def overrides(self, method: str) -> bool:
        """Whether any of the callbacks overrides a method."""
        return any(
            one.overrides(method) if isinstance(one, Callbacks) else getattr(type(one), method) is not getattr(Callback, method)
            for one in self.callbacks
        )
