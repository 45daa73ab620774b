"""The command line, called in the process of the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

import nbridge.cli.main as command_line

Call = Callable[..., tuple[object, str, str]]
"""Takes the words behind ``nbridge``, gives the exit code and what was written to both streams."""


def in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int) -> Call:
    """What runs a command, on a terminal of so many columns."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", str(columns))

    def call(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["nbridge", *arguments])
        with pytest.raises(SystemExit) as left:
            command_line.main()
        return (left.value.code, *capsys.readouterr())

    return call
