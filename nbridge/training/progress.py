"""Progress of training: a progress bar per stage in a terminal, plain lines elsewhere, nothing by default."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from nbridge.common.warnings import Finding
from nbridge.training.budgets import Budget
from nbridge.training.callbacks import Callback, StageBegun, StageEnded
from nbridge.training.records import EpochRecord


class _BarAboveTerms(Progress):
    """A bar with the loss terms on separate lines, so that neither is cut in a narrow terminal."""

    def get_renderables(self) -> Iterator[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            yield Text(task.fields["terms"], style="dim")


class ConsoleProgress(Callback):
    """A rich progress bar per stage with the loss terms; without a terminal, about ten plain lines per stage."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._budget = Budget(1, 1)
        self._begun, self._done, self._rounds = 0.0, 0, 0

    def on_warning(self, finding: Finding) -> None:
        self.console.print(finding.line, highlight=False, soft_wrap=True)

    def on_stage(self, begun: StageBegun) -> None:
        budget, done = begun.budget, begun.done
        self._budget, self._begun, self._done, self._rounds = budget, time.monotonic(), done, 0
        resumed = f", resuming after {budget.unit} {budget.counted(done):,}" if done else ""
        of_all = "" if begun.rows == begun.total_rows else f" of {begun.total_rows:,}"
        unchecked = "" if begun.validation_rows else "; no usable validation rows, so the last weights are kept"
        self.console.print(
            f"stage {begun.stage}: {begun.rows:,}{of_all} rows, {budget}{resumed}{unchecked}", highlight=False, soft_wrap=True
        )
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[place]}"), TextColumn("{task.fields[eta]}"))
            self._bar = _BarAboveTerms(*columns, console=self.console)
            self._task = self._bar.add_task(begun.stage, total=budget.updates, completed=done, terms="", place=self._place(done), eta="")
            self._bar.start()

    def on_validation(self, record: EpochRecord) -> None:
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

    def on_stage_end(self, ended: StageEnded) -> None:
        self.close()
        unit, counted = self._budget.unit, self._budget.counted
        early = "" if ended.done == self._budget.updates else f", stopped early after {unit} {counted(ended.done):,}"
        self.console.print(f"stage {ended.stage}: done, weights of {unit} {counted(ended.best):,} kept{early}", highlight=False)

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
