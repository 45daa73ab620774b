"""The fenced blocks of a page, and what running one means."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ruamel.yaml import YAML

import nbridge.cli.main as command_line
from nbridge.spec.reader import parse_spec

ROOT = Path(__file__).resolve().parent.parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
BLOCK = re.compile(r"(?:<!-- not run: ([^>]+) -->\n+)?^( *)```(\w+)([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BASE: Mapping[str, object] = {
    "name": {"shape": 4, "encoder": "mlp", "likelihood": "normal"},
    "other": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"},
}
"""The modalities of a spec of which a page shows other keys only."""


@dataclass(frozen=True)
class Snippet:
    """A fenced block.

    Arguments:
        language: python, sh, yaml or another.
        text: Its lines, without the indentation that all of them have.
        title: The file that it is, if the page names one.
        reason: Why it is not run, if it is not.
    """

    language: str
    text: str
    title: str | None
    reason: str | None


def snippets(page: str) -> Iterator[Snippet]:
    """The blocks of a page, from top to bottom."""
    for reason, indent, language, rest, text in BLOCK.findall(page):
        title = re.search(r'title="([^"]+)"', rest)
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        yield Snippet(language, "\n".join(lines) + "\n", None if title is None else title[1], reason or None)


def run(snippet: Snippet, names: dict[str, Any]) -> None:
    """Runs a block in the current folder; Python keeps its names for the blocks that follow."""
    if snippet.title is not None and snippet.language in ("yaml", "csv", "python"):
        Path(snippet.title).write_text(snippet.text)
    if snippet.language == "python":
        if snippet.title is not None:
            names["__name__"] = Path(snippet.title).stem
        exec(compile(snippet.text, snippet.title or "snippet", "exec"), names)
    elif snippet.language == "yaml":
        check_yaml(snippet.text)
    elif snippet.language == "sh":
        for line in commands(snippet.text):
            run_command(line)


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block; comments and the ends of lines that go on are left out."""
    return [words for line in text.replace("\\\n", " ").splitlines() if (words := shlex.split(line, comments=True))]


def check_yaml(text: str) -> None:
    """A spec is valid, and so are keys of a spec together with two modalities."""
    keys = YAML(typ="safe").load(text)
    whole = text if "modalities" in keys else text + "\nmodalities: " + str(dict(BASE)).replace("'", '"') + "\n"
    parse_spec(whole)


def run_command(words: list[str]) -> None:
    """Runs a command of nbridge or of Python in this process; of an installation, it checks that what is installed exists."""
    program, *rest = words
    if program == "python3":
        # The commands of README that set everything up, which `.ci/run` runs; `tests/test_house.py` holds them.
        assert rest[:2] == ["-m", "venv"]
    elif program.endswith("nbridge"):
        run_nbridge(rest)
    elif program.endswith("python") and rest[0] == "-c":
        exec(compile(rest[1], "-c", "exec"), {})
    elif program.endswith("python") and rest[0] == "-m" and rest[1].startswith("benchmarks"):
        # A benchmark takes minutes or hours; `tests/benchmarks` runs what can be run quickly.
        assert importlib.util.find_spec(rest[1]) is not None, rest[1]
    elif program.endswith("pip") and rest[0] == "install":
        for extra in re.findall(r"\[([\w,]+)\]", " ".join(rest)):
            assert {*extra.split(",")} <= {*EXTRAS}, f"no extra {extra}"
    else:
        raise AssertionError(f"the test does not know how to run {program!r}: mark the block, or teach the test")


def run_nbridge(words: list[str]) -> str:
    """Runs a command of nbridge, which must succeed, and returns what it has printed. The explorer is opened and not served."""
    out, path = io.StringIO(), [*sys.path]
    code: object = 0
    served = mock.patch("nbridge.explore.server.serve")
    try:
        with served, mock.patch.object(sys, "argv", ["nbridge", *words]), contextlib.redirect_stdout(out):
            command_line.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.path[:] = path
    assert not code, f"nbridge {shlex.join(words)}: exit {code}\n{out.getvalue()}"
    return out.getvalue()
