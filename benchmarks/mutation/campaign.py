"""Runs the tests against mutants, each in a forked process.

pytest imports and collects the tests once. Every mutant then gets a fork of that process, in which the code of the mutated function is
replaced in place (so that functions imported elsewhere and methods of existing classes change too), and which runs the tests that execute
the mutated line, until the first fails. Which tests do is measured first, in a fork that traces every line. Fixtures of a module or of the
session are traced by name, and count for all tests that use them.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import signal
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Line = tuple[str, int]
SKIPPED = "no function was replaced"
GRACE_SECONDS = 30.0
"""Tests of a mutant may take five times as long as without it, and these seconds more."""


@dataclass
class Traced:
    """What the tests execute: the seconds of each test that passes, and the tests that execute each line."""

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[Line, set[str]] = field(default_factory=lambda: defaultdict(set))


@dataclass(frozen=True)
class Outcome:
    """What the tests say of a mutant.

    Arguments:
        failed: The tests that fail, the first only unless all are wanted.
        cause: Why the tests did not end.
        tests: The number of tests that execute the mutated line.
        skipped: Whether no function could be replaced.
    """

    failed: tuple[str, ...] = ()
    cause: str = ""
    tests: int = 0
    skipped: bool = False

    @property
    def killed(self) -> bool:
        """Whether at least one test fails, or the tests do not end."""
        return bool(self.failed or self.cause)


@dataclass(frozen=True)
class Task:
    """A mutant to run: the module's path, its lines, its changed syntax tree, and whether to find all tests that fail."""

    module: str
    lines: frozenset[int]
    tree: ast.Module
    every: bool = False


class Running(NamedTuple):
    """A process that runs a mutant: the task's number, the number of tests, when to stop it, and the file of its result."""

    number: int
    tests: int
    deadline: float
    place: Path


class Campaign:
    """A plugin of pytest that replaces its loop over the tests.

    Arguments:
        root: The folder that modules are relative to.
        modules: The modules whose lines are traced.
        work: Called with the traced tests and a function that runs tasks, which yields the number of each task and its outcome.
        processes: How many mutants run at the same time.
        record: A file of what was traced, which is written if it does not exist.
    """

    def __init__(
        self, root: Path, modules: Iterable[str],
        work: Callable[[Traced, Callable[[Sequence[Task]], Iterator[tuple[int, Outcome]]]], None], processes: int = 1,
        record: Path | None = None,
    ) -> None:  # fmt: skip
        self.paths = {str(root / module): module for module in modules}
        self.root, self.work, self.processes, self.record = root, work, processes, record
        self.failed: list[str] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.tracing: Tracer | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        traced = self._traced(items)
        self.work(traced, lambda tasks: self._run(tasks, items, traced))
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        if self.tracing is None or fixturedef.scope == "function":
            return (yield)
        with self.tracing.named(f"fixture {fixturedef.baseid}::{fixturedef.argname}"):
            return (yield)

    def _traced(self, items: Mapping[str, pytest.Item]) -> Traced:
        """Runs all tests in a fork that records which lines each executes, unless that was recorded before."""
        with tempfile.TemporaryDirectory() as folder:
            place = self.record or Path(folder) / "traced.json"
            if not place.is_file():
                os.waitpid(_fork(partial(self._trace, items, place)), 0)
            seconds, found = json.loads(place.read_text())
        traced, users = Traced({name: value for name, value in seconds.items() if name in items}), defaultdict(set)
        for item in items.values():
            for name in getattr(item, "fixturenames", ()):
                users[name].add(item.nodeid)
        for module, line, names in found:
            for name in names:
                base, _, fixture = name.removeprefix("fixture ").rpartition("::")
                using = {node for node in users[fixture] if node.startswith(base)} if name.startswith("fixture ") else {name}
                traced.tests[module, line] |= using & traced.seconds.keys()
        return traced

    def _trace(self, items: Mapping[str, pytest.Item], place: Path) -> None:
        self.tracing = tracer = Tracer(self.paths)
        for item, following in _in_order(list(items.values())):
            with tracer.named(item.nodeid):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        seconds = {name: value for name, value in self.seconds.items() if name not in self.failed}
        place.write_text(json.dumps([seconds, [[*line, sorted(names)] for line, names in tracer.found.items()]]))

    def _run(self, tasks: Sequence[Task], items: Mapping[str, pytest.Item], traced: Traced) -> Iterator[tuple[int, Outcome]]:
        waiting, running = list(enumerate(tasks)), dict[int, Running]()
        with tempfile.TemporaryDirectory() as folder:
            while waiting or running:
                while waiting and len(running) < self.processes:
                    number, task = waiting.pop(0)
                    names = set[str]().union(*(traced.tests.get((task.module, line), ()) for line in task.lines))
                    if not names:
                        yield number, Outcome()
                        continue
                    place = Path(folder) / str(number)
                    process = _fork(partial(self._child, task, [items[name] for name in names], traced, place))
                    limit = GRACE_SECONDS + 5 * sum(traced.seconds[name] for name in names)
                    running[process] = Running(number, len(names), time.monotonic() + limit, place)
                yield from ended(running)
                time.sleep(0.01)

    def _child(self, task: Task, items: list[pytest.Item], traced: Traced, place: Path) -> None:
        if not replace_code(str(self.root / task.module), task.tree):
            place.write_text(SKIPPED)
            return
        place.with_suffix(".replaced").touch()
        for item, following in _in_order(items, traced.seconds):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed and not task.every:
                break
        place.write_text("\n".join(dict.fromkeys(self.failed)))


