"""The metrics of a run where other tools look for them; all of it can be made again from the run's own, ``metrics.jsonl``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nbridge.progress import EpochRecord, Reporter
from nbridge.run_folder import TENSORBOARD
from nbridge.training_state import read_records

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "events.out.tfevents.*"
SECONDS = 10
"""How long figures may wait to be written."""


class TensorBoard(Reporter):
    """Writes losses, their terms and learning rates to ``tensorboard/`` in a run folder, a step an epoch of each stage.

    Tags are ``STAGE/loss/train``, ``STAGE/loss/validation``, ``STAGE/TERM/train`` and so on, ``STAGE/learning_rate``, and ``final/...`` for
    what the trained model reaches. When it begins, or goes on with a run, it writes what the metrics hold already, in the place of older
    events: no epoch is there twice, and none is missing, however the run was stopped.

    Arguments:
        folder: The run folder.

    Example:
        >>> import nbridge
        >>> def train(spec, rows):
        ...     return nbridge.train(spec, rows, out="runs/mine", reporter=TensorBoard("runs/mine"))
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._writer: SummaryWriter | None = None

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, epochs: int, done: int) -> None:  # noqa: ARG002
        self._open()

    def end_epoch(self, record: EpochRecord) -> None:
        writer = self._open()
        for tag, value in scalars(record).items():
            writer.add_scalar(tag, value, record.epoch)

    def final(self, figures: Mapping[str, float]) -> None:
        writer = self._open()
        for name, value in figures.items():
            writer.add_scalar(f"final/{name}", value, 0)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> SummaryWriter:
        """The writer; when it is first needed, the events of the epochs that the run has behind it are written anew."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            place = self.folder / TENSORBOARD
            for older in place.glob(EVENTS):
                older.unlink()
            self._writer = SummaryWriter(str(place), flush_secs=SECONDS)
            for record in read_records(self.folder):
                self.end_epoch(record)
        return self._writer


def scalars(record: EpochRecord) -> dict[str, float]:
    """The figures of an epoch, by tag."""
    figures = {"loss/train": record.loss, "learning_rate": record.learning_rate}
    if record.validation_loss is not None:
        figures["loss/validation"] = record.validation_loss
    for kind, terms in (("train", record.terms), ("validation", record.validation_terms)):
        figures |= {f"{name}/{kind}": value for name, value in terms.items()}
    return {f"{record.stage}/{tag}": value for tag, value in figures.items()}
