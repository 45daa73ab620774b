"""Which files hold rows that are read block by block: an npz archive, a folder of npy files, a Parquet file, a csv file, an .h5mu file."""

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
"""The kind of a folder; that of a file is the ending of its name, in lower case."""


def find_rows(path: str | Path) -> tuple[Path, str]:
    """An existing file or folder of rows, absolute, or relative to the current folder, or else to $NBRIDGE_DATA; and its kind.

    Raises:
        DataError: when there is none, with the places that were searched.
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
    """The kind of a file or a folder; by its name where there is none.

    Raises:
        DataError: when it is no file, but a pipe or an address.
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
    """A file of rows, until the end of the block.

    Arguments:
        path: The file or the folder.
        kind: Its kind.
        sizes: The number of values of a row of each modality, by key.
        scratch: A folder for temporary files.
        table: Which columns of single values are which modality, for csv and such Parquet files.
        omics: Where modalities lie in MuData and AnnData.
        levels: The levels of intervals, which name columns of such a file.
        classes: By key, the classes that the texts of an array may be, in order.

    Raises:
        DataError: when it is damaged, or not what its ending says.
    """
    if kind in OMICS:
        if omics is None:
            raise DataError(
                "this model does not know where modalities lie in such a file: it was not trained from one (data: {source: h5mu})"
            )
        return omics_rows(path, omics, levels)
    if kind in TEXT and table is None:
        raise DataError("a csv file, whose columns this model knows nothing of: it was not trained from one (data: {source: table})")
    if table is not None and kind in TABLES:
        return cell_rows(path, table, scratch, levels)
    if kind == PARQUET:
        return table_rows(path, sizes)
    return folder_rows(path, classes) if kind == FOLDER else archive_rows(path, scratch, classes)
