"""Processes that begin with torch and nbridge already imported: forked from one clean process, in place of seconds of imports each.

The process that they are forked from, `multiprocessing`'s fork server, is started once by each process of the tests.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

import after_training
import pytest

from nbridge.__main__ import main

IMPORTED = [
    "pytest",
    "torch._dynamo",
    "nbridge.cli.main",
    "nbridge.data.benchmarks.digits",
    "nbridge.evaluation.versus_baseline",
    "nbridge.inference.complete",
    "nbridge.inference.product_prior",
    "nbridge.report.page",
    "nbridge.runs.run",
    "scipy.optimize",
    "sklearn.datasets",
    "sklearn.mixture",
]
Program = Callable[[], object]
"""What a process does, or does before its command: a function of a module, which is found by its name."""


class Started:
    """A process that was started, and what it writes.

    Arguments:
        program: What it does, with ``arguments`` in `sys.argv`.
        arguments: Its command line, the name of the program first.
        environment: Variables beside those of this process.
        folder: Its folder; that of this process when left out.
    """

    def __init__(
        self,
        program: Program,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        variables = {**os.environ, **(environment or {})}
        self._folder = Path(tempfile.mkdtemp())
        self._streams = [self._folder / name for name in ("output", "errors")]
        for stream in self._streams:
            stream.touch()
        given = (program, [*map(str, arguments)], variables, str(folder or Path.cwd()), *map(str, self._streams))
        self._process = _context().Process(target=work, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def first_line(self, timeout: float = 60) -> str:
        """The first line of its output, as soon as it is there."""
        deadline, output = time.monotonic() + timeout, self._streams[0]
        while "\n" not in output.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline
            assert self.lives()
            time.sleep(0.005)
        return output.read_text(encoding="utf-8").splitlines(keepends=True)[0]

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ended(self, timeout: float = 120) -> tuple[int, str, str]:
        """Waits for its end; exit code, output and errors."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"process {self.pid} has not ended within {timeout} seconds")
        output, errors = (path.read_text(encoding="utf-8") for path in self._streams)
        shutil.rmtree(self._folder)
        return self._process.exitcode, output, errors


class After:
    """A program after a function: what ``preexec_fn`` is to `subprocess`."""

    def __init__(self, before: Program, program: Program) -> None:
        self.before, self.program = before, program

    def __call__(self) -> None:
        self.before()
        self.program()


class Script:
    """A program that is given by its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self) -> None:
        exec(compile(self.text, "script", "exec"), {"__name__": "__main__"})


def start(*arguments: str | Path, before: Program | None = None, environment: Mapping[str, str] | None = None) -> Started:
    """A command of nbridge in a process of its own, after a function where one is given."""
    program = main if before is None else After(before, main)
    return Started(program, "nbridge", *arguments, environment=environment)


def with_small_files() -> None:
    """Lets no file of this process grow, as a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def interruptible() -> None:
    """Control-C and SIGHUP reach this process, which they do not in background jobs of a shell or under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def fork_server() -> str:
    """The address of the fork server, running."""
    _context()
    return str(forkserver._forkserver._forkserver_address)


def share_fork_server(address: str) -> None:
    """Lets this process, which the fork server of another one forked, have its own processes forked there too."""
    forkserver._forkserver._forkserver_address = address
    forkserver._forkserver.ensure_running = lambda: None


def _context() -> multiprocessing.context.ForkServerContext:
    """The fork server, started where it is not: with one thread, for a process that has several must not be forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


def work(program: Program, arguments: list[str], environment: dict[str, str], folder: str, output: str, errors: str) -> None:
    """Runs a program as an interpreter would: with its words, variables and folder; its streams, and its exit code."""
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = arguments
    if after_training.is_little(environment):
        after_training.make_little(setattr)
    try:
        program()
    except Exception:
        traceback.print_exc()
        sys.exit(1)
