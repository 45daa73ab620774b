"""Progress of work that may take more than two seconds: one callback for all layers, and its display on a console."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

Progress = Callable[[str, int, int], None]
"""Progress callback: (task, done, total). The total is 0 if it is unknown; an empty task means that the last one is done."""
DELAY = 2.0
"""Seconds that a task takes before it gets a plain line."""
INTERVAL = 5.0
"""Least seconds between two plain lines."""


def no_progress(task: str, done: int, total: int) -> None:
    """Progress callback that does nothing."""


class ProgressDisplay:
    """Shows tasks with their speed and the time left: a bar in a terminal, else a plain line every few seconds.

    Arguments:
        console: The console; nothing is shown if it is quiet.
        unit: The unit of the totals.
        clock: Returns seconds; for tests.
    """

    def __init__(self, console: Console, unit: str = "rows", clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.unit, self.clock = console, unit, clock
        self._bar: Bar | None = None
        self._task, self._begun, self._first, self._printed = "", 0.0, 0, 0.0

    def __call__(self, task: str, done: int, total: int) -> None:
        """Progress callback: (task, done, total)."""
        if self.console.quiet:
            return
        if not task:
            self.close()
            return
        now = self.clock()
        if task != self._task:
            self._end_task(now)
            self._task, self._begun, self._first = task, now, done
        if self.console.is_terminal:
            self._show(done, total, now)
        elif total and now - self._begun >= DELAY and now - self._printed >= INTERVAL:
            self._print(f"{task}: {done:,} of {total:,} {self.unit}{self._speed(done, total, now)}", now)

    def close(self) -> None:
        """Removes the bar and ends the current task."""
        self._end_task(self.clock())
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _end_task(self, now: float) -> None:
        """Without a terminal, a task that took long gets a last line."""
        if self._task and now - self._begun >= DELAY and not self.console.is_terminal and now - self._printed >= INTERVAL:
            self._print(f"{self._task}: done in {_duration(now - self._begun)}", now)
        self._task = ""

    def _print(self, line: str, now: float) -> None:
        self._printed = now
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _show(self, done: int, total: int, now: float) -> None:
        if self._bar is None:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[speed]}", markup=False))
            self._bar = Bar(*columns, console=self.console, transient=True)
            self._bar.add_task("", speed="")
            self._bar.start()
        speed = f"{done:,}/{total:,}{self._speed(done, total, now)}" if total else ""
        self._bar.update(self._bar.task_ids[0], description=self._task, completed=done, total=total or None, speed=speed)

    def _speed(self, done: int, total: int, now: float) -> str:
        """The speed and the time left; empty at the beginning."""
        seconds, advanced = now - self._begun, done - self._first
        if seconds <= 0 or advanced <= 0:
            return ""
        rate = advanced / seconds
        left = f", {_duration((total - done) / rate)} left" if done < total else ""
        return f", {rate:,.0f} {self.unit}/s{left}" if rate >= 1 else f", {1 / rate:,.0f} s each{left}"


def _duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> _duration(4.2), _duration(75), _duration(3700)
        ('4 s', '1:15', '1:01:40')
    """
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if whole < 60:
        return f"{whole} s"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
