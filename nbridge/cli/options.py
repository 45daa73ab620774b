"""Arguments shared by several commands, and the checks of output paths before any work is done."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.parameters import argument, option
from nbridge.common.messages import clip
from nbridge.data.endings import ARCHIVE, ARRAY, GZIP, TABLES, has_ending
from nbridge.data.remote import is_url
from nbridge.errors import DataError, NBridgeError, RunError, StoppedError, exit_code

if TYPE_CHECKING:
    from rich.console import Console

    from nbridge.model import Model
    from nbridge.training.progress import ConsoleProgress

SpecPath = Annotated[str, argument("SPEC", "A spec, a YAML file.")]
RunPath = Annotated[str, argument("DIR", "A run folder, or the model folder inside it.")]
Overrides = Annotated[list[str] | None, option("A.B=C", "Change one value of the spec; may be repeated.", "--set")]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON to standard output.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=2**63 - 1, help="Seed of the draws.")]
AllowCode = Annotated[
    list[str] | None,
    typer.Option("--allow-code", metavar="PACKAGE", help="Let the model import this package; may be repeated.", show_default=False),
]
SetCovariate = Annotated[
    list[str] | None,
    option("NAME=VALUE", "A fixed covariate in place of that of each row, such as batch=A; may be repeated.", "--set-covariate"),
]
PATTERNS = 12
"""Maximum number of patterns of presence in a table."""
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]


def check_output(path: str, overwrite: bool, endings: tuple[str, ...], rows: str | None = None) -> Path:
    """Checks the path of a file to write. The input file ``rows`` is never replaced.

    Raises:
        RunError: when the ending is unknown, the parent folder does not exist, or the file exists and may not be replaced.
        DataError: when the file exists and the input does not.
    """
    target = Path(path)
    if not any(has_ending(target, ending) and len(target.name) > len(ending) for ending in endings):
        raise RunError(f"--out {path}: expected a file that ends in {' or '.join(endings)}")
    if target.is_dir():
        raise RunError(f"--out {path}: a folder, expected a file")
    check_target(target, f"--out {path}", overwrite, rows)
    return target


def check_output_folder(path: str, overwrite: bool, rows: str) -> Path:
    """Checks the path of a folder to write arrays to. The input folder ``rows`` is never replaced.

    Raises:
        RunError: when the path is a file or named like one, its parent folder does not exist, or it exists and may not be replaced.
    """
    target = Path(path)
    if has_ending(target, ARCHIVE, ARRAY, *TABLES, GZIP) or target.is_file():
        raise RunError(f"--out {path}: a file, expected a folder like {rows}")
    check_target(target, f"--out {path}", overwrite, rows)
    return target


def check_target(target: Path, option_: str, overwrite: bool, rows: str | None = None) -> None:
    """Checks that a path can be written, for an option as typed. The input ``rows`` is never replaced.

    Raises:
        RunError: when its parent folder does not exist, or it exists and may not be replaced.
    """
    if is_url(target):
        raise RunError(f"{option_}: a URL, expected a local path; write it here, then copy it")
    if not target.parent.is_dir():
        raise RunError(f"{option_}: folder {target.parent} does not exist")
    if not target.exists():
        return
    from nbridge.data.folders import find_file_or_folder

    if rows is not None and find_file_or_folder(rows).samefile(target):
        noun = "folder" if target.is_dir() else "file"
        raise RunError(f"{option_}: this is the input {noun}; choose another path")
    if not overwrite:
        raise RunError(f"{option_}: exists already. Use --overwrite to replace it.")


@contextmanager
def prefixed_errors(where: str, kind: type[NBridgeError]) -> Iterator[None]:
    """Prefixes each line of errors of one kind with the file or option that they concern."""
    try:
        yield
    except kind as error:
        raise NBridgeError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error


def covariates_of(given: list[str] | None) -> dict[str, str]:
    """Fixed covariates, from texts ``NAME=VALUE``.

    Raises:
        RunError: when one is not of this form, or given twice.
    """
    values: dict[str, str] = {}
    for item in given or []:
        name, _, text = item.partition("=")
        if not (name and text):
            raise RunError(f"--set-covariate {item}: expected NAME=VALUE, such as batch=A")
        if name in values:
            raise RunError(f"--set-covariate {item}: covariate {name!r} is given twice")
        values[name] = text
    return values


def check_covariates(model: Model, given: Mapping[str, str]) -> None:
    """Checks fixed covariates against a model.

    Raises:
        NBridgeError: when there is no such covariate or level, or the value is not a number, after the option as typed.
    """
    for name, text in given.items():
        with prefixed_errors(f"--set-covariate {clip(name)}={clip(text)}", DataError):
            model.fixed({name: text})


def split_names(text: str) -> tuple[str, ...]:
    """The names in a list separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def default_folder(spec: str, name: str | None, prefix: str = "") -> str:
    """The default output folder in ``runs``, from the spec's name or file name."""
    tidy = re.sub(r"[^\w.-]+", "_", name or "").strip("._")
    return str(Path("runs", prefix + (tidy or Path(spec).stem)))


def console_of(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console without rich markup, so that file names are printed verbatim; or a silent one."""
    from rich.console import Console

    return Console(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)


@contextmanager
def reporting(console: Console, folder: str | None = None) -> Iterator[ConsoleProgress]:
    """Yields the progress of training, closes it at the end, and on Ctrl-C adds a message on how to continue."""
    from nbridge.training.progress import ConsoleProgress
    from nbridge.training.run_folder import RESOLVED

    progress = ConsoleProgress(console)
    try:
        yield progress
    except KeyboardInterrupt as stop:
        if folder is None:
            raise StoppedError(str(stop) or "interrupted; run the same command to continue", exit_code(stop)) from stop
        goes_on = Path(folder, RESOLVED).is_file()
        what = f"interrupted; continue with: nbridge resume {shlex.quote(folder)}" if goes_on else "interrupted"
        raise StoppedError(what, exit_code(stop)) from stop
    finally:
        progress.close()
