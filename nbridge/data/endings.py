"""File name endings, compared without case: ``ROWS.CSV.GZ`` is the same kind of file as ``rows.csv.gz``."""

from __future__ import annotations

from pathlib import Path, PurePath

from nbridge.data.remote import file_name

TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""Text tables."""
PLAIN = ".txt"
"""Plain text, one row a file."""
PARQUET = ".parquet"
TABLES = (*TEXT, PARQUET)
"""Text tables and Parquet."""
ARCHIVE, ARRAY = ".npz", ".npy"
"""NumPy archives, and single arrays."""
OMICS = (".h5mu", ".h5ad")
"""MuData and AnnData."""
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
"""Images."""
GZIP = ".gz"
"""Compressed files."""


def has_ending(path: str | PurePath, *endings: str) -> bool:
    """Whether a file name has one of the endings, ignoring case.

    Arguments:
        path: The file.
        endings: The endings, in lower case.

    Example:
        >>> has_ending("scan 1.PNG", ".png"), has_ending("rows.Csv.gz", *TEXT), has_ending("notes.txt", *TABLES)
        (True, True, False)
    """
    return file_name(path).lower().endswith(endings)


def ending_among(path: str | PurePath, endings: tuple[str, ...]) -> str:
    """The ending of a file name among some, in lower case; empty if none.

    Arguments:
        path: The file.
        endings: The endings, in lower case.

    Example:
        >>> ending_among("my rows.CSV.gz", TABLES), ending_among("rows.npz", TABLES), ending_among("CELLS.H5MU", OMICS)
        ('.csv.gz', '', '.h5mu')
    """
    return next((ending for ending in endings if has_ending(path, ending)), "")


def files_ending(folder: Path, *endings: str) -> list[Path]:
    """The non-hidden entries of a folder with one of the endings, sorted, ignoring case.

    Arguments:
        folder: The folder.
        endings: The endings, in lower case.

    Raises:
        OSError: when the folder can't be read.
    """
    return sorted(path for path in folder.iterdir() if has_ending(path, *endings) and not path.name.startswith("."))


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder, sorted: the parts of one table, without writers' own files (``_metadata``).

    Arguments:
        folder: The folder.

    Raises:
        OSError: when the folder can't be read.
    """
    return [path for path in files_ending(folder, PARQUET) if not path.name.startswith("_")]
