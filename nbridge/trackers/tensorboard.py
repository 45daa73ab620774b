"""Metrics, pictures and the verdict in TensorBoard's files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nbridge.data.images.decode import decoded
from nbridge.trackers.results import Results
from nbridge.trackers.tracker import Tracker
from nbridge.training.run_folder import TENSORBOARD

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "events.out.tfevents.*"
SECONDS = 10
"""Interval at which events are flushed."""


class TensorBoard(Tracker):
    """Writes losses, their terms, learning rates, pictures and the verdict to ``tensorboard/`` in a run folder.

    Tags are ``STAGE/loss/train``, ``STAGE/loss/validation``, ``STAGE/TERM/train`` and so on, ``STAGE/hidden/overall`` and
    ``STAGE/hidden/MODALITY`` (nats of hidden modalities over the free baseline), ``STAGE/learning_rate``, and ``final/...`` for the trained
    model; steps are updates of a stage. When training begins or resumes, events are rewritten from the metrics of the run folder.

    Arguments:
        folder: The run folder.

    Example:
        >>> import nbridge
        >>> def train(spec, rows):
        ...     return nbridge.train(spec, rows, out="runs/mine", callbacks=[TensorBoard("runs/mine")])
    """

    name = package = "tensorboard"
    extra = "tracking"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder)
        self._writer: SummaryWriter | None = None

    def open(self, identifier: str | None) -> str | None:  # noqa: ARG002 (events are rewritten)
        from torch.utils.tensorboard import SummaryWriter

        assert self.folder is not None
        folder = self.folder / TENSORBOARD
        for older in folder.glob(EVENTS):
            older.unlink()
        self._writer = SummaryWriter(str(folder), flush_secs=SECONDS)
        return None

    def write(self, stage: str, update: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._events.add_scalar(f"{stage}/{name}", value, update)

    def write_results(self, results: Results) -> None:
        for name, value in results.figures.items():
            self._events.add_scalar(f"final/{name}", value, 0)
        for name, picture in results.pictures.items():
            pixels = np.asarray(decoded(picture).convert("RGB"))
            self._events.add_image(f"final/{name}", pixels, 0, dataformats="HWC")
        self._events.add_text("verdict", results.verdict, 0)

    def finish(self) -> None:
        self._events.close()
        self._writer = None

    @property
    def _events(self) -> SummaryWriter:
        assert self._writer is not None, "a tracker is opened before it writes"
        return self._writer
