"""The table of rows that is written where rows are files only: their identifiers, and marks of imputed modalities."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.csv import as_cell
from nbridge.data.tables.opening import open_table

ROWS = "rows.csv"
"""The name of the table."""


class Stems(Protocol):
    """A folder of files, one a row."""

    @property
    def stems(self) -> list[str]:
        """The row identifiers."""
        ...


def table_of_rows(folders: Iterable[Stems], path: Path, id_column: str) -> TableFile:
    """Writes a table with the identifiers of all files in the folders, and opens it."""
    stems = dict.fromkeys(stem for folder in folders for stem in folder.stems)
    path.write_text("\n".join([as_cell(id_column, ","), *(as_cell(stem, ",") for stem in stems), ""]), encoding="utf-8", newline="\n")
    return open_table(path)
