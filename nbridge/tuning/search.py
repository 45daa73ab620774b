"""The search: trains trials of a study until its budget is spent, and writes what was found."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbridge.common.atomic_files import write_json, write_text, writing
from nbridge.common.warnings import Finding
from nbridge.errors import NBridgeError, RunError, exit_code
from nbridge.runs.run import Data
from nbridge.spec.overrides import apply
from nbridge.spec.reader import read_spec, spec_from_dict, write_spec
from nbridge.spec.spec import Spec
from nbridge.spec.yaml_positions import parse
from nbridge.tuning.best_spec import best_text
from nbridge.tuning.objective import Objective
from nbridge.tuning.outcome import Outcome, markdown, shown_changes
from nbridge.tuning.plot import write_plot
from nbridge.tuning.pruning import PRUNERS, Pruner, PruningCallback, pruner_of
from nbridge.tuning.space import space_of
from nbridge.tuning.study import Attempt, Study, check_installed, identity

if TYPE_CHECKING:
    from optuna.trial import Trial

BEST, TABLE, RESULT, PLOT = "best.yaml", "tune.md", "tune.json", "tune.png"
DEFAULT_TRIALS = 20
Tell = Callable[[Attempt, Outcome], None]


def tune(
    spec: Spec | Mapping[str, Any] | str | os.PathLike[str],
    data: Data | None = None,
    *,
    out: str | os.PathLike[str],
    trials: int | None = None,
    minutes: float | None = None,
    pruner: Pruner = "median",
    seed: int = 0,
    overrides: Sequence[str] = (),
    device: str = "auto",
    after_trial: Tell | None = None,
) -> Outcome:
    """Searches for options of a spec that better predict hidden modalities of validation rows, by training it again and again.

    The first trial is the spec as it stands. Any number of processes and machines that share the folder may make the same call; each trial
    is run by one of them. A call on the folder of an earlier one continues it. Test rows are not looked at.

    Arguments:
        spec: A spec, a mapping with its contents, or the path of a YAML file. Its section ``tune`` is the search space; if it has none, a
            default one is searched.
        data: Rows to use instead of the spec's source, as in `nbridge.train`.
        out: The folder of the study: ``study.journal``, ``best.yaml``, ``tune.md``, ``tune.json`` and ``tune.png``.
        trials: The number of trials of the study, over all processes; by default 20, or no limit with ``minutes``.
        minutes: The time after which this call begins no further trial.
        pruner: ``median``, ``hyperband`` or ``none``: which trials are stopped early.
        seed: Seed of the search; with one process, the same seed gives the same trials.
        overrides: Changes to a spec given by its path, ``a.b=c`` each.
        device: ``auto``, ``cpu`` or ``cuda``.
        after_trial: Called after each trial of this process, with the trial and the outcome so far.

    Raises:
        SpecError: if the spec is invalid.
        DataError: if rows do not match it, or there are no validation rows with two modalities.
        RunError: if Optuna is not installed, the folder has a study of another spec or other rows, or its journal is damaged.
    """
    check_installed()
    if pruner not in PRUNERS:
        raise RunError(f"pruner is {pruner!r}, expected {', '.join(PRUNERS)}")
    document, text = _read(spec, overrides)
    checked = Spec.model_validate(document)
    space = space_of(checked, document)
    objective = Objective(document, data, device)
    belongs = identity(checked.as_dict(), space, objective.fingerprint)
    study = Study(Path(out), space, belongs, seed=seed, pruner=pruner_of(pruner))
    most = DEFAULT_TRIALS if trials is None and minutes is None else trials
    end = None if minutes is None else time.monotonic() + 60 * minutes
    stopped = None
    try:
        while end is None or time.monotonic() < end:
            with study.next_trial(most) as trial:
                if trial is None:
                    break
                _run(study, objective, trial)
                number = trial.number
            outcome = Outcome(tuple(study.trials()), space)
            if after_trial is not None:
                after_trial(next(one for one in outcome.trials if one.number == number), outcome)
    except KeyboardInterrupt as stop:
        stopped = exit_code(stop)
    outcome = Outcome(tuple(study.trials()), space, stopped)
    _write(Path(out), outcome, text, overrides)
    return outcome


def _run(study: Study, objective: Objective, trial: Trial) -> None:
    """Trains and scores one trial, or takes the figures of an earlier one with the same values."""
    from optuna import TrialPruned

    if (same := study.earlier(trial)) is not None:
        study.done(trial, same.rows)
        return
    is_default = study.is_default(trial)
    callback = _Silent(trial, prunes=not is_default)
    try:
        study.done(trial, objective(study.space.changes(study.values(trial)), callback))
    except TrialPruned:
        study.pruned(trial)
    except NBridgeError as error:
        if is_default:
            study.pruned(trial, str(error).splitlines()[0])
            raise
        study.pruned(trial, str(error).splitlines()[0])
    except BaseException:
        study.interrupted(trial)
        raise


class _Silent(PruningCallback):
    """Warnings about rows are the same in each trial; `nbridge train` shows them."""

    def on_warning(self, finding: Finding) -> None:
        pass


def _read(spec: Spec | Mapping[str, Any] | str | os.PathLike[str], overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The spec as plain values, and its text as written."""
    if isinstance(spec, str | os.PathLike):
        read_spec(spec, overrides)
        text = Path(spec).read_bytes().decode("utf-8-sig")
        document = parse(text).value
        for one in overrides:
            apply(one, document)
        return document, text
    if overrides:
        raise NBridgeError("overrides apply only to a spec given by its path; change the mapping or the Spec instead")
    document = {**spec.as_dict(), "tune": spec.tune} if isinstance(spec, Spec) else dict(spec)
    return document, write_spec(spec_from_dict(document))


def _write(folder: Path, outcome: Outcome, text: str, overrides: Sequence[str]) -> None:
    """Writes the best spec, the table, the outcome as JSON and the plot."""
    heading = f"Written by nbridge tune. {outcome.text()}"
    if outcome.changes:
        heading += f"\nChanges: {shown_changes(outcome.changes)}"
    with writing(folder):
        if outcome.best is not None:
            write_text(folder / BEST, best_text(text, outcome.changes, overrides, heading))
        write_text(folder / TABLE, markdown(outcome))
        write_json(folder / RESULT, outcome.as_dict())
        if outcome.winner is not None:
            write_plot(folder / PLOT, outcome)
