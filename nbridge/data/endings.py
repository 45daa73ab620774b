"""Endings of file names, compared whatever their case: ``ROWS.CSV.GZ`` is the same kind of file as ``rows.csv.gz``."""

from __future__ import annotations

from pathlib import Path, PurePath

TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""Text tables."""
PARQUET = ".parquet"
TABLES = (*TEXT, PARQUET)
"""Tables of either kind."""
ARCHIVE, ARRAY = ".npz", ".npy"
"""NumPy archives, and single arrays."""
OMICS = (".h5mu", ".h5ad")
"""MuData and AnnData."""
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
"""Images."""
GZIP = ".gz"
"""Packed files."""


def has_ending(path: str | PurePath, *endings: str) -> bool:
    """Whether the name of a file ends in one of some endings, whatever its case.

    Arguments:
        path: The file.
        endings: The endings, in lower case.

    Example:
        >>> has_ending("scan 1.PNG", ".png"), has_ending("rows.Csv.gz", *TEXT), has_ending("notes.txt", *TABLES)
        (True, True, False)
    """
    return PurePath(path).name.lower().endswith(endings)


def ending_among(path: str | PurePath, endings: tuple[str, ...]) -> str:
    """Which of some endings the name of a file has, in lower case; empty where it has none of them.

    Arguments:
        path: The file.
        endings: The endings, in lower case.

    Example:
        >>> ending_among("my rows.CSV.gz", TABLES), ending_among("rows.npz", TABLES), ending_among("CELLS.H5MU", OMICS)
        ('.csv.gz', '', '.h5mu')
    """
    return next((ending for ending in endings if has_ending(path, ending)), "")


def files_ending(folder: Path, *endings: str) -> list[Path]:
    """The entries of a folder whose names have one of some endings, in order, whatever their case; none that are hidden.

    Arguments:
        folder: The folder.
        endings: The endings, in lower case.

    Raises:
        OSError: when the folder can't be read.
    """
    return sorted(path for path in folder.iterdir() if has_ending(path, *endings) and not path.name.startswith("."))


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder, in order: the parts of one table; not those that writers keep for themselves (``_metadata``).

    Arguments:
        folder: The folder.

    Raises:
        OSError: when the folder can't be read.
    """
    return [path for path in files_ending(folder, PARQUET) if not path.name.startswith("_")]
