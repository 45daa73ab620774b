"""``nbridge init``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.options import PATTERNS, Overwrite, check_output, console_of
from nbridge.cli.parameters import argument, option
from nbridge.common.messages import clip, some_of
from nbridge.errors import RunError

if TYPE_CHECKING:
    from nbridge.draft.draft import Draft

MAX_NAMES = 12
"""Maximum number of columns named in the line on empty cells."""


def init(
    data: Annotated[
        list[str], argument("DATA...", "A csv or parquet file, a folder of images, several to join, or an npz, h5mu or h5ad file.")
    ],
    out: Annotated[str | None, option("FILE", "The spec to write.", shown="NAME-OF-THE-DATA.yaml")] = None,
    id_: Annotated[str | None, option("COLUMN", "The identifier column; guessed by default.", "--id")] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A data source of your own, such as package.module:Class; found by the file by default."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a draft spec for your data. Infers modalities and likelihoods, and explains its choices in comments."""
    target = check_output(out or f"{Path(data[0]).name.partition('.')[0] or 'spec'}.yaml", overwrite, (".yaml", ".yml"))
    for path in data:
        if target.exists() and Path(path).exists() and target.samefile(path):
            raise RunError(f"--out {target}: this is the input file; choose another path")
    from nbridge.common.atomic_files import write_text, writing
    from nbridge.draft.draft import init as draft

    found = draft(data, id=id_, source=source)
    with writing(target):
        write_text(target, found.text)
    _show(found)
    spec = shlex.quote(str(target))
    typer.echo(f"{target}: {len(found.present)} modalit{'y' if len(found.present) == 1 else 'ies'}, {found.rows:,} rows")
    typer.echo(f"next:  nbridge validate {spec} --data\n       nbridge train {spec}")


def _show(found: Draft) -> None:
    """Prints the patterns of presence, the counts of empty cells, and remarks."""
    from nbridge.cli.tables import print_patterns

    print_patterns(found.present, console_of(), PATTERNS)
    typer.echo(_empty_cells(found))
    for remark in found.remarks:
        typer.echo(remark)


def _empty_cells(found: Draft) -> str:
    """The number of rows with an empty cell, by column in descending order."""
    if not found.empty:
        return "empty: none"
    counts = [f"{clip(name)} {rows:,}" for name, rows in sorted(found.empty.items(), key=lambda item: -item[1])]
    return f"empty, of {found.rows:,} rows: {some_of(counts, MAX_NAMES)}"
