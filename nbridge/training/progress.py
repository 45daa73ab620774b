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
    """The metrics of one round (an epoch, or 2 % of a budget in updates): a line of ``metrics.jsonl``.

    Arguments:
        stage: Name of the stage.
        epoch: Completed passes over the rows of the stage; an integer if rounds are epochs.
        update: Completed updates of the stage.
        loss: Mean loss over the training batches of the round; the sum of ``terms``.
        terms: Its named terms.
        validation_loss: Loss over the validation rows, in eval mode with full KL weight; None without validation rows.
        validation_terms: Its named terms.
        learning_rate: Learning rate at the end of the round.
        best: Whether these are the best weights of the stage so far.
        seconds: Duration of the round.
        compile_seconds: The part of it spent on compilation; None if nothing was compiled.
        hidden: Predictive log-likelihood, in nats, of randomly hidden modalities of validation rows relative to the free baseline
            (`nbridge.inference.hidden`), as a weighted mean over modalities; None if not computed.
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
        """The record as JSON values, without entries that were not computed."""
        left_out = [name for name in ("compile_seconds", "hidden") if getattr(self, name) is None]
        left_out += [] if self.hidden_terms else ["hidden_terms"]
        return {name: value for name, value in asdict(self).items() if name not in left_out}


class Reporter:
    """Training callbacks that do nothing; override some of them."""

    def warn(self, finding: Finding) -> None:
        """Called for a warning about the rows or the model."""

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, budget: Budget, done: int) -> None:
        """Called when a stage begins or resumes."""

    def end_epoch(self, record: EpochRecord) -> None:
        """Called after each round."""

    def end_stage(self, stage: str, best: int, done: int) -> None:
        """Called after a stage, when its best weights are in the model."""

    def final(self, figures: Mapping[str, float]) -> None:
        """Called with the final metrics of the trained model on held-out rows, by name."""

    def close(self) -> None:
        """Called last."""


class Reporters(Reporter):
    """Calls several reporters in order."""

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
    """A bar with the loss terms on separate lines, so that neither is cut in a narrow terminal."""

    def get_renderables(self) -> Iterator[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            yield Text(task.fields["terms"], style="dim")


class ConsoleReporter(Reporter):
    """A rich progress bar per stage with the loss terms; without a terminal, about ten plain lines per stage."""

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
        resumed = f", resuming after {budget.unit} {budget.counted(done):,}" if done else ""
        of_all = "" if rows == total_rows else f" of {total_rows:,}"
        unchecked = "" if validation_rows else "; no usable validation rows, so the last weights are kept"
        self.console.print(f"stage {stage}: {rows:,}{of_all} rows, {budget}{resumed}{unchecked}", highlight=False, soft_wrap=True)
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[place]}"), TextColumn("{task.fields[eta]}"))
            self._bar = _BarAboveTerms(*columns, console=self.console)
            self._task = self._bar.add_task(stage, total=budget.updates, completed=done, terms="", place=self._place(done), eta="")
            self._bar.start()

    def end_epoch(self, record: EpochRecord) -> None:
        if record.compile_seconds is not None:
            self.console.print(f"stage {record.stage}: compiled in {record.compile_seconds:.0f} s", highlight=False)
            # The estimate excludes the slow first round.
            self._begun, self._done = time.monotonic(), record.update
        self._rounds += 1
        place, eta = self._place(record.update), self._eta(record.update)
        if self._bar is not None:
            self._bar.update(self._task, completed=record.update, terms=format_record(record), place=place, eta=eta)
        elif self._is_printed(record.update):
            line = "  ".join(filter(None, (f"  {record.stage} {place}", format_record(record), eta)))
            self.console.print(line, highlight=False, soft_wrap=True)

    def end_stage(self, stage: str, best: int, done: int) -> None:
        self.close()
        unit, counted = self._budget.unit, self._budget.counted
        early = "" if done == self._budget.updates else f", stopped early after {unit} {counted(done):,}"
        self.console.print(f"stage {stage}: done, weights of {unit} {counted(best):,} kept{early}", highlight=False)

    def close(self) -> None:
        """Removes the bar, also if training ends in the middle of a stage."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _is_printed(self, update: int) -> bool:
        """Whether to print a plain line for a round: the first, the last, and about ten in all."""
        number, every = -(-update // self._budget.round), max(1, -(-self._budget.updates // self._budget.round) // 10)
        return self._rounds == 1 or update == self._budget.updates or number % every == 0

    def _place(self, update: int) -> str:
        unit = " updates" if self._budget.epochs is None else ""
        return f"{self._budget.counted(update):,}/{self._budget.total:,}{unit}"

    def _eta(self, update: int) -> str:
        """The estimated time for the rest of the budget; empty at its end."""
        if not self._done < update < self._budget.updates:
            return ""
        seconds = (time.monotonic() - self._begun) / (update - self._done) * (self._budget.updates - update)
        hours, minutes = divmod(round(seconds) // 60, 60)
        return f"ETA {hours}:{minutes:02}:{round(seconds) % 60:02}" if hours else f"ETA {minutes}:{round(seconds) % 60:02}"


def format_record(record: EpochRecord) -> str:
    """Formats the loss, the validation loss, the log-likelihood of hidden modalities and the terms as one line."""
    validation = "" if record.validation_loss is None else f" (validation {record.validation_loss:.2f})"
    hidden = "" if record.hidden is None else f"  hidden {record.hidden:+.2f} nats over marginals"
    terms = "  ".join(f"{name} {value:.2f}" for name, value in record.terms.items())
    return f"loss {record.loss:.2f}{validation}{hidden}  {terms}"
