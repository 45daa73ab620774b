"""``nbridge impute --to FOLDER``: imputation of joined tables and image files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nbridge.cli.options import console_of, print_findings
from nbridge.data.endings import ARRAY, files_ending
from nbridge.errors import RunError

if TYPE_CHECKING:
    from nbridge.inference.file_completion import ImputationOptions
    from nbridge.inference.file_plan import Progress
    from nbridge.inference.joined_completion import TablesCompleted
    from nbridge.model import Model


def impute_joined(directory: str, rows: Sequence[str], to: str, options: ImputationOptions, overwrite: bool) -> None:
    """Imputes joined tables or folders of images; by default those that the run was trained from.

    Arguments:
        directory: The run folder.
        rows: The tables and folders.
        to: The folder to write.
        options: Imputation options.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        RunError: when the folder cannot be written, or the run was not trained from files.
        DataError: when rows do not match the model or cannot be joined.
    """
    from nbridge.model import load

    if not Path(to).absolute().parent.is_dir():
        raise RunError(f"--to {to}: folder {Path(to).parent} does not exist")
    if Path(to).exists() and not overwrite:
        raise RunError(f"--to {to}: exists already. Use --overwrite to replace it.")
    model = load(directory)
    if model.binding.images is not None:
        impute_folders(model, rows, to, options)
        return
    paths = rows or (model.binding.paths if model.binding.table is not None else ())
    if not paths:
        raise RunError(f"{directory}: this run was not trained from tables; name the files to impute")
    from nbridge.inference.joined_completion import impute_tables

    _tell(to, lambda progress: impute_tables(model, paths, to, options, progress=progress))


def impute_folders(model: Model, rows: Sequence[str], to: str, options: ImputationOptions) -> None:
    """Imputes image files and the tables joined with them."""
    from nbridge.inference.image_completion import impute_images

    _tell(to, lambda progress: impute_images(model, to, rows, options, progress=progress))


def _tell(to: str, work: Callable[[Progress], TablesCompleted]) -> None:
    """Runs an imputation with a progress bar and prints a summary."""
    from nbridge.cli.tables import EvaluationProgress

    bar = EvaluationProgress(console_of(stderr=True))
    try:
        done = work(bar)
    finally:
        bar.close()
    print_findings(done.rows.warnings)
    counts = ", ".join(f"{name} {count:,}" for name, count in done.rows.imputed.items())
    typer.echo(f"{to}: {', '.join(path.name for path in done.files)}: {done.rows.total:,} rows; imputed {counts}")
    for file, count in done.lacking.items():
        typer.echo(f"{Path(file).name}: {count:,} missing rows were appended")


def are_images(path: str, target: Path, part: tuple[int, int]) -> bool:
    """Whether rows are a folder of image files. A table of images and a shard of a folder are errors."""
    from nbridge.data.streaming.files import FOLDER, find_rows
    from nbridge.data.tables.columns import ending_of

    if ending_of(path):
        raise RunError(f"--out {target}: this model has images, which are written as files; write to a folder, --to FOLDER")
    folder, kind = find_rows(path)
    found = kind == FOLDER and not files_ending(folder, ARRAY)
    if found and part[1] > 1:
        raise RunError(f"--shard {part[0]}/{part[1]}: not supported for images; leave it out")
    return found
