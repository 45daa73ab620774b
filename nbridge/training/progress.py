"""Progress of training: a progress bar per stage in a terminal, plain lines elsewhere, nothing by default."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from nbridge.common.warnings import Finding
from nbridge.training.budgets import Budget


@dataclass(frozen=True)
class EpochRecord:
    """One line of ``metrics.jsonl``: a round, which is an epoch, or 2 % of a budget in updates.

    Arguments:
        stage: Name of the stage.
        epoch: Passes over this stage's rows done; a whole number where rounds are epochs.
        update: Updates of this stage done.
        loss: Mean over the round's training batches; the sum of ``terms``.
        terms: Its named terms.
        validation_loss: The same over the validation rows, in eval mode, with full KL weight; None without validation rows.
        validation_terms: Its named terms.
        learning_rate: At the end of the round.
        best: Whether these are the best weights of the stage so far.
        seconds: Time this round took.
        compile_seconds: How much of it was the stage's compilation; None where nothing was compiled.
        hidden: Predictive log-likelihood, in nats, of randomly hidden modalities of validation rows relative to the free baseline
            (`nbridge.inference.hidden`): the mean over modalities with their weights; None where it was not computed.
        hidden_terms: The same by modality.
    """

    stage: str
    epoch: float
    update: int
    loss: float
    terms: Mapping[str, float]
    validation_loss: float | None
    validation_terms: Mapping[str, float]
    learning_rate: float
    best: bool
    seconds: float
    compile_seconds: float | None = None
    hidden: float | None = None
    hidden_terms: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        left_out = [name for name in ("compile_seconds", "hidden") if getattr(self, name) is None]
        left_out += [] if self.hidden_terms else ["hidden_terms"]
        return {name: value for name, value in asdict(self).items() if name not in left_out}


class Reporter:
    """Callbacks of training that do nothing. Inherit to implement some of them."""

    def warn(self, finding: Finding) -> None:
        """Something about the rows is worth a warning."""

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, budget: Budget, done: int) -> None:
        """A stage begins or resumes.

        Arguments:
            stage: Its name.
            rows: The number of training rows that it learns from.
            total_rows: The number of training rows.
            validation_rows: The number of validation rows.
            budget: Its length.
            done: Updates done before.
        """

    def end_epoch(self, record: EpochRecord) -> None:
        """A round is over."""

    def end_stage(self, stage: str, best: int, done: int) -> None:
        """A stage is over and its best weights are in the model.

        Arguments:
            stage: Its name.
            best: The update of the best weights.
            done: Updates done.
        """

    def final(self, figures: Mapping[str, float]) -> None:
        """What the trained model reaches on rows that it has not seen, by name."""

    def close(self) -> None:
        """Nothing more will be reported."""


class Reporters(Reporter):
    """Several reporters, informed one after the other."""

    def __init__(self, *reporters: Reporter) -> None:
        self.reporters = reporters

    def warn(self, finding: Finding) -> None:
        for reporter in self.reporters:
            reporter.warn(finding)

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, budget: Budget, done: int) -> None:
        for reporter in self.reporters:
            reporter.begin_stage(stage, rows, total_rows, validation_rows, budget, done)

    def end_epoch(self, record: EpochRecord) -> None:
        for reporter in self.reporters:
            reporter.end_epoch(record)

    def end_stage(self, stage: str, best: int, done: int) -> None:
        for reporter in self.reporters:
            reporter.end_stage(stage, best, done)

    def final(self, figures: Mapping[str, float]) -> None:
        for reporter in self.reporters:
            reporter.final(figures)

    def close(self) -> None:
        for reporter in self.reporters:
            reporter.close()


class _BarAboveTerms(Progress):
    """A bar with the loss terms on lines of their own, so that a narrow terminal cuts neither."""

    def get_renderables(self) -> Iterator[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            yield Text(task.fields["terms"], style="dim")


class ConsoleReporter(Reporter):
    """One rich progress bar a stage with the loss terms; about ten plain lines a stage without a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._budget = Budget(1, 1)
        self._begun, self._done, self._rounds = 0.0, 0, 0

    def warn(self, finding: Finding) -> None:
        self.console.print(finding.line, highlight=False, soft_wrap=True)

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, budget: Budget, done: int) -> None:
        self._budget, self._begun, self._done, self._rounds = budget, time.monotonic(), done, 0
        again = f", going on after {budget.unit} {budget.counted(done):,}" if done else ""
        of_all = "" if rows == total_rows else f" of {total_rows:,}"
        unchecked = "" if validation_rows else "; no validation row serves it, so the last weights are kept"
        self.console.print(f"stage {stage}: {rows:,}{of_all} rows, {budget}{again}{unchecked}", highlight=False, soft_wrap=True)
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[place]}"), TextColumn("{task.fields[eta]}"))
            self._bar = _BarAboveTerms(*columns, console=self.console)
            self._task = self._bar.add_task(stage, total=budget.updates, completed=done, terms="", place=self._place(done), eta="")
            self._bar.start()

    def end_epoch(self, record: EpochRecord) -> None:
        if record.compile_seconds is not None:
            self.console.print(f"stage {record.stage}: compiled in {record.compile_seconds:.0f} s", highlight=False)
            # What comes next is faster.
            self._begun, self._done = time.monotonic(), record.update
        self._rounds += 1
        place, eta = self._place(record.update), self._eta(record.update)
        if self._bar is not None:
            self._bar.update(self._task, completed=record.update, terms=describe(record), place=place, eta=eta)
        elif self._is_told(record.update):
            line = "  ".join(filter(None, (f"  {record.stage} {place}", describe(record), eta)))
            self.console.print(line, highlight=False, soft_wrap=True)

    def end_stage(self, stage: str, best: int, done: int) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        unit, counted = self._budget.unit, self._budget.counted
        early = "" if done == self._budget.updates else f", stopped early after {unit} {counted(done):,}"
        self.console.print(f"stage {stage}: done, weights of {unit} {counted(best):,} kept{early}", highlight=False)

    def close(self) -> None:
        """Puts the terminal back in order when training ends in the middle of a stage."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _is_told(self, update: int) -> bool:
        """Whether a round has a plain line: the first, the last, and about ten in all."""
        number, every = -(-update // self._budget.round), max(1, -(-self._budget.updates // self._budget.round) // 10)
        return self._rounds == 1 or update == self._budget.updates or number % every == 0

    def _place(self, update: int) -> str:
        unit = " updates" if self._budget.epochs is None else ""
        return f"{self._budget.counted(update):,}/{self._budget.total:,}{unit}"

    def _eta(self, update: int) -> str:
        """The time that the rest of the budget will take; nothing at its end."""
        if not self._done < update < self._budget.updates:
            return ""
        seconds = (time.monotonic() - self._begun) / (update - self._done) * (self._budget.updates - update)
        hours, minutes = divmod(round(seconds) // 60, 60)
        return f"ETA {hours}:{minutes:02}:{round(seconds) % 60:02}" if hours else f"ETA {minutes}:{round(seconds) % 60:02}"


def describe(record: EpochRecord) -> str:
    """The loss, the validation loss, the figure of hidden modalities and the terms in one short line."""
    validation = "" if record.validation_loss is None else f" (validation {record.validation_loss:.2f})"
    hidden = "" if record.hidden is None else f"  hidden {record.hidden:+.2f} nats over marginals"
    terms = "  ".join(f"{name} {value:.2f}" for name, value in record.terms.items())
    return f"loss {record.loss:.2f}{validation}{hidden}  {terms}"
