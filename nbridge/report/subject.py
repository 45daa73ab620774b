"""What a report is about: what a run folder holds and, where training is over and rows are at hand, the model and rows it did not see.

A section that a run has nothing for raises `LeftOut`, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.data.rows import Rows
from nbridge.errors import DataError, NBridgeError, RunError
from nbridge.evaluation.results import SPLITS, Evaluation, read_evaluation
from nbridge.evaluation.verdict import Verdict, read_verdict
from nbridge.models.base import MultimodalVAE
from nbridge.runs.run import Run, open_run
from nbridge.spec.reader import read_spec
from nbridge.spec.registry import FROM_PYTHON
from nbridge.spec.spec import Spec
from nbridge.training.checkpoint import CONFIG, read_config
from nbridge.training.progress import EpochRecord
from nbridge.training.run_folder import ENVIRONMENT, MODEL, RESOLVED, SPEC, VERDICT, evaluation_path
from nbridge.training.state import read_records

MANY = 2000
"""Rows that cheap figures take, at most."""


class LeftOut(Exception):  # noqa: N818 (it is no mistake)
    """A section that this run has nothing for; the text is the reason, in a line."""


@dataclass(frozen=True)
class Served:
    """A trained model with rows that it has not seen.

    Arguments:
        model: The model.
        train: The rows it learned from.
        many: Rows that it did not learn from, `MANY` at most.
        few: The first of them, for figures that take many draws of each.
        split: Which rows they are, ``test`` or ``validation``.
        seed: Seed of all draws.
        findings: What `of_model` found of them; None where it has not been asked yet.
    """

    model: MultimodalVAE
    train: Rows
    many: Batch
    few: Batch
    split: str
    seed: int
    findings: tuple[Finding, ...] | None = None


@dataclass(frozen=True)
class Subject:
    """A run.

    Arguments:
        folder: Its folder.
        spec: Its spec.
        served: Its model and rows; a reason where they are not to be had.
        run: The run itself, where its training is over and its rows are at hand.
    """

    folder: Path
    spec: Spec
    served: Served | str
    run: Run | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict on the model: as the run folder has it, or else measured."""
        if self.run is not None:
            return self.run.verdict
        if self.over and (kept := read_verdict(self.folder / VERDICT)) is not None:
            return kept
        raise LeftOut(self.served if isinstance(self.served, str) else "its rows are not at hand")

    @property
    def model_and_rows(self) -> Served:
        """The model and rows, for a section that needs them."""
        if isinstance(self.served, str):
            raise LeftOut(self.served)
        return self.served

    @property
    def over(self) -> bool:
        """Whether training is over."""
        return (self.folder / MODEL / CONFIG).is_file()

    @cached_property
    def text(self) -> str:
        """The spec as written."""
        return _text(self.folder / SPEC)

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """What ``env.json`` holds; nothing where it is missing or damaged."""
        try:
            found = json.loads(_text(self.folder / ENVIRONMENT))
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
        """The patterns of presence that the model learned from."""
        try:
            return read_config(self.folder / MODEL)[1]
        except NBridgeError:
            return None

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """What ``nbridge evaluate`` measured, on test rows first."""
        found = (read_evaluation(evaluation_path(self.folder, split)) for split in SPLITS)
        return [evaluation for evaluation in found if evaluation is not None]


def read_subject(folder: Path, rows: int, seed: int) -> Subject:
    """A run as it lies on disk.

    Arguments:
        folder: The run folder.
        rows: Rows for figures that take many draws of each.
        seed: Seed of all draws.

    Raises:
        RunError: when there is no run folder.
        SpecError: when its spec is damaged.
    """
    if not (folder / RESOLVED).is_file():
        raise RunError(f"{folder}: no run folder here ({RESOLVED} is missing); nbridge train SPEC makes one")
    spec = read_spec(folder / RESOLVED)
    if spec.data.source.type in FROM_PYTHON:
        return Subject(folder, spec, "the rows of this run came from Python, where nbridge.report.page.write_report(run) shows them")
    try:
        run = open_run(folder, device="cpu")
    except (DataError, RunError) as error:
        return Subject(folder, spec, str(error))
    return subject_of(run, folder, rows, seed)


def subject_of(run: Run, folder: Path, rows: int, seed: int, findings: tuple[Finding, ...] | None = None) -> Subject:
    """A run whose model and rows are in memory.

    Arguments:
        run: The run.
        folder: Its folder.
        rows: Rows for figures that take many draws of each.
        seed: Seed of all draws.
        findings: What is known already of the model on these rows.
    """
    split, held = ("test", run.splits.test) if run.splits.test is not None else ("validation", run.splits.validation)
    if held is None:
        return Subject(folder, run.spec, "no test rows and no validation rows, and training's own would flatter the model", run)
    many = held.sample(max(MANY, rows))
    return Subject(folder, run.spec, Served(run.model.network, run.splits.train, many, many.slice(0, rows), split, seed, findings), run)


def _text(path: Path) -> str:
    """A text file, or nothing where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
