"""Opens files read block by block: npz archives, folders of npy files, Parquet, csv and .h5mu files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from nbridge.data.endings import ARCHIVE, OMICS, PARQUET, TABLES, TEXT, ending_among
from nbridge.data.folders import check_stored, find_file, find_folder
from nbridge.data.numpy.rows import archive_rows, folder_rows
from nbridge.data.omics.layout import OmicsLayout
from nbridge.data.omics.rows import omics_rows
from nbridge.data.streaming.blocks import RowsIn
from nbridge.data.tables.layout import TableLayout
from nbridge.data.tables.parquet_rows import table_rows
from nbridge.data.tables.rows import cell_rows
from nbridge.errors import DataError

FOLDER = ""
"""The kind of a folder; the kind of a file is its lower-case ending."""


def find_rows(path: str | Path) -> tuple[Path, str]:
    """Finds an existing file or folder of rows, absolute, or relative to the current folder, or else to $NBRIDGE_DATA, and its kind.

    Raises:
        DataError: when there is none, with the places searched.
    """
    try:
        found = find_file(path)
    except DataError:
        try:
            return find_folder(path), FOLDER
        except DataError:
            pass
        raise
    return found, ending_among(found, (*TABLES, *OMICS)) or ARCHIVE


def kind_of(path: str | Path) -> str:
    """The kind of a file or a folder; by its name if it does not exist.

    Raises:
        DataError: when it is a pipe or a URL.
    """
    check_stored(path)
    try:
        return find_rows(path)[1]
    except DataError:
        return ending_among(path, (*TABLES, *OMICS)) or (ARCHIVE if Path(path).suffix else FOLDER)


def open_rows(
    path: Path,
    kind: str,
    sizes: Mapping[str, int],
    scratch: Path,
    table: TableLayout | None = None,
    omics: OmicsLayout | None = None,
    levels: Sequence[float] = (),
    classes: Mapping[str, Sequence[str]] | None = None,
) -> AbstractContextManager[RowsIn]:
    """Opens a file of rows as a context manager.

    Arguments:
        path: The file or the folder.
        kind: Its kind.
        sizes: The number of values per row of each modality, by key.
        scratch: A folder for temporary files.
        table: The columns of each modality, for csv and Parquet files of single values.
        omics: The addresses of modalities in MuData and AnnData.
        levels: The levels of intervals, used in column names.
        classes: The ordered classes of text arrays, by key.

    Raises:
        DataError: when it is damaged, or its format does not match its ending.
    """
    if kind in OMICS:
        if omics is None:
            raise DataError("no modality addresses: this model was not trained from such a file (data: {source: h5mu})")
        return omics_rows(path, omics, levels)
    if kind in TEXT and table is None:
        raise DataError("a csv file, but this model was not trained from one (data: {source: table})")
    if table is not None and kind in TABLES:
        return cell_rows(path, table, scratch, levels)
    if kind == PARQUET:
        return table_rows(path, sizes)
    return folder_rows(path, classes) if kind == FOLDER else archive_rows(path, scratch, classes)
