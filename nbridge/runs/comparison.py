"""Several models of one spec, over seeds, evaluated on the same rows.

A folder holds a run folder for each model and seed, ``MODEL/seed-K/``, with its ``evaluation.json``. What is there already is kept:
whatever interrupts a comparison, the same call goes on with it, within a training too.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from nbridge.acceleration.devices import pick_device
from nbridge.common.atomic_files import write_json, write_text, writing
from nbridge.common.messages import clip, listing
from nbridge.common.warnings import Finding
from nbridge.errors import DataError, NBridgeError, RunError, SpecError
from nbridge.evaluation.classifier_cache import ClassifierCache
from nbridge.evaluation.suite import Evaluation, OptionError, Settings, check_served, evaluate, read_evaluation
from nbridge.runs.comparison_table import Comparison, Contestant, gathered, measured_of_none
from nbridge.runs.run import Run, open_run, resume, train
from nbridge.runs.shared_stage import begin_after_joint
from nbridge.spec.reader import read_spec
from nbridge.spec.registry import known, locate
from nbridge.spec.spec import Spec
from nbridge.training.budgets import Budget
from nbridge.training.build import build_model
from nbridge.training.checkpoint import CONFIG
from nbridge.training.progress import EpochRecord, Reporter
from nbridge.training.run_folder import CLASSIFIERS, METRICS, MODEL, RESOLVED, check_vacant, evaluation_path
from nbridge.version import __version__

Models = Sequence[str] | Mapping[str, Sequence[str]]
"""Names of models, or for each name of one's own the overrides of the spec that make it."""


class OutOfTime(KeyboardInterrupt):
    """The time that a comparison was given is over; the same call goes on with it."""


class _Clock(Reporter):
    """Forwards every callback, and ends a training between two rounds when time is up."""

    def __init__(self, reporter: Reporter, minutes: float | None) -> None:
        self.reporter = reporter
        self.minutes = minutes
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.begun = False
        self.told: set[str] = set()

    def begin(self) -> None:
        """Before a training or an evaluation: raises OutOfTime when time is over, but never before the first, so that each call gets on."""
        if self.begun:
            self.check()
        self.begun = True

    def check(self) -> None:
        """Raises OutOfTime when time is over."""
        if time.monotonic() > self.end:
            raise OutOfTime(f"stopped after {self.minutes:g} minutes; the same command goes on")

    def warn(self, finding: Finding) -> None:
        # All models have the same rows: what is worth a warning of them is told once.
        if finding.text not in self.told:
            self.told.add(finding.text)
            self.reporter.warn(finding)

    def begin_stage(self, stage: str, rows: int, total_rows: int, validation_rows: int, budget: Budget, done: int) -> None:
        self.reporter.begin_stage(stage, rows, total_rows, validation_rows, budget, done)

    def end_epoch(self, record: EpochRecord) -> None:
        self.reporter.end_epoch(record)
        self.check()

    def end_stage(self, stage: str, best: int, done: int) -> None:
        self.reporter.end_stage(stage, best, done)


def compare(
    spec: str | os.PathLike[str],
    models: Models,
    out: str | os.PathLike[str],
    *,
    seeds: int = 3,
    settings: Settings | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    minutes: float | None = None,
    announce: Callable[[str], None] = lambda _: None,
    reporter: Reporter | None = None,
    measuring: Callable[[str, int, int], None] = lambda _title, _done, _of: None,
) -> Comparison:
    """Trains what is not trained yet, evaluates all models on the same rows, and writes one table as Markdown and JSON.

    Classifiers have the encoders of the spec itself, whatever a model changes, so that one jury judges all models.

    Arguments:
        spec: The path of a spec; its ``model`` is replaced.
        models: Names of models, or for each name of one's own the overrides of the spec that make it.
        out: The folder of the comparison.
        seeds: How many trainings of each model: ``training.seed`` 0, 1, ...
        settings: What to evaluate; a model that does not support some of it is left out there.
        overrides: Changes to the spec for all models, ``a.b=c`` each.
        device: ``auto``, ``cpu`` or ``cuda``.
        minutes: Time after which to stop; an epoch or an evaluation that has begun is ended first.
        announce: Hears of each training and evaluation before it starts.
        reporter: Hears of stages and epochs.
        measuring: Hears of the measurements of an evaluation, see `nbridge.Model.evaluate`.

    Raises:
        OutOfTime: when the time is over before the table is whole.
        OptionError: when models, seeds or settings cannot serve.
        SpecError: when a spec does not hold.
        DataError: when rows do not fit it, or cannot be evaluated as asked.
        RunError: when the folder holds runs of another spec.

    Example:
        A paper's own bridges beside the house's, over two seeds::

            nbridge.compare(
                "modality_specs/digits.yaml",
                {"bridged": ["model=bridged"], "bridged (paper)": ["model=bridged", "bridges.objective=paper"]},
                "runs/objectives",
                seeds=2,
            )
    """
    settings = settings or Settings()
    base, entries = _entries(spec, models, Path(out), seeds, overrides)
    _check(entries, settings)
    pick_device(device)
    clock = _Clock(reporter or Reporter(), minutes)
    classifiers = ClassifierCache(Path(out) / CLASSIFIERS)

    def measured(entry: _Entry) -> Evaluation:
        if found := _found(entry.folder, settings):
            return found
        run = _trained(entry, [other.folder for other in entries], device, announce, clock)
        clock.begin()
        announce(f"{entry.folder}: evaluating")
        evaluation = _evaluated(run, base, settings, classifiers, measuring)
        for finding in (one for one in evaluation.warnings if one.kind != "untested"):
            if finding.text not in clock.told:
                announce(f"{entry.folder}: {finding.line}")
        return evaluation

    done = _measure(entries, measured)
    _, first = done[0]
    comparison = Comparison(
        tuple(_contestant(name, list(runs)) for name, runs in groupby(done, key=lambda pair: pair[0].name)),
        seeds,
        settings,
        first.rows,
        first.of_rows,
        measured_of_none([evaluation for _, evaluation in done]),
    )
    table, figures = comparison_paths(Path(out), settings.split)
    with writing(figures):
        write_json(figures, comparison.as_dict())
        write_text(table, comparison.markdown())
    return comparison


