"""The display of progress: a bar in a terminal, few lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nbridge.common.progress import ProgressDisplay


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(console: Console, seconds: float, *, rows: int = 100, task: str = "checking x") -> str:
    """What is shown of a task that reports every row, evenly over some seconds."""
    clock = Clock()
    display = ProgressDisplay(console, clock=clock)
    for row in range(rows + 1):
        clock.now = seconds * row / rows
        display(task, row, rows)
    display("", 0, 0)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plain(**options: bool) -> Console:
    return Console(file=io.StringIO(), width=200, **options)


def test_without_a_terminal_there_is_a_line_every_few_seconds_with_speed_and_time_left():
    lines = shown(plain(), 20).splitlines()
    assert lines[0] == "checking x: 25 of 100 rows, 5 rows/s, 15 s left"
    assert 3 <= len(lines) <= 5
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize(("seconds", "quiet"), [(1.5, False), (60, True)])
def test_short_tasks_and_quiet_consoles_have_no_line(seconds: float, quiet: bool):
    assert shown(plain(quiet=quiet), seconds) == ""


def test_a_task_without_a_total_has_one_line_at_its_end():
    console, clock = plain(), Clock()
    display = ProgressDisplay(console, clock=clock)
    for task, now in (("reading rows", 0.0), ("checking rows", 9.0), ("", 9.5)):
        clock.now = now
        display(task, 0, 0)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "reading rows: done in 9 s\n"


def test_a_terminal_has_a_bar_that_goes_away_and_can_come_back():
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    text = shown(console, 1.0, task="predictive of [fac] given fou")
    assert "predictive of [fac] given fou" in text
    assert "100/100, 100 rows/s" in text
    assert shown(console, 1.0, task="a second time").count("a second time") >= 1


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor"), 1.0)
    assert "checking x" in text
    assert "38;" not in text
