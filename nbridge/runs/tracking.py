"""Export of metrics to TensorBoard; everything can be recreated from the run's ``metrics.jsonl``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nbridge.training.budgets import Budget
from nbridge.training.progress import EpochRecord, Reporter
from nbridge.training.run_folder import TENSORBOARD
from nbridge.training.state import read_records

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "events.out.tfevents.*"
SECONDS = 10
"""Interval at which events are flushed."""


class TensorBoard(Reporter):
    """Writes losses, their terms and learning rates to ``tensorboard/`` in a run folder; steps are updates of each stage.

    Tags are ``STAGE/loss/train``, ``STAGE/loss/validation``, ``STAGE/TERM/train`` and so on, ``STAGE/hidden/overall`` and
    ``STAGE/hidden/MODALITY`` (nats of hidden modalities over the free baseline), ``STAGE/learning_rate``, and ``final/...`` for the trained
    model. When training begins or resumes, events are rewritten from the metrics of the run folder, so that no step is duplicated or
    missing.

    Example:
        >>> import nbridge
        >>> def train(spec, rows):
        ...     return nbridge.train(spec, rows, out="runs/mine", reporter=TensorBoard("runs/mine"))
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._writer: SummaryWriter | None = None

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, budget: Budget, done: int) -> None:  # noqa: ARG002
        self._open()

    def end_epoch(self, record: EpochRecord) -> None:
        writer = self._open()
        for tag, value in scalars(record).items():
            writer.add_scalar(tag, value, record.update)

    def final(self, figures: Mapping[str, float]) -> None:
        writer = self._open()
        for name, value in figures.items():
            writer.add_scalar(f"final/{name}", value, 0)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> SummaryWriter:
        """The writer; on first use, the events of past rounds are rewritten."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            folder = self.folder / TENSORBOARD
            for older in folder.glob(EVENTS):
                older.unlink()
            self._writer = SummaryWriter(str(folder), flush_secs=SECONDS)
            for record in read_records(self.folder):
                self.end_epoch(record)
        return self._writer


def scalars(record: EpochRecord) -> dict[str, float]:
    """The metrics of a round, by tag."""
    figures = {"loss/train": record.loss, "learning_rate": record.learning_rate}
    if record.validation_loss is not None:
        figures["loss/validation"] = record.validation_loss
    if record.hidden is not None:
        figures["hidden/overall"] = record.hidden
    figures |= {f"hidden/{name}": value for name, value in record.hidden_terms.items()}
    for kind, terms in (("train", record.terms), ("validation", record.validation_terms)):
        figures |= {f"{name}/{kind}": value for name, value in terms.items()}
    return {f"{record.stage}/{tag}": value for tag, value in figures.items()}