def comparison_paths(folder: Path, split: str) -> tuple[Path, Path]:
    """The table and the figures that a comparison writes."""
    stem = "comparison" if split == "test" else f"comparison-{split}"
    return folder / f"{stem}.md", folder / f"{stem}.json"


# What is asked for


@dataclass(frozen=True)
class _Entry:
    """One training of one model."""

    name: str
    seed: int
    spec: Spec
    folder: Path


def _entries(path: str | os.PathLike[str], models: Models, out: Path, seeds: int, overrides: Sequence[str]) -> tuple[Spec, list[_Entry]]:
    """The spec that all share, and every training. All specs are read before any training, so that a mistake in the last costs nothing."""
    variants = _variants(models)
    if seeds < 1:
        raise OptionError(f"seeds {seeds}: expected 1 or more")
    base = read_spec(path, overrides)
    folders = _folders(variants)
    entries = []
    for name, changes in variants.items():
        with _blaming(f"models {name}"):
            spec = read_spec(path, [*overrides, *changes])
        for seed in range(seeds):
            training = spec.training.model_copy(update={"seed": seed})
            seeded = spec.model_copy(update={"training": training})
            entries.append(_Entry(name, seed, seeded, out / folders[name] / f"seed-{seed}"))
    return base, entries


def _variants(models: Models) -> dict[str, tuple[str, ...]]:
    """The overrides that make each model."""
    if isinstance(models, str):
        models = [models]
    if not models:
        raise OptionError(f"models: none is named. Known: {listing(known('models'))}")
    if isinstance(models, Mapping):
        return {name: (changes,) if isinstance(changes, str) else tuple(changes) for name, changes in models.items()}
    for index, name in enumerate(models):
        if name in models[:index]:
            raise OptionError(f"models {clip(name)}: named twice")
        try:
            locate("models", name)
        except SpecError as error:
            raise OptionError(f"models {clip(name)}: {error}") from error
    return {name: (f"model={name}",) for name in models}


def _folders(names: Sequence[str] | Mapping[str, object]) -> dict[str, str]:
    """A folder for each name, of letters that every file system takes."""
    folders: dict[str, str] = {}
    for name in names:
        folder = re.sub(r"[^\w.+-]+", "_", name).strip("._")
        if not folder or not name.isprintable() or len(folder) > 100:
            raise OptionError(f"models {clip(name)!r}: expected a name of a line with letters or digits, 100 characters at most")
        if folder.casefold() == CLASSIFIERS:
            raise OptionError(
                f"models {clip(name)!r}: the folder '{CLASSIFIERS}' is for the classifiers of all models; choose another name"
            )
        if twin := [other for other, taken in folders.items() if taken.casefold() == folder.casefold()]:
            raise OptionError(f"models {clip(name)!r}: would lie in the folder of {clip(twin[0])!r}, '{folder}'; choose another name")
        folders[name] = folder
    return folders


def _check(entries: Sequence[_Entry], settings: Settings) -> None:
    """Checks all that can be checked before any training."""
    settings.check(dict.fromkeys(name for entry in entries for name in entry.spec.modalities))
    built = []
    for entry in entries:
        if entry.seed == 0:
            with _blaming(f"models {entry.name}"), torch.device("meta"):
                built.append(build_model(entry.spec))
    check_served(built, settings)
    for entry in entries:
        _check_same(entry)


