"""The data of a report: the contents of a run folder and, if training is finished and the rows can be read, model and held-out rows.

A section with nothing to show raises `SectionSkipped` with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nbridge.common.json_text import parse_json
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.data.rows import Rows
from nbridge.errors import DataError, NBridgeError, RunError
from nbridge.evaluation.results import SPLITS, Evaluation, read_evaluation
from nbridge.evaluation.verdict import Verdict, read_verdict
from nbridge.models.base import MultimodalVAE
from nbridge.runs.run import Run, open_run
from nbridge.spec.registry import FROM_PYTHON
from nbridge.spec.spec import Spec
from nbridge.training.checkpoint import CONFIG, read_config
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import ENVIRONMENT, MODEL, RESOLVED, SPEC, VERDICT, evaluation_path, read_resolved
from nbridge.training.state import read_records

MANY = 2000
"""Maximum number of rows for charts that are cheap to compute."""


class SectionSkipped(Exception):  # noqa: N818 (not an error)
    """Raised by a section with nothing to show; the message is a one-line reason."""


@dataclass(frozen=True)
class ModelAndRows:
    """A trained model with held-out rows of the ``test`` or ``validation`` split.

    There are ``many`` for charts that are cheap to compute, and the first ``few`` of them for charts that take many draws per row.
    Findings, the result of `model_findings` on these rows, are None if not computed yet.
    """

    model: MultimodalVAE
    train: Rows
    many: Batch
    few: Batch
    split: str
    seed: int
    findings: tuple[Finding, ...] | None = None


@dataclass(frozen=True)
class RunData:
    """A run: its model and rows, or the reason why they are not available; ``run`` is None if it is unfinished or without rows."""

    folder: Path
    spec: Spec
    loaded: ModelAndRows | str
    run: Run | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict on the model, from the run folder or computed."""
        if self.run is not None:
            return self.run.verdict
        if self.finished and (kept := read_verdict(self.folder / VERDICT)) is not None:
            return kept
        raise SectionSkipped(self.loaded if isinstance(self.loaded, str) else "its rows are not available")

    @property
    def model_and_rows(self) -> ModelAndRows:
        """The model and rows; raises `SectionSkipped` if they are not available."""
        if isinstance(self.loaded, str):
            raise SectionSkipped(self.loaded)
        return self.loaded

    @property
    def finished(self) -> bool:
        """Whether training is finished."""
        return (self.folder / MODEL / CONFIG).is_file()

    @cached_property
    def text(self) -> str:
        """The text of the spec file."""
        return _text(self.folder / SPEC)

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """The contents of ``env.json``; empty if it is missing or damaged."""
        try:
            found = parse_json(_text(self.folder / ENVIRONMENT))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def epochs(self) -> Mapping[str, Sequence[EpochRecord]]:
        """The epochs of each stage, in order."""
        stages: dict[str, list[EpochRecord]] = {}
        for record in read_records(self.folder):
            stages.setdefault(record.stage, []).append(record)
        return stages

    @cached_property
    def patterns(self) -> Patterns | None:
        """The patterns of presence in the training rows."""
        try:
            return read_config(self.folder / MODEL)[1]
        except NBridgeError:
            return None

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """The results of ``nbridge evaluate``, test rows first."""
        found = (read_evaluation(evaluation_path(self.folder, split)) for split in SPLITS)
        return [evaluation for evaluation in found if evaluation is not None]


def read_run_data(folder: Path, rows: int, seed: int) -> RunData:
    """Reads a run from its folder. ``rows`` limits those of charts that take many draws per row.

    Raises:
        RunError: when there is no run folder.
        SpecError: when its spec is damaged.
    """
    if not (folder / RESOLVED).is_file():
        raise RunError(f"{folder}: no run folder here ({RESOLVED} is missing); start one with: nbridge train SPEC --out {folder}")
    spec = read_resolved(folder)
    if spec.data.source.type in FROM_PYTHON:
        return RunData(folder, spec, "the rows of this run came from Python; use nbridge.report.page.write_report(run) there")
    try:
        run = open_run(folder, device="cpu")
    except (DataError, RunError) as error:
        return RunData(folder, spec, str(error))
    return run_data_of(run, folder, rows, seed)


def run_data_of(run: Run, folder: Path, rows: int, seed: int, findings: tuple[Finding, ...] | None = None) -> RunData:
    """The data of a run whose model and rows are in memory."""
    split, held = ("test", run.splits.test) if run.splits.test is not None else ("validation", run.splits.validation)
    if held is None:
        return RunData(folder, run.spec, "no test rows and no validation rows, and training rows would flatter the model", run)
    many = held.sample(max(MANY, rows))
    return RunData(
        folder, run.spec, ModelAndRows(run.model.network, run.splits.train, many, many.slice(0, rows), split, seed, findings), run
    )


def _text(path: Path) -> str:
    """The contents of a text file; empty if it does not exist."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
