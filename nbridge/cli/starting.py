"""``nbridge init``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.options import PATTERNS, Overwrite, check_output, console_of
from nbridge.errors import RunError

if TYPE_CHECKING:
    from nbridge.first_look import FirstLook


def init(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="A csv or parquet file, a folder of images, several to join, or an npz, h5mu or h5ad file.",
            show_default=False,
        ),
    ],
    out: Annotated[str | None, typer.Option(metavar="FILE", help="The spec to write.", show_default="NAME-OF-THE-DATA.yaml")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="The column of identifiers; guessed when left out.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a first spec for your data. Guesses modalities and likelihoods, says why in comments, and shows what is present together."""
    target = check_output(out or f"{Path(data[0]).name.partition('.')[0] or 'spec'}.yaml", overwrite, (".yaml", ".yml"))
    for path in data:
        if target.exists() and target.samefile(path):
            raise RunError(f"--out {target}: the file that is read; choose another, so that it stays as it is")
    from nbridge.files import write_text, writing
    from nbridge.first_look import look

    found = look(data, id_)
    with writing(target):
        write_text(target, found.text)
    _show(found)
    spec = shlex.quote(str(target))
    typer.echo(f"{target}: {len(found.present)} modalit{'y' if len(found.present) == 1 else 'ies'}, {found.rows:,} rows")
    typer.echo(f"next:  nbridge validate {spec} --data\n       nbridge train {spec}")


def _show(found: FirstLook) -> None:
    """Which modalities rows have together, and what is worth a second look."""
    from nbridge.cli.tables import print_patterns

    print_patterns(found.present, console_of(), PATTERNS)
    for remark in found.remarks:
        typer.echo(remark)
