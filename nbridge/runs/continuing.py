"""Runs whose spec was edited since they began, and runs that are trained longer than their spec said."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbridge.common.messages import clip, listing
from nbridge.common.warnings import Finding, issue
from nbridge.errors import RunError
from nbridge.models.base import MultimodalVAE
from nbridge.spec.differences import ABSENT, Difference, differences
from nbridge.spec.reader import parse_spec
from nbridge.spec.registry import reading
from nbridge.spec.spec import Spec
from nbridge.spec.training import StageSpec
from nbridge.spec.yaml_positions import ParseError, parse
from nbridge.training.budgets import budget_of, patience_of, schedule_of
from nbridge.training.run_folder import CHECKPOINT, RESOLVED, SPEC, create, stage_end
from nbridge.training.state import cut_metrics, read_state, save_state
from nbridge.training.trainer import TrainingState

_LENGTH = re.compile(r"training\.(checkpoint_seconds|(stages\.[^.]+\.)?(updates|epochs|patience))")
"""The keys that may change when a run is trained longer."""
_BUDGET = ("epochs", "updates", "patience")
_NAMED = 3
"""The largest number of edited keys named in a message."""


def spec_of_run(folder: Path, spec: Spec, environment: Mapping[str, Any], *, finished: bool) -> tuple[Spec, tuple[Finding, ...]]:
    """The spec that a run goes on with, and a warning if a spec in its folder was edited.

    Options of the data may be edited, as rows are recognised by their values: they may have moved.

    Arguments:
        folder: The run folder.
        spec: Its resolved spec as it is now.
        environment: The contents of ``env.json``.
        finished: Whether training is over.

    Raises:
        RunError: if anything else was edited in a run that is not finished.
    """
    edited = {name: list(_edited(folder / name, text)) for name, text in _texts(environment).items()}
    texts = [f"{folder / name}: {_shown(found)}" for name, found in edited.items() if found]
    if not texts:
        return spec, ()
    longer = f"train longer with: nbridge train --continue {shlex.quote(str(folder))} --set training.updates=N"
    text = f"{'; '.join(texts)}; edited since this run began, and not used: undo it, or train a new run, or {longer}"
    if all(found.key.startswith("data.") for every in edited.values() for found in every):
        moved = f"{'; '.join(texts)}; edited since this run began; only {RESOLVED} is read, and its rows must be the same"
        return spec, (Finding("edited", "", moved),)
    if not finished:
        raise RunError(text)
    with reading(folder / RESOLVED):
        return parse_spec(_texts(environment)[RESOLVED], str(folder / RESOLVED)), (Finding("edited", "", text),)


def longer_spec(folder: Path, spec: Spec, text: str, overrides: Sequence[str]) -> Spec:
    """The spec of a run with another length of training.

    Arguments:
        folder: The run folder.
        spec: Its spec.
        text: The same as text.
        overrides: Changes, ``a.b=c`` each.

    Raises:
        SpecError: if a change is invalid.
        RunError: if one is not about the length of training.
    """
    with reading(folder / RESOLVED):
        longer = parse_spec(text, str(folder / RESOLVED), overrides)
    for found in differences(spec.as_dict(), longer.as_dict()):
        if not _LENGTH.fullmatch(found.key):
            raise RunError(
                f"--set {clip(found.key)}: a run that goes on can change only training.updates, training.patience, "
                "training.checkpoint_seconds, and epochs, updates or patience of training.stages.NAME; train a new run for anything else"
            )
    return longer


def reopen(
    folder: Path,
    model: MultimodalVAE,
    before: Spec,
    after: Spec,
    environment: Mapping[str, Any],
    warn: Callable[[Finding], object] = issue,
) -> None:
    """Takes a run back to the end of the first stage that is to be trained longer, or to its last checkpoint if that is earlier.

    The run folder is replaced at once; `nbridge.resume` continues it. Its model and all results are removed.

    Arguments:
        folder: The run folder.
        model: The model of the run, which is overwritten.
        before: The spec of the run.
        after: The same with other lengths of stages.
        environment: The contents of ``env.json``.
        warn: Takes a warning of lost metrics.

    Raises:
        RunError: if nothing would be trained, or a checkpoint is missing or damaged.
    """
    names = [stage.name for stage in model.stages()]
    pairs = {name: (before.training.stage(name), after.training.stage(name)) for name in names}
    changed = [name for name, pair in pairs.items() if len({tuple(getattr(one, key) for key in _BUDGET) for one in pair}) > 1]
    if not changed:
        raise RunError(
            f"{folder}: nothing to train longer: stages {listing(names)} keep their length; "
            f"set training.stages.{names[0]}.epochs or training.stages.{names[0]}.updates"
        )
    number = names.index(changed[0])
    state, lines = read_state(folder / CHECKPOINT, model) if (folder / CHECKPOINT).is_file() else (TrainingState(), 0)
    if state.stage > number:
        state, lines = _end_of(folder, changed[0], model)
    if state.stage == number and state.update:
        _check_longer(changed[0], *pairs[changed[0]], state)
        # A decay that patience began is over; the next one begins by the new settings.
        state.decay_from = None

    def fill(fresh: Path) -> None:
        # First, because the checkpoint counts its lines.
        cut_metrics(folder, lines, fresh, warn=warn)
        save_state(fresh, model, state)
        for name in names[: state.stage]:
            if (folder / stage_end(name)).is_file():
                shutil.copyfile(folder / stage_end(name), fresh / stage_end(name))

    create(folder, after, (folder / SPEC).read_text(encoding="utf-8"), environment, fill)


def _end_of(folder: Path, stage: str, model: MultimodalVAE) -> tuple[TrainingState, int]:
    path = folder / stage_end(stage)
    if not path.is_file():
        raise RunError(f"{path}: missing, so stage {stage} cannot be trained longer; train a new run")
    return read_state(path, model)


def _check_longer(name: str, before: StageSpec, after: StageSpec, state: TrainingState) -> None:
    """Raises a `RunError` if a stage that has been trained would not be trained longer."""
    unit = "updates" if before.epochs is None else "epochs"
    if (before.epochs is None) != (after.epochs is None):
        raise RunError(f"stage {name}: its length is in {unit}, and stays so; set training.stages.{name}.{unit}")
    done, asked = (state.update, after.updates) if after.epochs is None else (state.epoch, after.epochs)
    if asked is not None and asked <= done:
        raise RunError(f"stage {name}: has been trained for {done:,} {unit}, so {asked:,} {unit} are not longer")
    budget = budget_of(name, after, max(1, state.update // max(1, state.epoch)))
    patience = patience_of(after, budget)
    if patience is not None and schedule_of(after, budget) != "decay" and state.update - state.best_update >= patience:
        raise RunError(f"stage {name}: patience ended it after {done:,} {unit}; raise training.stages.{name}.patience as well")


def _texts(environment: Mapping[str, Any]) -> dict[str, str]:
    """Both specs as this run began; empty for runs of older versions."""
    found = environment.get("specs")
    named = found if isinstance(found, Mapping) else {}
    return {name: text for name in (SPEC, RESOLVED) if isinstance(text := named.get(name), str)}


def _edited(path: Path, text: str) -> Iterator[Difference]:
    """The keys of a spec file that were edited; none if only its notation was."""
    try:
        now = path.read_bytes().decode("utf-8-sig")
        if now != text:
            yield from differences(parse(text).value, parse(now).value)
    except FileNotFoundError:
        return
    except (OSError, ValueError, ParseError):
        yield Difference("", text, ABSENT)


def _shown(found: Sequence[Difference]) -> str:
    """Names edited keys with their values now and before."""
    texts = [f"{clip(one.key)} is {_value(one.other)}, was {_value(one.one)}" if one.key else "cannot be read" for one in found[:_NAMED]]
    return listing(texts) + (f", and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _value(value: Any) -> str:
    return "absent" if value is ABSENT else clip(value, 40)
