"""What ``nbridge impute`` writes to a folder: tables that are joined, and images in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nbridge.cli.options import console_of, warning
from nbridge.data.endings import ARRAY, files_ending
from nbridge.errors import RunError

if TYPE_CHECKING:
    from nbridge.inference.file_completion import Wishes
    from nbridge.inference.file_plan import Progress
    from nbridge.inference.joined_completion import TablesCompleted
    from nbridge.model import Model


def impute_joined(directory: str, rows: Sequence[str], to: str, wishes: Wishes, overwrite: bool) -> None:
    """Fills in tables, or folders of images, that are joined: those of the run where none is named.

    Arguments:
        directory: The run folder.
        rows: The tables and folders.
        to: The folder to write.
        wishes: What is wanted of what is filled in.
        overwrite: Whether a folder of this name may be replaced.

    Raises:
        RunError: when the folder can't be written, or the run has no files of its own.
        DataError: when rows don't fit the model or can't be joined.
    """
    from nbridge.model import load

    if not Path(to).absolute().parent.is_dir():
        raise RunError(f"--to {to}: folder {Path(to).parent} does not exist")
    if Path(to).exists() and not overwrite:
        raise RunError(f"--to {to}: exists already. Use --overwrite to replace it.")
    model = load(directory)
    if model.binding.images is not None:
        impute_folders(model, rows, to, wishes)
        return
    paths = rows or (model.binding.paths if model.binding.table is not None else ())
    if not paths:
        raise RunError(f"{directory}: this run was not trained from tables; name the files to fill in")
    from nbridge.inference.joined_completion import impute_tables

    _tell(to, lambda progress: impute_tables(model, paths, to, wishes, progress=progress))


def impute_folders(model: Model, rows: Sequence[str], to: str, wishes: Wishes) -> None:
    """Fills in images in files and the tables beside them."""
    from nbridge.inference.image_completion import impute_images

    _tell(to, lambda progress: impute_images(model, to, rows, wishes, progress=progress))


def _tell(to: str, work: Callable[[Progress], TablesCompleted]) -> None:
    """Fills in what is joined, and says what was done."""
    from nbridge.cli.tables import MeasuringBar

    bar = MeasuringBar(console_of(stderr=True))
    try:
        done = work(bar)
    finally:
        bar.close()
    warning(done.rows.warnings)
    counts = ", ".join(f"{name} {count:,}" for name, count in done.rows.imputed.items())
    typer.echo(f"{to}: {', '.join(path.name for path in done.files)}: {done.rows.total:,} rows; imputed {counts}")
    for file, count in done.lacking.items():
        typer.echo(f"{Path(file).name} lacked {count:,} of these rows, which come at its end")


def are_images(path: str, target: Path, part: tuple[int, int]) -> bool:
    """Whether rows are images in files; a table of them, or a part of them, can't be written by itself."""
    from nbridge.data.streaming.files import FOLDER, find_rows
    from nbridge.data.tables.columns import ending_of

    if ending_of(path):
        raise RunError(f"--out {target}: this model has images, which are files of their own; write to a folder, --to FOLDER")
    folder, kind = find_rows(path)
    found = kind == FOLDER and not files_ending(folder, ARRAY)
    if found and part[1] > 1:
        raise RunError(f"--shard {part[0]}/{part[1]}: images are written whole; leave it out")
    return found
