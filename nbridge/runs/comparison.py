"""Comparison of several models of one spec, over seeds, evaluated on the same rows.

The comparison folder has a run folder for each model and seed, ``MODEL/seed-K/``, with its ``evaluation.json``. Existing results are kept,
so the same call resumes an interrupted comparison, even in the middle of a training run.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from nbridge.acceleration.devices import pick_device
from nbridge.common.atomic_files import write_json, write_text, writing
from nbridge.common.json_text import parse_json
from nbridge.common.messages import clip, listing
from nbridge.common.warnings import Finding, issue
from nbridge.errors import DataError, NBridgeError, RunError, SpecError
from nbridge.evaluation.classifier_cache import ClassifierCache
from nbridge.evaluation.suite import Evaluation, OptionError, Settings, check_supported, evaluate, read_evaluation
from nbridge.runs.comparison_table import Comparison, aggregate, skipped_by_all
from nbridge.runs.run import Run, open_run, resume, train
from nbridge.runs.shared_stage import begin_after_joint
from nbridge.spec.differences import differences
from nbridge.spec.reader import read_spec
from nbridge.spec.registry import known, locate
from nbridge.spec.spec import Spec
from nbridge.training.build import build_model
from nbridge.training.callbacks import Callback, Callbacks
from nbridge.training.checkpoint import CONFIG
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import CLASSIFIERS, METRICS, MODEL, RESOLVED, check_target, evaluation_path, read_resolved
from nbridge.version import __version__

Models = Sequence[str] | Mapping[str, Sequence[str]]
"""Names of models, or a mapping from your own names to overrides of the spec."""

MAX_SEEDS = 10_000
"""The greatest number of runs of one model; all are planned before the first one is trained."""


class TimeLimitReached(KeyboardInterrupt):
    """The time limit of a comparison is reached; the same call resumes it."""


class _TimeLimit(Callbacks):
    """Forwards callbacks, and stops training between two rounds when the time limit is reached."""

    def __init__(self, callbacks: Iterable[Callback], minutes: float | None) -> None:
        super().__init__(*callbacks)
        self.minutes = minutes
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.begun = False
        self.reported: set[str] = set()

    def begin(self) -> None:
        """Called before training or evaluation; like `check`, but never raises at first, so that each call makes progress."""
        if self.begun:
            self.check()
        self.begun = True

    def check(self) -> None:
        """Raises `TimeLimitReached` after the time limit."""
        if time.monotonic() > self.end:
            raise TimeLimitReached(f"stopped after {self.minutes:g} minutes; run the same command to continue")

    def on_warning(self, finding: Finding) -> None:
        # All models have the same rows, so each warning about them is reported once.
        if finding.text not in self.reported:
            self.reported.add(finding.text)
            super().on_warning(finding)
            if not super().overrides("on_warning"):
                issue(finding)

    def overrides(self, method: str) -> bool:
        return method == "on_warning" or super().overrides(method)

    def on_validation(self, record: EpochRecord) -> None:
        super().on_validation(record)
        self.check()


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
    callbacks: Iterable[Callback] = (),
    measuring: Callable[[str, int, int], None] = lambda _title, _done, _of: None,
) -> Comparison:
    """Trains the models that are not trained yet, evaluates all on the same rows, and writes a table as Markdown and JSON.

    Classifiers use the encoders of the base spec regardless of overrides, so that all models are judged by the same classifiers.

    Arguments:
        spec: The path of a spec; its ``model`` is replaced.
        models: Names of models, or a mapping from your own names to overrides of the spec.
        out: The folder of the comparison.
        seeds: The number of training runs per model, with ``training.seed`` 0, 1, ...
        settings: What to evaluate; a model is omitted from measurements that it does not support.
        overrides: Changes to the spec for all models, ``a.b=c`` each.
        device: ``auto``, ``cpu`` or ``cuda``.
        minutes: Time limit; the current round or evaluation is finished first.
        announce: Called with a message before each training and evaluation.
        callbacks: Called during each training, in order (`nbridge.Callback`).
        measuring: Progress callback of evaluation, see `nbridge.Model.evaluate`.

    Raises:
        OutOfTime: if the time limit is reached before the table is complete.
        OptionError: if models, seeds or settings are invalid.
        SpecError: if a spec is invalid.
        DataError: if rows do not match it, or cannot be evaluated as requested.
        RunError: if the folder contains runs of another spec.

    Example:
        The paper's bridges and nbridge's default, over two seeds::

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
    limit = _TimeLimit(callbacks, minutes)
    classifiers = ClassifierCache(Path(out) / CLASSIFIERS)

    def measured(entry: _Entry) -> Evaluation:
        if found := _stored_evaluation(entry.folder, settings):
            return found
        run = _train_or_open(entry, [other.folder for other in entries], device, announce, limit)
        limit.begin()
        announce(f"{entry.folder}: evaluating")
        evaluation = _evaluate(run, base, settings, classifiers, measuring)
        for finding in (one for one in evaluation.warnings if one.kind != "untested"):
            if finding.text not in limit.reported:
                announce(f"{entry.folder}: {finding.line}")
        return evaluation

    done = _measure(entries, measured)
    _, first = done[0]
    comparison = Comparison(
        tuple(
            aggregate(name, [evaluation for _, evaluation in runs], [_seconds(entry.folder) for entry, _ in runs])
            for name, group in groupby(done, key=lambda pair: pair[0].name)
            for runs in [list(group)]
        ),
        seeds, settings, first.rows, first.of_rows, skipped_by_all([evaluation for _, evaluation in done]),
    )  # fmt: skip
    table, figures = comparison_paths(Path(out), settings.split)
    with writing(figures):
        write_json(figures, comparison.as_dict())
        write_text(table, comparison.markdown())
    return comparison


