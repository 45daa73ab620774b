"""Arguments that several commands share, and what they refuse before any work is done."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.common.warnings import Finding
from nbridge.data.endings import ARCHIVE, ARRAY, GZIP, TABLES, has_ending
from nbridge.errors import NBridgeError, RunError

if TYPE_CHECKING:
    from rich.console import Console

    from nbridge.training.progress import ConsoleReporter

SpecPath = Annotated[str, typer.Argument(metavar="SPEC", help="A spec, a YAML file.", show_default=False)]
RunPath = Annotated[str, typer.Argument(metavar="DIR", help="A run folder, or the model folder inside it.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one value of the spec; may be repeated.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print figures as JSON, and nothing else, to standard output.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=2**63 - 1, help="Seed of the draws.")]
PATTERNS = 12
"""Patterns of presence that a table shows."""
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def check_output(path: str, overwrite: bool, endings: tuple[str, ...], rows: str | None = None) -> Path:
    """The path of a file to write.

    Arguments:
        path: The path as it was typed.
        overwrite: Whether a file of this name may be replaced.
        endings: How the name may end.
        rows: The file that will be read, which is never replaced.

    Raises:
        RunError: when its ending is unknown, its folder does not exist, or it exists and may not be replaced.
        DataError: when it exists and there is no file to read.
    """
    target = Path(path)
    if not any(has_ending(target, ending) and len(target.name) > len(ending) for ending in endings):
        raise RunError(f"--out {path}: expected a file that ends in {' or '.join(endings)}")
    if target.is_dir():
        raise RunError(f"--out {path}: a folder, expected a file")
    _check_place(target, path, overwrite, rows)
    return target


def check_output_folder(path: str, overwrite: bool, rows: str) -> Path:
    """The path of a folder to write arrays to.

    Arguments:
        path: The path as it was typed.
        overwrite: Whether a folder of this name may be replaced.
        rows: The folder that will be read, which is never replaced.

    Raises:
        RunError: when it is a file or named like one, the folder above it does not exist, or it exists and may not be replaced.
    """
    target = Path(path)
    if has_ending(target, ARCHIVE, ARRAY, *TABLES, GZIP) or target.is_file():
        raise RunError(f"--out {path}: a file, expected a folder, as {rows} is one")
    _check_place(target, path, overwrite, rows)
    return target


def _check_place(target: Path, path: str, overwrite: bool, rows: str | None) -> None:
    if not target.parent.is_dir():
        raise RunError(f"--out {path}: folder {target.parent} does not exist")
    if rows is not None and target.exists() and _is_file_read(target, rows):
        noun = "folder" if target.is_dir() else "file"
        raise RunError(f"--out {path}: the {noun} that is read; choose another, so that it stays as it is")
    if target.exists() and not overwrite:
        raise RunError(f"--out {path}: exists already. Use --overwrite to replace it.")


@contextmanager
def blaming(where: str, kind: type[NBridgeError]) -> Iterator[None]:
    """Puts the file or the option that mistakes of one kind are in before each of them."""
    try:
        yield
    except kind as error:
        raise NBridgeError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error


def default_folder(spec: str, name: str | None, prefix: str = "") -> str:
    """A folder in ``runs``, whatever the spec calls itself."""
    tidy = re.sub(r"[^\w.-]+", "_", name or "").strip("._")
    return str(Path("runs", prefix + (tidy or Path(spec).stem)))


def console_of(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that shows names of files as they are, whatever rich would read in them, or nothing at all."""
    from rich.console import Console

    return Console(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)


def warning(findings: Iterable[Finding]) -> None:
    """Tells what is worth a warning on standard error, a line each."""
    for finding in findings:
        typer.echo(finding.line, err=True)


@contextmanager
def reporting(console: Console, folder: str | None = None) -> Iterator[ConsoleReporter]:
    """A reporter that leaves the terminal in order, and a word on how to go on after an interruption."""
    from nbridge.training.progress import ConsoleReporter
    from nbridge.training.run_folder import RESOLVED

    reporter = ConsoleReporter(console)
    try:
        yield reporter
    except KeyboardInterrupt as stop:
        if folder is None:
            raise KeyboardInterrupt(str(stop) or "interrupted; the same command goes on") from stop
        goes_on = Path(folder, RESOLVED).is_file()
        raise KeyboardInterrupt(f"interrupted; go on with: nbridge resume {shlex.quote(folder)}" if goes_on else "interrupted") from stop
    finally:
        reporter.close()


def _is_file_read(target: Path, rows: str) -> bool:
    from nbridge.data.streaming.files import find_rows

    return find_rows(rows)[0].samefile(target)
