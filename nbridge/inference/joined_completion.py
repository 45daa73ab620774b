"""Imputes joined tables, and writes each of them, completed, under its own name into one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nbridge.common.atomic_files import writing
from nbridge.data.folders import find_file
from nbridge.data.tables.columns import open_table
from nbridge.data.tables.join import JoinedRows, check_names
from nbridge.errors import DataError
from nbridge.inference.file_completion import FileCompleted, ImputationOptions, complete
from nbridge.inference.file_plan import Progress
from nbridge.inference.served import Served


@dataclass(frozen=True)
class TablesCompleted:
    """What `impute_tables` wrote.

    Arguments:
        rows: Results for the rows of all tables together.
        files: The tables written.
        lacking: The number of these rows that each input table lacked, if any.
    """

    rows: FileCompleted
    files: tuple[Path, ...]
    lacking: Mapping[str, int]


def impute_tables(
    model: Served,
    rows: Sequence[str | Path],
    target: str | Path,
    options: ImputationOptions | None = None,
    *,
    progress: Progress | None = None,
) -> TablesCompleted:
    """Imputes missing values in tables (csv or Parquet) that are joined on their identifiers.

    A row is imputed from its values in all tables. The tables keep their formats, names, row order and other columns. Rows that a table
    lacks are appended to it, with their identifiers, all modality columns imputed and marked as such, and other columns empty. A modality
    that no table has is written into the first one. All tables are read into memory, and written atomically.

    Arguments:
        model: A model trained from tables or a data frame.
        rows: Paths of the tables.
        target: The folder to write. An existing folder is replaced if it contains only tables of these names.
        options: Imputation options; a point estimate by default.
        progress: Progress callback: (stage, done, total).

    Raises:
        DataError: if the model was not trained from tables, tables do not match it or cannot be joined, or the folder cannot be written.
    """
    if model.binding.table is None:
        raise DataError("this model was not trained from tables (data: {source: table})")
    options = options or ImputationOptions()
    options.check()
    folder, paths = Path(target), [find_file(path) for path in rows]
    _check_folder(folder, paths)
    with writing(folder, DataError):
        check_names(files := [open_table(path) for path in paths])
        joined = JoinedRows(files, model.binding.table, options.intervals)
        keys = {name: name for name in model.names}
        done = complete(model, joined, partial(joined.writing, folder), options, keys=keys, progress=progress)
    return TablesCompleted(done, tuple(folder / path.name for path in paths), joined.lacking)


def _check_folder(folder: Path, paths: Sequence[Path]) -> None:
    """Checks that an existing folder contains only tables of an earlier imputation."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder}: a file, expected a folder")
    if read := next((path for path in paths if path.parent.samefile(folder)), None):
        raise DataError(f"{folder}: contains the input {read}; choose another folder")
    names = {path.name for path in paths}
    if other := sorted(file.name for file in folder.iterdir() if file.name not in names):
        raise DataError(f"{folder}: the folder contains other files ({other[0]}); choose another")