def ended(running: dict[int, Running]) -> Iterator[tuple[int, Outcome]]:
    """The outcomes of the processes that have ended, which are removed; those that ran too long are killed."""
    for process, (number, tests, deadline, place) in list(running.items()):
        if os.waitpid(process, os.WNOHANG)[0]:
            outcome = _outcome(place, tests)
        elif time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            outcome = Outcome(cause="the tests did not end", tests=tests)
        else:
            continue
        del running[process]
        yield number, outcome


def _outcome(place: Path, tests: int) -> Outcome:
    """The outcome that a process has written."""
    if not place.is_file():
        assert place.with_suffix(".replaced").is_file(), "the code could not be replaced"
        return Outcome(cause="the process crashed", tests=tests)
    failed = tuple(place.read_text().splitlines())
    return Outcome(skipped=True) if failed == (SKIPPED,) else Outcome(failed, tests=tests)


class Tracer:
    """Records the lines of some modules that are executed, under the name of the current test or fixture."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self.paths = paths
        self.found: dict[Line, set[str]] = defaultdict(set)
        self.name = ""

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        before, self.name = self.name, name
        sys.settrace(self._call)
        try:
            yield
        finally:
            self.name = before
            sys.settrace(self._call if before else None)

    def _call(self, frame: types.FrameType, event: str, argument: object) -> Callable[..., Any] | None:  # noqa: ARG002
        module = self.paths.get(frame.f_code.co_filename)
        if module is None:
            return None
        self.found[module, frame.f_lineno].add(self.name)

        def line(frame: types.FrameType, event: str, argument: object) -> Any:  # noqa: ARG001
            self.found[module, frame.f_lineno].add(self.name)
            return line

        return line


def replace_code(path: str, tree: ast.Module) -> bool:
    """Replaces the code of all existing functions of a module by that of a changed syntax tree; whether any changed."""
    changed = {(code.co_qualname, code.co_firstlineno): code for code in _codes(compile(tree, path, "exec", dont_inherit=True))}
    replaced = False
    # What is frozen cannot be found.
    gc.unfreeze()
    for function in gc.get_objects():
        # By type, because isinstance asks lazy modules for their class, and they import something.
        if type(function) is types.FunctionType and function.__code__.co_filename == path:
            code = changed.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
            if code is not None and code != function.__code__ and code.co_freevars == function.__code__.co_freevars:
                function.__code__ = code
                replaced = True
    return replaced


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


def _in_order(items: list[pytest.Item], seconds: Mapping[str, float] | None = None) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    """Each test with the following one: file by file, so that fixtures of modules are set up once; the quickest file first."""
    if seconds is not None:
        total: dict[Path, float] = defaultdict(float)
        for item in items:
            total[item.path] += seconds[item.nodeid]
        items = sorted(items, key=lambda item: (total[item.path], item.path, seconds[item.nodeid]))
    return zip(items, [*items[1:], None], strict=True)


def _fork(child: Callable[[], object]) -> int:
    """Runs a function in a fork of this process, with its own process group and without output."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setpgid(0, 0)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        child()
        status = 0
    finally:
        os._exit(status)
