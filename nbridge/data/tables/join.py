"""Tables joined on a column of identifiers, read as one and written back separately.

Rows are the outer join, in the order of first occurrence of their identifiers. Each table is written with its own columns and its rows in
their own order; rows that it lacks are appended, with their identifier and its modality columns, all of them imputed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from nbridge.common.atomic_files import replace_folder, scratch_beside
from nbridge.common.messages import listing
from nbridge.data.blocks import Block, Layout, Output, RowReader, RowWriter
from nbridge.data.imputed import Imputed, concatenated, take
from nbridge.data.output_names import IMPUTED
from nbridge.data.tables.cell_format import CellStyle
from nbridge.data.tables.columns import CHUNK, TableFile
from nbridge.data.tables.layout import TableLayout
from nbridge.data.tables.numbers import check_joinable, join_files, joined_marks, place_of
from nbridge.data.tables.output_columns import CellPlan, learn_formats
from nbridge.data.tables.rows import has_modality, kept_columns, no_slip
from nbridge.data.tables.text_folder import texts_among
from nbridge.data.tables.write import table_writer
from nbridge.errors import DataError, naming


@dataclass(frozen=True)
class Part:
    """One of several joined tables.

    Arguments:
        order: The joined-row indices to write: its own in their order, then those that it lacks.
        rows: The number of its own rows.
        more: The identifiers of rows that it lacks.
    """

    file: TableFile
    plan: CellPlan
    order: np.ndarray
    rows: int
    more: Sequence[Mapping[str, str]]


class JoinedRows(RowReader):
    """Joined tables, in memory.

    Arguments:
        files: The tables; if there are several, each has a column of identifiers.

    Attributes:
        rows: The number of joined rows.
        parts: The tables to write.

    Raises:
        DataError: for the first invalid cell, or when tables can't be joined.
    """

    noun: ClassVar[str] = "column"
    by_name: ClassVar[bool] = False

    def __init__(self, files: Sequence[TableFile], layout: TableLayout, names: Sequence[str]) -> None:
        if len(files) > 1:
            check_joinable(files, layout.id)
        for file in files:
            layout = layout.among(file)
        layout.check()
        columns = [column for file in files for column in file.columns if len(files) == 1 or column != layout.id]
        known = {column for names in layout.columns.values() for column in names}
        with naming(listing(str(file.path) for file in files)):
            self.there = self.keys = tuple(name for name in layout.columns if has_modality(columns, layout, name))
            no_slip([column for file in files for column in kept_columns(file, layout, names) if column not in known], layout, self.there)
        self._layout, self._files, self.names = layout, files, {name: name for name in names}
        self._styles = {column: CellStyle(layout.classes.get(column, ())) for column in known - layout.lists - set(layout.texts)}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._read = join_files(files, layout, partial(learn_formats, self._styles, self._shapes))
        self._arrays = {name: layout.array(name, self._read.numbers) for name in self.there}
        self.rows = len(next(iter(self._arrays.values())))
        found = {name: marks for name in names if (marks := joined_marks(layout, name, self._read.numbers)) is not None}
        self._arrays |= {name + IMPUTED: marks for name, marks in found.items()}
        self.place = partial(place_of, layout, files, self._read)
        self.parts = [self._part(number, file) for number, file in enumerate(files)]
        self.file_names = tuple(Path(file.path).name for file in files)
        self.appended = {str(part.file.path): len(part.more) for part in self.parts if part.more}

    @property
    def ids(self) -> np.ndarray | None:
        return self._read.ids

    @property
    def marks(self) -> dict[str, str]:
        return {name: name + IMPUTED for name in self.names if name + IMPUTED in self._arrays}

    def layout(self, key: str) -> Layout:
        return Layout(self._arrays[key].dtype, self._arrays[key].shape)

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:
        return sum(self._arrays[key].nbytes for key in keys) // max(1, rows)

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        names = tuple(keys)
        for first in range(start, stop, size):
            yield Block(first, {name: self._arrays[name][first : min(first + size, stop)] for name in names})

    def one_hot(self, name: str) -> tuple[tuple[int, int], ...]:
        return self._layout.one_hot(name)

    @contextmanager
    def writing(self, target: Path | None, output: Output) -> Iterator[RowWriter]:  # noqa: ARG002 (all rows are written)
        assert target is not None, "joined tables are files"
        out = AllRows()
        yield out
        imputed = out.imputed()
        with scratch_beside(target) as scratch:
            folder = scratch / "tables"
            folder.mkdir()
            for part in self.parts:
                write_part(part, folder / Path(part.file.path).name, imputed)
            replace_folder(target, folder)

    def _part(self, number: int, file: TableFile) -> Part:
        kept = kept_columns(file, self._layout, self.names)
        first = next((place for place, one in enumerate(self._files) if not one.named_by_files), 0)
        # Columns that no table has go into the first one.
        spare = {column for name in self._layout.columns if name not in self.there for column in self._layout.columns[name]}
        own = {column for names in self._layout.columns.values() for column in names if column in file.columns}
        written = frozenset(own | (spare if number == first else set()))
        passed = tuple(column for column in kept if column not in own)
        # Files of texts hold nothing else; whether they were imputed is a column of the first table.
        texts = {column for one in texts_among(self._files) for column in one.columns}
        elsewhere = tuple(name for name, columns in self._layout.columns.items() if columns[0] in texts) if number == first else ()
        plan = CellPlan(self._layout, self._styles, self._shapes, kept, passed, written, elsewhere)
        places = np.arange(self.rows) if self._read.rows is None else self._read.rows[str(file.path)]
        there, lacking = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        order = np.concatenate([there[np.argsort(places[there])], lacking])
        ids = [] if self._read.ids is None else self._read.ids[lacking].tolist()
        return Part(file, plan, order, len(there), [{self._layout.id: text} for text in ids])


class AllRows(RowWriter):
    """Collects all rows before writing, since each table has its own row order."""

    def __init__(self) -> None:
        self._parts: list[Imputed[np.ndarray]] = []

    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:  # noqa: ARG002 (rows are read again)
        self._parts.append(imputed)

    def imputed(self) -> Imputed[np.ndarray]:
        """All rows."""
        return concatenated(self._parts)


def write_part(part: Part, path: Path, imputed: Imputed[np.ndarray]) -> None:
    """Writes one of the joined tables."""
    with table_writer(path, path, part.plan, part.file, rows=part.rows, more=part.more) as out:
        for start in range(0, len(part.order), CHUNK):
            out.write(Block(start, {}), take(imputed, part.order[start : start + CHUNK]))


def check_names(files: Sequence[TableFile]) -> None:
    """Checks that output files have distinct names.

    Raises:
        DataError: when two have the same name.
    """
    found: dict[str, TableFile] = {}
    for file in files:
        name = Path(file.path).name
        if (other := found.setdefault(name, file)) is not file:
            raise DataError(f"{file.path}: {other.path} has the same file name, so they can't be written to one folder; rename one of them")
