"""Opens tables: csv and Parquet files, folders with the parts of a Parquet table, and folders of text files."""

from __future__ import annotations

from pathlib import Path

from nbridge.common.messages import listing
from nbridge.data.endings import PARQUET, TABLES, TEXT, parquet_files
from nbridge.data.folders import find_file, find_file_or_folder
from nbridge.data.tables.columns import CsvTable, ParquetTable, TableFile, ending_of
from nbridge.data.tables.text_folder import TextFolder, is_text_folder
from nbridge.errors import DataError


def is_table_folder(path: Path) -> bool:
    """Whether a path is a folder that is one table: the parts of a Parquet table, or text files."""
    try:
        return path.is_dir() and (bool(parquet_files(path)) or is_text_folder(path))
    except OSError:
        # Whoever opens the folder reports it.
        return False


def open_table(path: Path, id_column: str = "id") -> TableFile:
    """Opens a table: a file, csv or Parquet by its name; or a folder, of the parts of a Parquet table or of text files.

    Arguments:
        path: The file or folder.
        id_column: The column of identifiers of a folder of texts.

    Raises:
        DataError: when it is none of them, or can't be read.
    """
    if path.is_dir():
        return TextFolder(path, id_column or "id") if is_text_folder(path) else ParquetTable(path)
    ending = ending_of(path)
    if ending in TEXT:
        return CsvTable(path)
    if ending == PARQUET:
        return ParquetTable(path)
    raise DataError(f"{path}: not a table by its name, which ends in {listing(TABLES)}")


def find_table(path: str | Path) -> Path:
    """Finds an existing table: a file, or a folder that is one; absolute, or relative to the current folder, or else to $NBRIDGE_DATA.

    Raises:
        DataError: when there is none, with the places searched.
    """
    found = find_file_or_folder(path)
    return found if is_table_folder(found) else find_file(path)