def comparison_paths(folder: Path, split: str) -> tuple[Path, Path]:
    """The paths of the Markdown table and the JSON file of a comparison."""
    stem = "comparison" if split == "test" else f"comparison-{split}"
    return folder / f"{stem}.md", folder / f"{stem}.json"


# Configuration


@dataclass(frozen=True)
class _Entry:
    """A training run of one model with one seed."""

    name: str
    seed: int
    spec: Spec
    folder: Path


def _entries(path: str | os.PathLike[str], models: Models, out: Path, seeds: int, overrides: Sequence[str]) -> tuple[Spec, list[_Entry]]:
    """The base spec, and all training runs; all specs are read first, so that an error in the last one is found before training."""
    variants = _variants(models)
    if seeds < 1:
        raise OptionError(f"seeds {seeds}: expected 1 or more")
    if seeds > MAX_SEEDS:
        raise OptionError(f"seeds {seeds}: expected {MAX_SEEDS} or fewer")
    base = read_spec(path, overrides)
    folders = _folders(variants)
    entries = []
    for name, changes in variants.items():
        with _prefixed(f"models {name}"):
            spec = read_spec(path, [*overrides, *changes])
        for seed in range(seeds):
            training = spec.training.model_copy(update={"seed": seed})
            seeded = spec.model_copy(update={"training": training})
            entries.append(_Entry(name, seed, seeded, out / folders[name] / f"seed-{seed}"))
    return base, entries


def _variants(models: Models) -> dict[str, tuple[str, ...]]:
    """The overrides of each model."""
    if isinstance(models, str):
        models = [models]
    if not models:
        raise OptionError(f"models: none given. Known: {listing(known('models'))}")
    if isinstance(models, Mapping):
        return {name: (changes,) if isinstance(changes, str) else tuple(changes) for name, changes in models.items()}
    for index, name in enumerate(models):
        if name in models[:index]:
            raise OptionError(f"models {clip(name)}: given twice")
        try:
            locate("models", name)
        except SpecError as error:
            raise OptionError(f"models {clip(name)}: {error}") from error
    return {name: (f"model={name}",) for name in models}


def _folders(names: Sequence[str] | Mapping[str, object]) -> dict[str, str]:
    """A folder name for each model, with characters that are valid on every file system."""
    folders: dict[str, str] = {}
    for name in names:
        folder = re.sub(r"[^\w.+-]+", "_", name).strip("._")
        if not folder or not name.isprintable() or len(folder) > 100:
            raise OptionError(f"models {clip(name)!r}: expected a printable name with letters or digits, at most 100 characters")
        if folder.casefold() == CLASSIFIERS:
            raise OptionError(f"models {clip(name)!r}: the folder '{CLASSIFIERS}' is reserved for classifiers; choose another name")
        if twin := [other for other, taken in folders.items() if taken.casefold() == folder.casefold()]:
            raise OptionError(f"models {clip(name)!r}: has the same folder '{folder}' as {clip(twin[0])!r}; choose another name")
        folders[name] = folder
    return folders


