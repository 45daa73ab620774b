"""What training tells while it runs: a progress bar a stage in a terminal, plain lines elsewhere, nothing by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from nbridge.findings import Finding


@dataclass(frozen=True)
class EpochRecord:
    """One line of ``metrics.jsonl``.

    Arguments:
        stage: Name of the stage.
        epoch: Epochs of this stage done, from 1.
        loss: Mean over the epoch's training batches; the sum of ``terms``.
        terms: Its named terms.
        validation_loss: The same over the validation rows, in eval mode, with full KL weight; None without validation rows.
        validation_terms: Its named terms.
        learning_rate: At the end of the epoch.
        best: Whether these are the best weights of the stage so far.
        seconds: Time this epoch took.
        compile_seconds: How much of it was the stage's compilation; None where nothing was compiled.
    """

    stage: str
    epoch: int
    loss: float
    terms: Mapping[str, float]
    validation_loss: float | None
    validation_terms: Mapping[str, float]
    learning_rate: float
    best: bool
    seconds: float
    compile_seconds: float | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {name: value for name, value in asdict(self).items() if name != "compile_seconds" or value is not None}


class Reporter:
    """Hears what training does and says nothing. Inherit to listen."""

    def warn(self, finding: Finding) -> None:
        """Something of the rows is worth a warning."""

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, epochs: int, done: int) -> None:
        """A stage starts, or goes on after ``done`` epochs, with so many of the training rows and so many validation rows."""

    def end_epoch(self, record: EpochRecord) -> None:
        """An epoch is over."""

    def end_stage(self, stage: str, best_epoch: int, epochs: int) -> None:
        """A stage is over, after so many epochs, and its best weights are in the model."""

    def final(self, figures: Mapping[str, float]) -> None:
        """What the trained model reaches on rows that it has not seen, by name."""

    def close(self) -> None:
        """Nothing more will be told."""


class Reporters(Reporter):
    """Several that hear the same, one after the other."""

    def __init__(self, *reporters: Reporter) -> None:
        self.reporters = reporters

    def warn(self, finding: Finding) -> None:
        for reporter in self.reporters:
            reporter.warn(finding)

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, epochs: int, done: int) -> None:
        for reporter in self.reporters:
            reporter.begin_stage(stage, rows, total_rows, validation_rows, epochs, done)

    def end_epoch(self, record: EpochRecord) -> None:
        for reporter in self.reporters:
            reporter.end_epoch(record)

    def end_stage(self, stage: str, best_epoch: int, epochs: int) -> None:
        for reporter in self.reporters:
            reporter.end_stage(stage, best_epoch, epochs)

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
        self._epochs = 0

    def warn(self, finding: Finding) -> None:
        self.console.print(finding.line, highlight=False, soft_wrap=True)

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, epochs: int, done: int) -> None:
        self._epochs = epochs
        again = f", going on after epoch {done}" if done else ""
        of_all = "" if rows == total_rows else f" of {total_rows:,}"
        unchecked = "" if validation_rows else "; no validation row serves it, so the last weights are kept"
        self.console.print(f"stage {stage}: {rows:,}{of_all} rows, {epochs} epochs{again}{unchecked}", highlight=False, soft_wrap=True)
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = _BarAboveTerms(*columns, console=self.console)
            self._task = self._bar.add_task(stage, total=epochs, completed=done, terms="")
            self._bar.start()

    def end_epoch(self, record: EpochRecord) -> None:
        if record.compile_seconds is not None:
            self.console.print(f"stage {record.stage}: compiled in {record.compile_seconds:.0f} s", highlight=False)
        if self._bar is not None:
            self._bar.update(self._task, completed=record.epoch, terms=describe(record))
        elif record.epoch in (1, self._epochs) or record.epoch % max(1, self._epochs // 10) == 0:
            self.console.print(f"  {record.stage} {record.epoch}/{self._epochs}  {describe(record)}", highlight=False, soft_wrap=True)

    def end_stage(self, stage: str, best_epoch: int, epochs: int) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        early = "" if epochs == self._epochs else f", stopped early after epoch {epochs}"
        self.console.print(f"stage {stage}: done, weights of epoch {best_epoch} kept{early}", highlight=False)

    def close(self) -> None:
        """Puts the terminal back in order when training ends in the middle of a stage."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe(record: EpochRecord) -> str:
    """The loss, the validation loss and the terms in one short line."""
    validation = "" if record.validation_loss is None else f" (validation {record.validation_loss:.2f})"
    terms = "  ".join(f"{name} {value:.2f}" for name, value in record.terms.items())
    return f"loss {record.loss:.2f}{validation}  {terms}"
