"""Runs cases in forked processes with limits of memory and time, and counts what became of them."""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from nbridge.errors import NBridgeError, SpecError

KINDS = {"spec": 30, "npz": 14, "csv": 14, "parquet": 14, "h5mu": 4, "model": 10, "checkpoint": 2, "request": 12}
"""The kinds, each with its share of the cases."""
MEMORY = 4 * 2**30
"""Memory that cases may take, in addition to what the process has when they begin, in bytes."""
SECONDS = 20
"""Time for a case."""
BATCH = 500
"""Cases in a process."""
LONGEST = 4000
"""Maximum length of a line of a message."""


class TooSlowError(Exception):
    """A case that takes too long."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "accepted", "refused" or "failed", with a traceback and the place that tells failures apart."""

    number: int
    result: str
    place: str = ""
    trace: str = ""


@dataclass
class Tally:
    """The outcomes of a kind, with the first failure at each place."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, Outcome] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)


def run(kind: str, numbers: Sequence[int], seed: int, folder: Path, save: Path | None = None, until: float = float("inf")) -> Tally:
    """Runs the cases of a kind, until a time where one is given; the input of the first failure at each place is saved."""
    module, tally = module_of(kind), Tally()
    folder.mkdir(parents=True, exist_ok=True)
    module.prepare(folder)
    left = list(numbers)
    while left and time.monotonic() < until:
        batch, done = left[:BATCH], 0
        for outcome in _forked(module, batch, seed, folder):
            done += 1
            tally.counts[outcome.result] += 1
            if outcome.result == "failed":
                tally.times[outcome.place] += 1
                if outcome.place not in tally.failures:
                    tally.failures[outcome.place] = outcome
                    if save is not None:
                        _save(save / f"{kind}-{len(tally.failures)}-case-{outcome.number}", folder / "case", outcome)
            if time.monotonic() > until:
                break
        left = left[done:]
    return tally


def module_of(kind: str) -> Any:
    """The module of a kind."""
    return importlib.import_module(f".{kind}", __package__)


def _save(target: Path, case: Path, outcome: Outcome) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(case, target, symlinks=True, ignore_dangling_symlinks=True)
    (target / "traceback.txt").write_text(f"{outcome.place}\n\n{outcome.trace}", encoding="utf-8", errors="replace")


def _forked(module: Any, numbers: Sequence[int], seed: int, folder: Path) -> Iterator[Outcome]:
    """The outcomes of cases, one at a time, up to one that ends the process."""
    reading, writing = os.pipe()
    going, wanting = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.close(wanting)
        try:
            _work(module, numbers, seed, folder, writing, going)
        finally:
            os._exit(0)
    os.close(writing)
    os.close(going)
    try:
        with os.fdopen(reading, encoding="utf-8") as lines:
            for number in numbers:
                # The case stays in its folder until its outcome has been looked at.
                os.write(wanting, b".")
                if select.select([lines], [], [], 3 * SECONDS)[0] and (line := lines.readline()):
                    yield Outcome(**json.loads(line))
                else:
                    os.kill(child, signal.SIGKILL)
                    yield Outcome(number, "failed", how_it_ended(os.waitpid(child, 0)[1]))
                    child = 0
                    return
    finally:
        os.close(wanting)
        if child:
            os.waitpid(child, 0)


def how_it_ended(status: int) -> str:
    """How a process ended, by its status."""
    ended = os.waitstatus_to_exitcode(status)
    if ended == -signal.SIGKILL:
        return f"no answer within {3 * SECONDS} s"
    return f"killed by {signal.Signals(-ended).name}" if ended < 0 else f"the process left with {ended}"


def _work(module: Any, numbers: Sequence[int], seed: int, folder: Path, writing: int, going: int) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        if not os.read(going, 1):
            return
        os.write(writing, (json.dumps(asdict(attempt(module, number, seed, folder))) + "\n").encode())


def attempt(module: Any, number: int, seed: int, folder: Path) -> Outcome:
    """Runs a case in this process."""
    case = folder / "case"
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    before = signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module.case(Random(f"{seed} {module.__name__.rpartition('.')[2]} {number}"), case)
    except NBridgeError as error:
        problem = problem_of(error)
        return Outcome(number, "failed", problem, _trace(error)) if problem else Outcome(number, "refused")
    except BaseException as error:
        return Outcome(number, "failed", place_of(error), _trace(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return Outcome(number, "accepted")


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlowError(f"{SECONDS} s")


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-12))[-6000:].encode("utf-8", "replace").decode()


def problem_of(error: NBridgeError) -> str:
    """What is wrong with the message of a refusal; empty if nothing is. An error of a spec has one line for each mistake."""
    lines = error.problems if isinstance(error, SpecError) else [str(error)]
    for line in lines:
        what = ""
        if not line.strip():
            what = "an empty message"
        elif not line.isprintable():
            what = "a message of several lines, or with unprintable characters"
        elif len(line) > LONGEST:
            what = f"a message of more than {LONGEST} characters"
        if what:
            return f"{what}: {place_of(error)}"
    return ""


def place_of(error: BaseException) -> str:
    """The kind of an error, and the last place in nbridge that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/nbridge/" in frame.filename] or list(frames)
    where = f"{own[-1].filename.rpartition('/nbridge/')[2]}:{own[-1].name}" if own else "nowhere"
    return f"{type(error).__name__} in {where}"


def table(tallies: dict[str, Tally]) -> str:
    """The counts by kind, in a table."""
    lines = [f"{'kind':12}{'cases':>9}{'accepted':>10}{'refused':>9}{'tracebacks':>12}  distinct"]
    for kind, tally in tallies.items():
        counts = tally.counts
        lines.append(
            f"{kind:12}{counts.total():>9}{counts['accepted']:>10}{counts['refused']:>9}{counts['failed']:>12}  {len(tally.failures)}"
        )
    return "\n".join(lines)


def failures(tallies: dict[str, Tally]) -> str:
    """The failures, by kind and place."""
    return "\n".join(
        f"{kind} {outcome.number}: {place} ({tally.times[place]} times)"
        for kind, tally in tallies.items()
        for place, outcome in tally.failures.items()
    )


def share(cases: int, kinds: Sequence[str]) -> dict[str, int]:
    """The number of cases of each kind."""
    total = sum(KINDS[kind] for kind in kinds)
    return {kind: max(1, cases * KINDS[kind] // total) for kind in kinds}


def main(arguments: Any) -> int:
    """Runs a campaign from the command line."""
    tallies: dict[str, Tally] = {}
    end = time.monotonic() + arguments.seconds
    for place, (kind, cases) in enumerate(share(arguments.cases, arguments.kinds).items()):
        until = time.monotonic() + (end - time.monotonic()) / (len(arguments.kinds) - place)
        numbers = range(arguments.first, arguments.first + cases)
        began = time.monotonic()
        tallies[kind] = run(kind, numbers, arguments.seed, arguments.out / "work" / kind, arguments.out / "failures", until)
        print(f"{kind}: {tallies[kind].counts.total()} cases in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(table(tallies))
    print(failures(tallies))
    return int(any(tally.failures for tally in tallies.values()))