def _check(entries: Sequence[_Entry], settings: Settings) -> None:
    """Checks everything that can be checked before training."""
    settings.check(dict.fromkeys(name for entry in entries for name in entry.spec.modalities))
    built = []
    for entry in entries:
        if entry.seed == 0:
            with _prefixed(f"models {entry.name}"), torch.device("meta"):
                built.append(build_model(entry.spec))
    check_supported(built, settings)
    for entry in entries:
        _check_same(entry)


def _check_same(entry: _Entry) -> None:
    """Raises a `RunError` if the folder contains a run of another spec."""
    if (entry.folder / RESOLVED).is_file():
        there, now = read_resolved(entry.folder).as_dict(), entry.spec.as_dict()
        if found := next(differences(there, now), None):
            raise RunError(
                f"{entry.folder}: contains a run of another spec ({found.key} differs); choose another folder with --out, or remove "
                "this one"
            )


# Training and evaluation


def _measure(entries: Sequence[_Entry], measured: Callable[[_Entry], Evaluation]) -> list[tuple[_Entry, Evaluation]]:
    """Evaluates each entry and checks that all use the same rows."""
    done: list[tuple[_Entry, Evaluation]] = []
    seen: dict[str, tuple[str, _Entry]] = {}
    for entry in entries:
        with _prefixed(str(entry.folder)):
            evaluation = measured(entry)
        for name, fingerprint in evaluation.fingerprints.items():
            expected, other = seen.setdefault(name, (fingerprint, entry))
            if fingerprint != expected:
                raise RunError(
                    f"{entry.folder}: evaluated on other rows of {name} than {other.folder}; use the same data for all models, "
                    "and remove runs evaluated on older data"
                )
        done.append((entry, evaluation))
    return done


def _train_or_open(entry: _Entry, others: Sequence[Path], device: str, announce: Callable[[str], None], limit: _TimeLimit) -> Run:
    """Opens a run on the device, after training or resuming it if needed; an identical stage ``joint`` of another run is reused."""
    if (entry.folder / MODEL / CONFIG).is_file():
        return open_run(entry.folder, device=device)
    limit.begin()
    begun = (entry.folder / RESOLVED).is_file()
    if not begun:
        check_target(entry.folder, overwrite=False)
    other = None if begun else begin_after_joint(entry.folder, entry.spec, others, device)
    announce(f"{entry.folder}: training" + (f", stage joint as in {other}" if other else ""))
    if begun or other:
        run = resume(entry.folder, device=device, callbacks=[limit])
    else:
        run = train(entry.spec, out=entry.folder, device=device, callbacks=[limit])
    run.model.to(pick_device(device))
    return run


def _stored_evaluation(folder: Path, settings: Settings) -> Evaluation | None:
    """The stored evaluation of a trained run, if it has the same settings and version."""
    found = read_evaluation(evaluation_path(folder, settings.split)) if (folder / MODEL / CONFIG).is_file() else None
    return found if found and (found.settings, found.version) == (settings, __version__) else None


def _evaluate(
    run: Run, base: Spec, settings: Settings, classifiers: ClassifierCache, measuring: Callable[[str, int, int], None]
) -> Evaluation:
    """Evaluates a run and stores the result in its folder."""
    assert run.folder is not None
    shapes = {name: modality.shape for name, modality in base.modalities.items()}
    alike = all(shapes.get(name) == modality.shape for name, modality in run.spec.modalities.items())
    # The base spec, so that all models share one set of classifiers.
    spec = base if alike else run.spec
    evaluation = evaluate(run.model.network, spec, run.splits, settings, classifiers=classifiers, lenient=True, announce=measuring)
    path = evaluation_path(run.folder, settings.split)
    with writing(path):
        write_json(path, evaluation.as_dict())
    return evaluation


@contextmanager
def _prefixed(where: str) -> Iterator[None]:
    """Prefixes the message of an error with the run it occurred in, unless it already names it."""
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


def _seconds(folder: Path) -> float:
    """The total time of all rounds, including those before an interruption; NaN if unknown."""
    try:
        return sum(parse_json(line)["seconds"] for line in (folder / METRICS).read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan
