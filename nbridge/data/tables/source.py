"""The data source of csv and Parquet tables: a row per sample, a column per variable, an empty cell for an absent value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from nbridge.common.messages import clip, listing
from nbridge.data.arrays import keys_of, to_batch
from nbridge.data.blocks import RowReader
from nbridge.data.classes import wrong_count
from nbridge.data.endings import PARQUET, TABLES, TEXT, has_ending
from nbridge.data.folders import find_file_or_folder
from nbridge.data.ids import identifier_of
from nbridge.data.marks import rows_marked
from nbridge.data.schema import ColumnsSchema
from nbridge.data.source import EXPECTED, Binding, DataSource, Field, are_paths, check_not_input, check_whole, is_path, paths_of
from nbridge.data.split import Dataset
from nbridge.data.split_labels import NoColumnError, RowLabels
from nbridge.data.tables.arrow import distinct, row_texts
from nbridge.data.tables.cells import ordered_classes
from nbridge.data.tables.coded import Coded, check_order, coded_columns, wrong_number
from nbridge.data.tables.columns import TableFile, no_column
from nbridge.data.tables.join import JoinedRows, check_names
from nbridge.data.tables.layout import TableLayout, expand
from nbridge.data.tables.numbers import check_joinable, join, join_files, joined_marks, place_of, read_numbers
from nbridge.data.tables.opening import find_table, is_table_folder, open_table
from nbridge.data.tables.row_list import ROWS, table_of_rows
from nbridge.data.tables.rows import CellRows
from nbridge.data.tables.text_cells import plain_texts
from nbridge.data.tables.text_folder import is_text_folder, texts_among
from nbridge.data.text_values import TextForm
from nbridge.data.texts import normal_text, number_of
from nbridge.errors import DataError, naming

T = TypeVar("T", bound="Table")


class Table(DataSource):
    """Rows of a csv or parquet file, or of several joined on a column of identifiers; text columns are categorical.

    A modality is one or more columns, or a column of lists of numbers in a parquet file. In csv files an empty cell, NA, NaN or null marks
    an absent value; in typed files only null and NaN do. Files are read into memory; for data larger than memory use `parquet`.

    Arguments:
        path: The file (.csv, .tsv, either with .gz, or .parquet; or a folder of parquet files, the parts of one table), or several to
            join: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.
        columns: The columns of each modality: a name, a pattern such as lab_*, or a list; by default the column of the same name.
        classes: The ordered classes of categorical columns. Text is categorical; two classes are 0 and 1, more are one-hot, or the class
            index if the column is the whole modality. There they can be omitted: those of the data are then stored with the model.
        id: The column of identifiers, "" for none; optional under its default name, unless several files are joined.
        missing: Additional placeholders for absent cells, such as -999 or unknown.
    """

    def __init__(
        self,
        *,
        path: str | tuple[str, ...],
        columns: dict[str, str | tuple[str, ...]] | None = None,
        classes: dict[str, tuple[str | int | float, ...]] | None = None,
        id: str = "id",  # noqa: A002 (a key of the YAML)
        missing: tuple[str | int | float, ...] = (),
    ) -> None:
        self.paths = (path,) if isinstance(path, str) else path
        self.into_folder = not isinstance(path, str)
        self.ending = PARQUET if isinstance(path, str) and has_ending(path, PARQUET) else ".csv"
        self.columns = columns or {}
        self.classes = {column: tuple(map(str, texts)) for column, texts in (classes or {}).items()}
        self.id = id
        self.missing = frozenset(normal_text(str(text)) for text in missing)
        self._given: TableFile | None = None

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:
        if not are_paths(rows) or not is_path(rows):
            return are_paths(rows)
        (path,) = paths_of(rows)
        ends = (*TEXT, *((PARQUET,) if own is None or isinstance(own, Table) else ()))
        folder = Path(path)
        return has_ending(path, *ends) or (folder.is_dir() and (is_table_folder if own is None else is_text_folder)(folder))

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> Table:
        paths = paths_of(rows)
        if own is None:
            return cls(path=paths[0] if is_path(rows) else paths)
        if not isinstance(own, Table):
            where = "this model was not trained from tables" if not is_path(rows) else ""
            raise DataError(f"{where or f'{paths[0]}: a csv file, but this model was not trained from one'} (data: {{source: table}})")
        if not (paths or own.paths):
            raise DataError("this model was not trained from tables; name the files to impute")
        found = own.bound(Table(path=paths[0] if is_path(rows) else paths or own.paths))
        found.into_folder = found.into_folder or is_text_folder(find_file_or_folder(paths[0]))
        found.origin = str(rows) if is_path(rows) else ""
        return found

    def with_rows(self, given: DataSource) -> DataSource:
        """The same columns of a table in memory, instead of the files; its rows are identified by position only."""
        if not isinstance(given, Table):
            return given
        other = copy(self)
        other._given, other.id = given._given, ""
        return other

    def takes_arrays(self, data: Mapping[str, object], names: Iterable[str]) -> bool:
        return set(names) <= set(data)

    def bound(self, other: T) -> T:
        """Another source of tables, with the columns, classes and placeholders of this one."""
        other.columns, other.classes, other.id, other.missing = self.columns, self.classes, self.id, self.missing
        other.reserved, other.mixed = self.reserved, self.mixed
        return other

    @contextmanager
    def schema(self) -> Iterator[ColumnsSchema]:
        found = [find_file_or_folder(path) for path in self.paths]
        tables = [open_listed(path) for path in found]
        source = {"source": "table", "path": self.paths[0] if len(self.paths) == 1 else list(self.paths)}
        yield ColumnsSchema(name_of(found), source, listing(self.paths), tables=tables)

    @contextmanager
    def blocks(self, binding: Binding, scratch: Path) -> Iterator[RowReader]:
        layout, names = self.layout_of(binding.shapes), tuple(binding.taken)
        files = [open_table(find_table(path), self.id) for path in self.paths]
        if not self.into_folder:
            with naming(self.origin, files[0].path):
                yield CellRows(files[0], layout, names, scratch)
            return
        if alone := all(file.named_by_files for file in files):
            files = [table_of_rows(texts_among(files), scratch / ROWS, self.id), *files]
        check_names(files)
        rows = JoinedRows(files, layout, names)
        rows.appended = {} if alone else rows.appended
        yield rows

    def check_output(self, target: Path, *, sharded: bool) -> None:
        paths = [find_table(path) for path in self.paths]
        if not self.into_folder:
            check_not_input(target, paths[0])
            return
        check_whole(sharded=sharded)
        if not target.exists():
            return
        if not target.is_dir():
            raise DataError(f"{target}: a file, expected a folder")
        if read := next((path for path in paths if path.parent.samefile(target)), None):
            raise DataError(f"{target}: contains the input {read}; choose another folder")
        names = {ROWS, *(path.name for path in paths)}
        if other := sorted(file.name for file in target.iterdir() if file.name not in names):
            raise DataError(f"{target}: the folder contains other files ({other[0]}); choose another")

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Reads the columns of the requested modalities; others are ignored.

        Raises:
            DataError: when a file is missing or damaged, a column is missing or holds invalid values, or rows can't be joined.
        """
        files = self.files(shapes)
        layout = self.layout(shapes, files)
        read = join_files(files, layout)
        with naming(read.origin):
            batch = to_batch({name: layout.array(name, read.numbers) for name in shapes}, shapes)
        marks = {name: joined_marks(layout, name, read.numbers) for name in shapes}
        imputed = {name: rows_marked(array) for name, array in marks.items() if array is not None}
        return Dataset(batch, read.ids, origin=read.origin, place=partial(place_of, layout, files, read), imputed=imputed)

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Resolves all columns and classes to the names that the files have now."""
        layout = self.layout(shapes, self.files(shapes))
        return {"columns": dict(layout.columns), "classes": dict(layout.classes)}

    def files(self, shapes: Mapping[str, tuple[int, ...]]) -> list[TableFile]:  # noqa: ARG002 (for sources with images)
        """Opens the files and reads their headers.

        Arguments:
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: when one can't be read, or several have no identifiers or share a column.
        """
        if self._given is not None:
            return [self._given]
        if not self.paths:
            raise DataError("path: no file")
        files = [open_table(find_table(path), self.id) for path in self.paths]
        if len(files) > 1:
            check_joinable(files, self.id)
        return files

    def layout(self, shapes: Mapping[str, tuple[int, ...]], files: Sequence[TableFile]) -> TableLayout:
        """The columns of each modality.

        Arguments:
            shapes: The shape of a row of each modality, by name.
            files: The files with the columns; read only to infer classes that are not listed.

        Raises:
            DataError: when a column is missing, or columns don't match a shape.
        """
        asked = keys_of(shapes, self.words(self.columns), "columns")
        known = [column for file in files for column in file.columns if not self.id or column != self.id]
        with naming(listing(map(str, (file.path for file in files)))):
            columns = {name: expand(name, words, known, self.reserved) for name, words in asked.items()}
        mixed = {name: self.mixed[name] for name in shapes if name in self.mixed}
        check_order(mixed, self.classes)
        coded = coded_columns(mixed)
        listed = {column: classes for column in coded if (classes := self._mixed_classes(files, column, coded[column]))}
        plain = _layout(shapes, columns, self, files, listed)
        plain.check()
        bare = {columns[name][0]: name for name in shapes if plain.is_index(name) and columns[name][0] not in self.classes}
        found = {column: _found_classes(files, column, shapes[name][0], self.missing) for column, name in bare.items()}
        for column, name in bare.items():
            if len(found[column]) != shapes[name][0]:
                file = next(file for file in files if column in file.columns)
                raise wrong_count(f"{file.path}: column {clip(column)!r}", found[column], name, (shapes[name][0],))
        return replace(plain, classes={**plain.classes, **found})

    def _mixed_classes(self, files: Sequence[TableFile], column: str, coded: Coded) -> tuple[str, ...]:
        """The classes of a column of a mixed modality that are not listed; none if it holds 0 and 1 already."""
        if column in self.classes or not any(column in file.columns for file in files):
            return ()
        classes = _found_classes(files, column, coded.classes, self.missing)
        if len(classes) != coded.classes:
            file = next(file for file in files if column in file.columns)
            raise wrong_number(f"{file.path}: column {clip(column)!r}", coded, classes)
        return () if coded.classes == 2 and classes == ("0", "1") else classes

    def mistakes(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
        """The errors that prevent loading: the first of each column, and those of identifiers, one per line.

        Arguments:
            shapes: The shape of a row of each modality, by name.
        """
        try:
            files = self.files(shapes)
            asked = keys_of(shapes, self.words(self.columns), "columns")
        except DataError as error:
            return (str(error),)
        known = [column for file in files for column in file.columns if not self.id or column != self.id]
        columns: dict[str, tuple[str, ...]] = {}
        lines: list[str] = []
        for name in shapes:
            try:
                columns[name] = expand(name, asked[name], known, self.reserved)
            except DataError as error:
                lines.append(f"{listing(str(file.path) for file in files)}: {error}")
        layout = _layout(shapes, columns, self, files)
        open_classes = {*coded_columns(self.mixed), *(names[0] for name, names in columns.items() if layout.is_index(name))}
        open_classes -= set(self.classes)
        found = [_cell_mistakes(file, layout, open_classes) for file in files]
        cells = {column: line for own, _ in found for column, line in own.items()}
        for name, names in columns.items():
            own = [cells[column] for column in names if column in cells]
            lines += own or self._mistakes_of(name, shapes[name], names, files)
        lines += [line for _, broken in found for line in broken]
        lines += [line for file in files for line in self._id_mistakes(file)]
        return tuple(dict.fromkeys(lines or _tried(lambda: self.load(shapes))))

    def _mistakes_of(self, name: str, shape: tuple[int, ...], columns: tuple[str, ...], files: Sequence[TableFile]) -> list[str]:
        """Errors in the columns of a modality as a whole, or in the classes of its only column."""
        classes: dict[str, tuple[str | int | float, ...]] = {column: self.classes[column] for column in columns if column in self.classes}
        own = Table(path=self.paths, columns={name: columns}, classes=classes, id=self.id)
        own.missing, own._given, own.texts = self.missing, self._given, self.texts
        return _tried(lambda: own.layout({name: shape}, files))

    def _id_mistakes(self, file: TableFile) -> list[str]:
        """Errors in the identifiers of a file, if it has any and they are not values."""
        return _tried(lambda: read_numbers(file, TableLayout({}, {}, {}, self.id, self.missing))) if self.id in file.columns else []

    def row_labels(self, column: str, shapes: Mapping[str, tuple[int, ...]]) -> RowLabels:
        """The texts of a column of one file; empty for rows that only other files have."""
        files = self.files(shapes)
        file = next((file for file in files if column in file.columns), None)
        if file is None:
            known = list(dict.fromkeys(column for file in files for column in file.columns))
            raise NoColumnError(f"{listing(str(file.path) for file in files)}: {no_column(column, '', known)}")
        owner = next((name for name in shapes if column in _words(self.words(self.columns).get(name, name))), "")
        what, stored = f"column {clip(column)!r}", file.as_text()
        if reason := stored.unfit(column):
            raise NoColumnError(f"{file.path}: {what} {reason}")
        if stored.is_list(column):
            raise NoColumnError(f"{file.path}: {what} holds lists, expected one value for each row")
        with naming(file.path):
            texts = [text for chunk in stored.chunks([column]) for text in row_texts(chunk.column(column), identifier_of)]
        texts = ["" if text in file.absent | self.missing else text for text in texts]
        labels = RowLabels(what, texts, file.where, str(file.path), owner, alone=file.is_list(column))
        return labels if len(files) == 1 else self._joined(labels, files, file)

    def _joined(self, labels: RowLabels, files: Sequence[TableFile], owner: TableFile) -> RowLabels:
        """The labels of one file, in the order of the joined rows."""
        read = join([read_numbers(file, TableLayout({}, {}, {}, self.id, self.missing)) for file in files])
        assert read.rows is not None
        assert read.ids is not None
        rows, ids = read.rows[str(owner.path)].tolist(), read.ids
        texts = [labels.texts[row] if row >= 0 else "" for row in rows]

        def where(row: int) -> str:
            return owner.where(rows[row]) if rows[row] >= 0 else f"id {clip(ids[row])!r}, which only other files have,"

        return replace(labels, texts=texts, where=where)

    def fields(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[Field]]:
        try:
            layout = self.layout_of(shapes)
        except DataError:
            # Reported when rows are read.
            return {}
        return {name: list(layout.fields(name)) for name in shapes}

    def element_names(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
        layout = self.layout(shapes, self.files(shapes))
        return {name: layout.element_names(name) for name in shapes}

    def class_names(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Sequence[str]]:
        layout = self.layout(shapes, self.files(shapes))
        return {name: layout.classes.get(layout.columns[name][0], ()) for name in shapes if layout.is_index(name)}

    def layout_of(self, shapes: Mapping[str, tuple[int, ...]]) -> TableLayout:
        """The layout according to the spec alone, which is complete once it is resolved."""
        columns = {
            name: (words,) if isinstance(words, str) else tuple(words) for name, words in keys_of(shapes, self.words(self.columns)).items()
        }
        texts = self.text_columns(columns)
        # Classes are listed by now, so any other single column of several elements holds lists.
        alone = {name: names[0] for name, names in columns.items() if len(names) == 1 and prod(shapes[name]) > 1}
        lists = frozenset(column for column in alone.values() if column not in self.classes and column not in texts)
        return TableLayout(shapes, columns, self.classes, self.id, self.missing, lists, texts)

    def text_columns(self, columns: Mapping[str, tuple[str, ...]]) -> dict[str, TextForm]:
        """The form of each column that holds the texts of a modality, by the columns of each modality."""
        return {column: form for name, form in self.texts.items() for column in columns.get(name, ())}

    def text_place(self, name: str, row: int, shapes: Mapping[str, tuple[int, ...]]) -> str:
        file, column = self._text_column(name, shapes)
        return f"{file.path}: column {clip(column)!r}: {file.where(row)}"

    def _text_column(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[TableFile, str]:
        files = self.files(shapes)
        known = [column for file in files for column in file.columns if not self.id or column != self.id]
        with naming(listing(map(str, (file.path for file in files)))):
            (column, *more) = expand(name, keys_of(shapes, self.columns, "columns")[name], known, self.reserved)
            if more:
                raise DataError(f"modality {name!r}: {len(more) + 1} columns, but its likelihood is text; expected one column of texts")
        return next(file for file in files if column in file.columns), column

    def texts_of(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
        file, column = self._text_column(name, shapes)
        for chunk in file.chunks([column]):
            with naming(file.path):
                yield from plain_texts(column, chunk.column(column), chunk.absent | self.missing, chunk.where)


def open_listed(path: Path) -> TableFile:
    """Opens a table among other raw data.

    Raises:
        DataError: when it is no table, or can't be read.
    """
    if not path.is_dir() and not has_ending(path, *TABLES):
        raise DataError(f"{path}: {EXPECTED}")
    return open_table(path)


def name_of(found: Sequence[Path]) -> str:
    """A name for the spec of some files, from the first of them."""
    return found[0].resolve().name.partition(".")[0] or "table"


def _words(words: str | Sequence[str]) -> Sequence[str]:
    return (words,) if isinstance(words, str) else words


def _layout(
    shapes: Mapping[str, tuple[int, ...]], columns: Mapping[str, tuple[str, ...]], source: Table, files: Sequence[TableFile],
    classes: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> TableLayout:  # fmt: skip
    """The layout of known columns, with the list columns of the files, and classes besides those that are listed."""
    listed = {**source.classes, **classes}
    layout = TableLayout(shapes, columns, listed, source.id, source.missing, texts=source.text_columns(columns))
    for file in files:
        layout = layout.among(file)
    return layout


def _tried(read: Callable[[], object]) -> list[str]:
    """The error raised by a read, if any."""
    try:
        read()
    except DataError as error:
        return [str(error)]
    return []


def _cell_mistakes(file: TableFile, layout: TableLayout, passed_over: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The first invalid cell of each column, in one pass; an error that ends the pass is reported for the first column.

    Returns:
        Errors by column; and the error that ended the pass, if it belongs to no column.
    """
    taken = [column for columns in layout.columns.values() for column in columns if column in file.columns and column not in passed_over]
    found: dict[str, str] = {}

    def read() -> None:
        for chunk in file.chunks(taken):
            for column in taken:
                if column not in found and (lines := _tried(lambda c=column, part=chunk: layout.numbers(part, [c]))):
                    found[column] = f"{file.path}: {lines[0]}"

    broken = _tried(read)
    if broken and taken:
        found[taken[0]] = broken[0]
    return found, [] if taken else broken


def _found_classes(files: Sequence[TableFile], column: str, count: int, missing: frozenset[str]) -> tuple[str, ...]:
    """The classes of a column without a list of them: its own numbers if they are indices below the count, else its texts in order."""
    file = next(file for file in files if column in file.columns)
    texts: set[str] = set()
    for chunk in file.chunks([column]):
        texts |= {*map(normal_text, distinct(chunk.column(column))[1])} - missing - chunk.absent
    numbers = [number_of(text) for text in texts]
    if all(number in range(count) for number in numbers if number is not None) and None not in numbers:
        return tuple(map(str, range(count)))
    return ordered_classes(texts)
