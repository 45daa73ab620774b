"""A study: its trials, in a journal that any number of processes and machines share.

Every process holds a lock of the file system for its trial, which ends with the process: a running trial whose lock is free belongs to a
process that was killed, so it is marked as failed and its values are tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from nbridge.common.atomic_files import writing
from nbridge.common.process_state import ignored_warnings, log_level
from nbridge.errors import RunError
from nbridge.tuning.space import Space

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial, Trial

JOURNAL, LOCKS, NAME = "study.journal", "locks", "nbridge"
RANDOM_TRIALS = 6
"""Trials before the sampler learns from them."""
MOST_TRIES = 2
"""How often the values of a trial are tried whose process is killed: it may be they that kill it."""
_ERROR = 40
State = Literal["done", "pruned", "refused", "failed", "running"]


@dataclass(frozen=True)
class Attempt:
    """A trial of a study.

    Arguments:
        number: Its number.
        state: ``done``; ``pruned``, stopped early; ``refused``, because its values are no valid spec or training failed; ``failed``,
            because its process ended; or ``running``.
        value: The figure; None unless it is done.
        rows: The figure of each validation row.
        values: The values of the options by key; empty for the spec as it stands where that is outside the search space.
        seconds: Its duration; None while it runs.
        reason: Why it was refused.
        is_default: Whether it is the spec as it stands.
    """

    number: int
    state: State
    value: float | None
    rows: list[float]
    values: Mapping[str, Any]
    seconds: float | None
    reason: str
    is_default: bool


def check_installed() -> None:
    """Checks that Optuna is installed.

    Raises:
        RunError: if it is not.
    """
    if find_spec("optuna") is None:
        raise RunError('nbridge tune needs optuna, which is not installed: pip install "nbridge[tune]"')


def identity(document: Mapping[str, Any], space: Space, rows: str) -> dict[str, str]:
    """What a study belongs to: hashes of the spec without its rows, of the search space, and of the rows."""
    spec = {key: value for key, value in document.items() if key not in ("data", "tune", "name")}
    return {"spec": _hash(spec), "space": _hash(space.as_dict()), "data": rows}


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Study:
    """A study in a folder.

    Arguments:
        folder: The folder; created if it does not exist.
        space: The search space.
        belongs: What it belongs to (`identity`).
        seed: Seed of the sampler; with one process, the same seed gives the same trials.
        pruner: Stops trials early.

    Raises:
        RunError: if Optuna is not installed, the study is of another spec, search space or rows, or its journal is damaged.
    """

    def __init__(self, folder: Path, space: Space, belongs: Mapping[str, str], *, seed: int, pruner: BasePruner) -> None:
        check_installed()
        self.folder, self.space, self.seed = folder, space, seed
        with writing(folder):
            (folder / LOCKS).mkdir(parents=True, exist_ok=True)
        with self._alone():
            repair(folder / JOURNAL)
            self._study = self._opened(pruner)
            self._check(belongs)

    def _opened(self, pruner: BasePruner) -> OptunaStudy:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        path = self.folder / JOURNAL
        try:
            with self._quietly(), writing(path):
                storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
                return optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True, direction="maximize", pruner=pruner)
        except RunError:
            raise
        except Exception as error:  # a damaged line may raise anything
            text = f"damaged, so the study cannot go on ({type(error).__name__}); remove the file, or choose another folder with --out"
            raise RunError(f"{path}: {text}") from error

    def _check(self, belongs: Mapping[str, str]) -> None:
        if (found := self._study.user_attrs) != dict(belongs):
            if found or self._study.get_trials(deepcopy=False):
                names = {"spec": "another spec", "space": "another search space", "data": "other rows"}
                other = " and ".join(names[key] for key in names if found.get(key) != belongs[key])
                raise RunError(f"{self.folder}: this is a study of {other}; choose another folder with --out")
            for key, value in belongs.items():
                self._study.set_user_attr(key, value)

    # Trials

    @contextmanager
    def next_trial(self, most: int | None) -> Iterator[Trial | None]:
        """A new trial, which is held until the end of the block; None if there are ``most`` of them already, or all points were tried."""
        with ExitStack() as stack:
            with self._alone():
                trial = self._asked(most)
                if trial is not None:
                    stack.enter_context(self._lock(trial.number))
            yield trial

    def _asked(self, most: int | None) -> Trial | None:
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        if not trials:
            self._enqueue(self.space.parameters(self.space.default) if self.space.holds_default else {}, default=True)
        self._revive(trials)
        counted = [one for one in self._study.get_trials(deepcopy=False) if one.state not in (TrialState.FAIL, TrialState.WAITING)]
        if (most is not None and len(counted) >= most) or self._is_exhausted(counted):
            return None
        self._study.sampler = self._sampler(len(trials))
        with self._quietly():
            trial = self._study.ask()
            if not self.is_default(trial) or self.space.holds_default:
                self.space.suggest(trial)
        return trial

    def _is_exhausted(self, trials: list[FrozenTrial]) -> bool:
        return len({json.dumps(one.params, sort_keys=True) for one in trials if one.params}) >= self.space.size

    def _sampler(self, number: int) -> Any:
        """Seeded by the number of trials, so that a resumed study goes on as it would have, and processes draw different values."""
        from optuna.samplers import TPESampler

        seed = (self.seed * 1_000_003 + number) % 2**32
        with self._quietly():
            return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=RANDOM_TRIALS)

    def _enqueue(self, parameters: Mapping[str, Any], **attributes: Any) -> None:
        with self._quietly():
            self._study.enqueue_trial(dict(parameters), user_attrs=attributes)

    def _revive(self, trials: list[FrozenTrial]) -> None:
        """Marks trials whose process was killed as failed, and queues their values again."""
        from optuna.trial import TrialState

        for one in trials:
            if one.state != TrialState.RUNNING or self._is_held(one.number):
                continue
            self._study.tell(one.number, state=TrialState.FAIL)
            self._again(one)

    def _again(self, trial: FrozenTrial | Trial) -> None:
        tries = trial.user_attrs.get("tries", 1)
        is_default = trial.user_attrs.get("default", False)
        if (trial.params and tries < MOST_TRIES) or is_default:
            self._enqueue(trial.params, tries=tries + 1, **({"default": True} if is_default else {}))

    def is_default(self, trial: Trial) -> bool:
        """Whether a trial is the spec as it stands."""
        return bool(trial.user_attrs.get("default"))

    def values(self, trial: Trial) -> dict[str, Any]:
        """The values of the options of a trial by key."""
        return self.space.values(trial.params)

    def earlier(self, trial: Trial) -> Attempt | None:
        """A finished trial with the same values."""
        values = self.values(trial)
        same = (one for one in self.trials() if one.state == "done" and one.number != trial.number and one.values == values)
        return next(same, None) if values else None

    def done(self, trial: Trial, rows: list[float]) -> None:
        """Keeps the figures of a trial."""
        trial.set_user_attr("rows", rows)
        self._study.tell(trial, sum(rows) / len(rows))

    def pruned(self, trial: Trial, reason: str = "") -> None:
        """Ends a trial without a figure: it was stopped early, or refused for a reason."""
        from optuna.trial import TrialState

        if reason:
            trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=TrialState.PRUNED)

    def interrupted(self, trial: Trial) -> None:
        """Marks a trial as failed and queues its values for the next process."""
        from optuna.trial import TrialState

        with self._alone():
            self._study.tell(trial, state=TrialState.FAIL)
            # Stopped by its user, not by its values.
            self._enqueue(trial.params, **{key: value for key, value in trial.user_attrs.items() if key in ("default", "tries")})

    def trials(self) -> list[Attempt]:
        """All trials but those that wait, by number."""
        with self._quietly():
            found = self._study.get_trials(deepcopy=False)
        return [self._read(one) for one in found if one.state.name != "WAITING"]

    def _read(self, one: FrozenTrial) -> Attempt:
        states: dict[str, State] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
        reason = str(one.user_attrs.get("reason", ""))
        state: State = "refused" if reason else states[one.state.name]
        value = one.values[0] if state == "done" and one.values else None
        seconds = None if one.duration is None else round(one.duration.total_seconds(), 1)
        rows, default = list(one.user_attrs.get("rows", ())), bool(one.user_attrs.get("default"))
        return Attempt(one.number, state, value, rows, self.space.values(one.params), seconds, reason, default)

    # Locks

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the study, so that no two processes begin or revive trials at once."""
        with writing(self.folder), FileLock(self.folder / LOCKS / "study.lock"):
            yield

    def _lock(self, number: int) -> FileLock:
        return FileLock(self.folder / LOCKS / f"{number}.lock", timeout=0)

    def _is_held(self, number: int) -> bool:
        lock = self._lock(number)
        try:
            with lock:
                return False
        except Timeout:
            return True

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Without optuna's lines about studies, and its warnings of options that may change."""
        with log_level("optuna", _ERROR), ignored_warnings():
            yield


def repair(path: Path) -> None:
    """Removes the last line of a journal if it is not whole, because its process was killed while it wrote it."""
    from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock

    if not path.is_file() or not path.stat().st_size:
        return
    lock = JournalFileSymlinkLock(str(path)) if os.name != "nt" else JournalFileOpenLock(str(path))
    lock.acquire()
    try:
        with path.open("rb+") as file:
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        with suppress(RuntimeError):
            lock.release()