def _check_same(entry: _Entry) -> None:
    """Raises a RunError when a run of another spec lies in a folder."""
    if (entry.folder / RESOLVED).is_file():
        there, now = read_spec(entry.folder / RESOLVED).as_dict(), entry.spec.as_dict()
        if key := _difference(there, now):
            raise RunError(
                f"{entry.folder}: a run of another spec lies here, {key} differs; compare in another folder with --out, or remove this one"
            )


def _difference(one: Any, other: Any, path: str = "") -> str:
    """The first key whose value differs; nothing where all are alike."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return "" if one == other else path
    missing = object()
    keys = dict.fromkeys((*one, *other))
    return next(filter(None, (_difference(one.get(key, missing), other.get(key, missing), f"{path}.{key}".strip(".")) for key in keys)), "")


# Training and evaluation


def _measure(entries: Sequence[_Entry], measured: Callable[[_Entry], Evaluation]) -> list[tuple[_Entry, Evaluation]]:
    """Each entry with its evaluation, all of them on the same rows."""
    done: list[tuple[_Entry, Evaluation]] = []
    seen: dict[str, tuple[str, _Entry]] = {}
    for entry in entries:
        with _blaming(str(entry.folder)):
            evaluation = measured(entry)
        for name, fingerprint in evaluation.fingerprints.items():
            expected, other = seen.setdefault(name, (fingerprint, entry))
            if fingerprint != expected:
                raise RunError(
                    f"{entry.folder}: evaluated on other rows of {name} than {other.folder}; a comparison takes the same rows, "
                    "so keep the data of all models alike, and remove what was evaluated on older data"
                )
        done.append((entry, evaluation))
    return done


def _trained(entry: _Entry, others: Sequence[Path], device: str, announce: Callable[[str], None], clock: _Clock) -> Run:
    """The run, trained as far as it is not yet, on the device; what another has trained already in the same way is taken from there."""
    if (entry.folder / MODEL / CONFIG).is_file():
        return open_run(entry.folder, device=device)
    clock.begin()
    begun = (entry.folder / RESOLVED).is_file()
    if not begun:
        check_vacant(entry.folder, overwrite=False)
    other = None if begun else begin_after_joint(entry.folder, entry.spec, others, device)
    announce(f"{entry.folder}: training" + (f", stage joint as in {other}" if other else ""))
    if begun or other:
        run = resume(entry.folder, device=device, reporter=clock)
    else:
        run = train(entry.spec, out=entry.folder, device=device, reporter=clock)
    run.model.to(pick_device(device))
    return run


def _found(folder: Path, settings: Settings) -> Evaluation | None:
    """The evaluation of a trained run that was made just so."""
    found = read_evaluation(evaluation_path(folder, settings.split)) if (folder / MODEL / CONFIG).is_file() else None
    return found if found and (found.settings, found.version) == (settings, __version__) else None


def _evaluated(
    run: Run, base: Spec, settings: Settings, classifiers: ClassifierCache, measuring: Callable[[str, int, int], None]
) -> Evaluation:
    """A new evaluation, which is kept in the run folder."""
    assert run.folder is not None
    shapes = {name: modality.shape for name, modality in base.modalities.items()}
    alike = all(shapes.get(name) == modality.shape for name, modality in run.spec.modalities.items())
    jury = base if alike else run.spec
    evaluation = evaluate(run.model.network, jury, run.splits, settings, classifiers=classifiers, lenient=True, announce=measuring)
    path = evaluation_path(run.folder, settings.split)
    with writing(path):
        write_json(path, evaluation.as_dict())
    return evaluation


@contextmanager
def _blaming(where: str) -> Iterator[None]:
    """Puts the run that a mistake is in before it, unless it says so itself."""
    try:
        yield
    except OptionError:
        raise
    except SpecError as error:
        raise SpecError([f"{where}: {problem}" for problem in error.problems]) from error
    except NBridgeError as error:
        if where in str(error):
            raise
        kind = DataError if isinstance(error, DataError) else NBridgeError
        raise kind(f"{where}: {error}") from error


def _contestant(name: str, runs: Sequence[tuple[_Entry, Evaluation]]) -> Contestant:
    return gathered(name, [evaluation for _, evaluation in runs], [_seconds(entry.folder) for entry, _ in runs])


def _seconds(folder: Path) -> float:
    """The time that all epochs took, those before an interruption included; NaN where nothing tells it any more."""
    try:
        return sum(json.loads(line)["seconds"] for line in (folder / METRICS).read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, KeyError):
        return math.nan
