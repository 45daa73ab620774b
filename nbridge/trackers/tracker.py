"""What all trackers do: each round once, however often a run is stopped; figures, pictures and the verdict at its end."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from nbridge.common.messages import clip
from nbridge.common.warnings import Finding, issue
from nbridge.errors import RunError
from nbridge.trackers.results import Results, results_of
from nbridge.training.callbacks import Callback, StageBegun
from nbridge.training.records import EpochRecord
from nbridge.training.state import read_records
from nbridge.training.tracked import Tracked, read_tracked, write_tracked


class Tracker(Callback):
    """A callback that writes metrics to a service or a store of its own.

    A run that resumes goes on in the same run of the tracker: rounds that it has are not written again, and those that it lacks are written
    from the metrics of the run folder. A tracker that fails while a model is trained is left out with one warning, and training goes on.

    Attributes:
        name: Its name for ``--log``.
        package: The package that it needs.
        extra: The extra of nbridge that installs it.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.tracked = Tracked()
        self._open = self._failed = False

    @classmethod
    def check(cls) -> None:
        """Checks that the package is installed, and that the service can be reached.

        Raises:
            RunError: when it is not, or can't, with what to do.
        """
        if find_spec(cls.package) is None:
            raise RunError(f'--log {cls.name} needs {cls.package}, which is not installed: pip install "nbridge[{cls.extra}]"')

    @abstractmethod
    def open(self, identifier: str | None) -> str | None:
        """Opens the tracker's own run, that of an identifier if there is one; returns its identifier, if it has any."""

    @abstractmethod
    def write(self, stage: str, update: int, scalars: Mapping[str, float]) -> None:
        """Writes the figures of a round, by name without the stage."""

    @abstractmethod
    def write_results(self, results: Results) -> None:
        """Writes figures, pictures and the verdict of a trained model."""

    @abstractmethod
    def finish(self) -> None:
        """Ends the tracker's own run."""

    def on_stage(self, begun: StageBegun) -> None:
        self._guarded(lambda: self._begin(begun))

    def on_validation(self, record: EpochRecord) -> None:
        self._guarded(lambda: self._validated(record))

    def on_end(self, run: Any) -> None:
        self._guarded(lambda: self._ended(run))

    def close(self) -> None:
        if self._open:
            self._open = False
            self._guarded(self.finish)

    def _begin(self, begun: StageBegun | None) -> None:
        """Opens the run, and writes the rounds that it lacks; rounds after a checkpoint are trained again to the same figures."""
        if not self._open:
            self.tracked = Tracked() if self.folder is None else read_tracked(self.folder, self.name)
            self.tracked.id = self.open(self.tracked.id)
            self._open = True
            if self.folder is not None:
                for record in read_records(self.folder):
                    self._record(record)
        if begun is not None and self.folder is None and not begun.done:
            self.tracked.logged.pop(begun.stage, None)
        self._keep()

    def _validated(self, record: EpochRecord) -> None:
        self._record(record)
        self._keep()

    def _ended(self, run: Any) -> None:
        self._begin(None)
        self.write_results(results_of(run))

    def _record(self, record: EpochRecord) -> None:
        if record.update > self.tracked.logged.get(record.stage, 0):
            self.write(record.stage, record.update, scalars(record))
            self.tracked.logged[record.stage] = record.update

    def _keep(self) -> None:
        """Remembers what the tracker has, unless it has no runs of its own, and writes all rounds whenever it is opened."""
        if self.folder is not None and self.tracked.id is not None:
            write_tracked(self.folder, self.name, self.tracked)

    def _guarded(self, call: Callable[[], None]) -> None:
        """Calls the tracker unless it has failed before: the metrics are in the run folder."""
        if self._failed:
            return
        try:
            call()
        except RunError:
            raise
        except Exception as error:
            self._failed = True
            reason = clip(" ".join(str(error).split()) or type(error).__name__, 200)
            issue(Finding("tracker", "", f"{self.name}: {reason}; nothing more is written there, and training goes on", {}))


def scalars(record: EpochRecord) -> dict[str, float]:
    """The figures of a round by name: losses, their terms, nats of hidden modalities over the free baseline, and the learning rate."""
    found = {"loss/train": record.loss, "learning_rate": record.learning_rate}
    found |= {f"{name}/train": value for name, value in record.terms.items()}
    if record.validation_loss is not None:
        found["loss/validation"] = record.validation_loss
        found |= {f"{name}/validation": value for name, value in record.validation_terms.items()}
    if record.hidden is not None:
        found["hidden/overall"] = record.hidden
        found |= {f"hidden/{name}": value for name, value in record.hidden_terms.items()}
    return found
