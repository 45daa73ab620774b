"""Reads tables as numbers: the modality columns of each file, and the rows of several files joined on their identifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nbridge.common.messages import clip, listing, quoted
from nbridge.data.column import PRESENT
from nbridge.data.ids import check_ids, identifier_of
from nbridge.data.marks import IMPUTED
from nbridge.data.tables.arrow import row_texts
from nbridge.data.tables.columns import Chunk, TableFile
from nbridge.data.tables.layout import TableLayout
from nbridge.data.tables.marks import mark_columns, marks_of, read_column_marks
from nbridge.data.tables.presence import check_joined, check_presence, check_said
from nbridge.errors import DataError, naming

OnChunk = Callable[[Chunk, Mapping[str, np.ndarray]], None]
UNNAMED = "a column without a name", "give them names, or leave them out where they count the rows"


@dataclass(frozen=True)
class Numbers:
    """Columns of a file as numbers.

    Arguments:
        origin: The file, for messages.
        numbers: By column, shape (N,), or (N, n) for lists, NaN where absent; also of presence and of cells imputed before.
        ids: The row identifiers as text, shape (N,); None if the file has none.
        rows: By file, the index of each row there, (N,), -1 where the file lacks it; None if there is one file.
    """

    origin: str
    numbers: Mapping[str, np.ndarray]
    ids: np.ndarray | None
    rows: Mapping[str, np.ndarray] | None = None


def place_of(layout: TableLayout, files: Sequence[TableFile], read: Numbers, name: str, row: int, element: int) -> str:
    """Formats the location of a cell, for messages: the file, the modality, the column and the row in the file."""
    column = layout.element(name, element)
    file = next(file for file in files if column in file.columns)
    own = row if read.rows is None else int(read.rows[str(file.path)][row])
    return f"{file.path}: modality {name!r}, column {clip(column)!r}, {file.where(own)}"


def read_numbers(file: TableFile, layout: TableLayout, on_chunk: OnChunk = lambda *_: None) -> Numbers:
    """Reads the modality columns of a file, and its identifiers.

    Arguments:
        file: The file.
        layout: The columns of each modality.
        on_chunk: Called with each chunk, and its columns as numbers.

    Raises:
        DataError: for the first invalid cell, or when there are no rows, or duplicate identifiers.
    """
    layout = layout.among(file)
    taken = [column for columns in layout.columns.values() for column in columns if column in file.columns]
    masks = {name: name + PRESENT for name in layout.columns if name + PRESENT in file.columns}
    marks = mark_columns(layout, file.columns)
    here = [name for name in masks if layout.columns[name][0] in taken]
    if layout.id not in ("id", ""):
        file.require(layout.id)
    names = [layout.id] if layout.id and layout.id in file.columns and layout.id not in taken else []
    parts: dict[str, list[np.ndarray]] = {column: [] for column in taken}
    ids: list[str] = []
    rows = 0
    for chunk in file.chunks(dict.fromkeys([*taken, *masks.values(), *marks, *names])):
        rows += chunk.rows
        with naming(file.path):
            numbers = layout.numbers(chunk, taken)
            on_chunk(chunk, numbers)
            for column in marks:
                parts.setdefault(column, []).append(read_column_marks(column, chunk, layout))
            said = {name: layout.mask(chunk, mask) for name, mask in masks.items()}
            for name, mask in said.items():
                if name in here:
                    check_presence(name, mask, layout.array(name, numbers), chunk.where)
                elif masks[name] not in taken:
                    check_said(name, mask, chunk.where)
                    parts.setdefault(masks[name], []).append(mask)
        for column, values in numbers.items():
            parts[column].append(values)
        ids += [text for name in names for text in row_texts(chunk.column(name), identifier_of)]
    if not rows:
        raise DataError(f"{file.path}: no rows")
    with naming(file.path):
        found = check_ids(ids, wording=file.id_wording(layout.id)) if names else None
    return Numbers(str(file.path), {column: np.concatenate(values) for column, values in parts.items()}, found)


def joined_marks(layout: TableLayout, name: str, numbers: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The marks of a modality's cells that were imputed before, as of `nbridge.data.tables.marks.marks_of`, in joined rows."""
    return marks_of(layout, name, {column: numbers[column] == 1 for column in mark_columns(layout, tuple(numbers), [name])})


def join_files(
    files: Sequence[TableFile],
    layout: TableLayout,
    on_chunk: OnChunk = lambda *_: None,
) -> Numbers:
    """Reads the modality columns of all files, joins their rows, and checks presence columns against values in any file.

    Arguments:
        files: The files; several have identifiers.
        layout: The columns of each modality.
        on_chunk: As for `read_numbers`.

    Raises:
        DataError: as for `read_numbers` and `join`.
    """
    read = join([read_numbers(file, layout, on_chunk) for file in files])
    if read.rows is not None:
        check_joined(layout, files, read.numbers, read.rows)
    return read


def join(parts: Sequence[Numbers]) -> Numbers:
    """Joins the rows of all files by identifier, in the order of first occurrence; NaN where a file lacks the row.

    Raises:
        DataError: when a file has no identifier in common with the others.
    """
    if len(parts) == 1:
        return parts[0]
    known = [{} if part.ids is None else {text: row for row, text in enumerate(part.ids.tolist())} for part in parts]
    for number in (*range(1, len(parts)), 0):
        rows, other = known[number], 0 if number else 1
        if not rows.keys() & {text for place, texts in enumerate(known) if place != number for text in texts}:
            raise DataError(
                f"{parts[number].origin}: no identifier in common with the other files ({quoted(next(iter(rows)))} here, "
                f"{quoted(next(iter(known[other])))} in {parts[other].origin}), so no row can be joined"
            )
    every = list(dict.fromkeys(text for rows in known for text in rows))
    numbers: dict[str, np.ndarray] = {}
    places = {part.origin: np.array([rows.get(text, -1) for text in every]) for part, rows in zip(parts, known, strict=True)}
    for part in parts:
        there = places[part.origin] >= 0
        for column, values in part.numbers.items():
            own = np.where(there.reshape(-1, *(1 for _ in values.shape[1:])), values[places[part.origin]], np.nan)
            # Only marks can be in several files.
            numbers[column] = np.fmax(numbers[column], own) if column in numbers else own
    return Numbers(listing(part.origin for part in parts), numbers, np.array(every, dtype=object), places)


def check_joinable(files: Sequence[TableFile], id_column: str) -> None:
    """Checks that all files have identifiers, and no other column in common but marks of a modality that is in several.

    Raises:
        DataError: for the first that doesn't.
    """
    owners: dict[str, TableFile] = {}
    for file in files:
        file.require(id_column, " of identifiers, on which files are joined (data.id)")
        for column in file.columns:
            if column != id_column and not column.endswith(IMPUTED) and (other := owners.setdefault(column, file)) is not file:
                what, how = (f"column {clip(column)!r}", "rename one of them") if column else UNNAMED
                raise DataError(f"{file.path}: {what} is in {other.path} as well; {how}")
