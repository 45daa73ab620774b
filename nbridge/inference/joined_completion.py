"""Imputation of several tables that are joined: each of them is written back completed, under its name, in one folder."""

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
        rows: What is told of the rows of all tables together.
        files: The tables that were written.
        lacking: By table that was read, how many of these rows it lacked, where there were any.
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
    """Fills in what is absent from tables that are joined on their identifiers, csv or Parquet.

    A row is imputed from all that any table has of it. The tables keep their formats, their names, the order of their rows and all other
    columns. A row that a table lacks comes at its end: its identifier, every column of a modality imputed and marked so, other columns
    empty. A modality that no table has is written into the first one. They are read whole into memory, and written all of them or none.

    Arguments:
        model: A model that was trained from tables or a data frame.
        rows: The tables.
        target: The folder to write; an older one that holds nothing but tables of these names is replaced.
        options: What is wanted of what is filled in; the one best estimate where it is left out.
        progress: Hears how far it is.

    Raises:
        DataError: when the model knows no columns, tables don't fit it or can't be joined, or the folder can't be written.
    """
    if model.binding.table is None:
        raise DataError("this model knows no columns: it was not trained from tables (data: {source: table})")
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
    """Checks that nothing but tables of an earlier time would be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder}: a file, expected a folder")
    if read := next((path for path in paths if path.parent.samefile(folder)), None):
        raise DataError(f"{folder}: the folder of {read}, which is read; choose another, so that it stays as it is")
    names = {path.name for path in paths}
    if other := sorted(file.name for file in folder.iterdir() if file.name not in names):
        raise DataError(f"{folder}: a folder that holds other things than these tables ({other[0]}); choose another")
