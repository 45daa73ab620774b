"""The data source of image files, one image per file, with or without tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from nbridge.common.messages import listing
from nbridge.data.arrays import keys_of
from nbridge.data.blocks import RowReader
from nbridge.data.folders import find_file_or_folder, find_folder, holds_arrays, is_folder
from nbridge.data.images.files import ImageTarget
from nbridge.data.images.inputs import check_apart, inputs_of, places_of
from nbridge.data.images.rows import ImageRows
from nbridge.data.images.sets import images_of
from nbridge.data.images.tables import ImageFolder, ImagePaths
from nbridge.data.schema import ColumnsSchema
from nbridge.data.source import Binding, DataSource, are_paths, check_whole, is_path, paths_of
from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.numbers import check_joinable
from nbridge.data.tables.opening import find_table, is_table_folder, open_table
from nbridge.data.tables.row_list import ROWS, table_of_rows
from nbridge.data.tables.source import Table, name_of, open_listed
from nbridge.data.tables.text_folder import texts_among
from nbridge.errors import DataError
from nbridge.spec.option_types import MissingFiles, Resize


class Images(Table):
    """Image files: a folder per modality, or a column of paths in a table; other columns of the table can be modalities as well.

    The file ``faces/anna.png`` is the image of the row ``anna``. Rows of folders and tables are joined on that identifier; a modality is
    absent where its folder or table has no such row. Images are read into memory, grey for shape [1, H, W] and RGB for [3, H, W], as values
    from 0 to 1, multiples of 1/255, which `bernoulli` and `discretized_logistic` accept. The EXIF orientation is applied, and transparent
    pixels are composited on white. Hidden files, and files without an image ending, are ignored.

    Arguments:
        folders: The image folder of each modality.
        files: The column of image paths, for each modality without a folder.
        table: A csv or parquet file, or several to join, as in `table`.
        root: The folder that paths in columns are relative to; the table's own if None.
        columns: The columns of each other modality: a name, a pattern such as lab_*, or a list; by default the column of the same name.
        classes: The ordered classes of categorical columns, as in `table`.
        id: The column of identifiers in tables; with folders it holds file names without endings.
        missing: Additional placeholders for absent cells, such as -999 or unknown.
        resize: How to convert images of another size: crop keeps the centre, pad adds bars, stretch changes the
            proportions. Without it an image of another size is an error.
        missing_files: absent treats a missing file as an absent image; by default it is an error.
    """

    def __init__(
        self,
        *,
        folders: dict[str, str] | None = None,
        files: dict[str, str] | None = None,
        table: str | tuple[str, ...] = (),
        root: str | None = None,
        columns: dict[str, str | tuple[str, ...]] | None = None,
        classes: dict[str, tuple[str | int | float, ...]] | None = None,
        id: str = "id",  # noqa: A002 (a key of the YAML)
        missing: tuple[str | int | float, ...] = (),
        resize: Resize | None = None,
        missing_files: MissingFiles = "refuse",
    ) -> None:
        super().__init__(path=table, columns={**(columns or {}), **(files or {})}, classes=classes, id=id, missing=missing)
        self.folders, self.path_columns = folders or {}, files or {}
        self.root, self.missing_files = root, missing_files
        self.resize: Resize | None = resize
        self._asked = dict(columns or {})
        self.into_folder, self._rows = True, tuple[str, ...]()

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:
        if not are_paths(rows):
            return False
        if own is None:
            folders = [Path(path) for path in paths_of(rows) if is_folder(path)]
            return any(not is_table_folder(find_folder(folder)) for folder in folders)
        return isinstance(own, Images) and not (is_path(rows) and holds_arrays(str(rows)))

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> Images:
        found = cls() if own is None else copy(own)
        assert isinstance(found, Images), "images are bound by the source that they were trained from"
        found._rows = paths_of(rows)
        return found

    @contextmanager
    def schema(self) -> Iterator[ColumnsSchema]:
        found = {path: find_file_or_folder(path) for path in self._rows}
        folders = [path for path, place in found.items() if place.is_dir() and not is_table_folder(place)]
        tables = [path for path in found if path not in folders]
        source: dict[str, object] = {"source": "table", "path": tables[0] if len(tables) == 1 else tables}
        images = [one for path in folders for one in images_of(path, found[path])]
        opened = [open_listed(found[path]) for path in tables]
        yield ColumnsSchema(name_of([*found.values()]), source, listing(self._rows), tables=opened, images=images)

    @contextmanager
    def blocks(self, binding: Binding, scratch: Path) -> Iterator[RowReader]:
        shapes = binding.shapes
        layout, given = self.layout_of(shapes), inputs_of(self, self._rows)
        folders = {name: self.folder(name, path, shapes) for name, path in given.folders.items()}
        tables = self.with_images([open_table(path, self.id) for path in given.tables], shapes, given.root)
        if all(table.named_by_files for table in tables):
            tables = [table_of_rows([*folders.values(), *texts_among(tables)], scratch / ROWS, self.id), *tables]
        rows = ImageRows(tables, folders, layout, tuple(binding.taken), places_of(self, given), whole=given.whole)
        rows.appended = {path: count for path, count in rows.appended.items() if path != str(scratch / ROWS)}
        yield rows

    def check_output(self, target: Path, *, sharded: bool) -> None:
        check_whole(sharded=sharded)
        check_apart(target, inputs_of(self, self._rows))

    def files(self, shapes: Mapping[str, tuple[int, ...]]) -> list[TableFile]:
        """Opens the tables and folders; nothing is decoded yet.

        Raises:
            DataError: when one can't be read, an option refers to no modality, or a modality's shape is not an image shape.
        """
        if self._given is not None:
            return [self._given]
        self._check(shapes)
        tables = self.with_images([open_table(find_table(path), self.id) for path in self.paths], shapes)
        found = [*tables, *(self.folder(name, find_folder(folder), shapes) for name, folder in self.folders.items())]
        if len(found) > 1:
            check_joinable(found, self.id)
        return found

    def folder(self, name: str, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> ImageFolder:
        """The folder of a modality.

        Arguments:
            name: The modality.
            path: The folder.
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: as for `files`.
        """
        return ImageFolder(path, self.id, ImageTarget(name, shapes[name], self.resize))

    def with_images(self, tables: list[TableFile], shapes: Mapping[str, tuple[int, ...]], root: Path | None = None) -> list[TableFile]:
        """Opens tables with columns of image paths.

        Arguments:
            tables: The tables.
            shapes: The shape of a row of each modality, by name.
            root: The folder that paths are relative to, instead of the configured one.

        Raises:
            DataError: as for `files`.
        """
        frames = {column: ImageTarget(name, shapes[name], self.resize) for name, column in self.path_columns.items()}
        known = find_folder(self.root) if root is None and self.root is not None else root
        return [
            ImagePaths(table, own, known or Path(table.path).parent, self.missing, strict=self.missing_files == "refuse")
            if (own := {column: frame for column, frame in frames.items() if column in table.columns})
            else table
            for table in tables
        ]

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        options = super().bind(shapes)
        columns = {name: names for name, names in options["columns"].items() if name not in {*self.folders, *self.path_columns}}
        return {**options, "columns": columns}

    def remarks(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
        folders = [file for file in self.files(shapes) if isinstance(file, ImageFolder)]
        return tuple(f"{folder.path}: passed over, no images by their names: {folder.passed_over}" for folder in folders if folder.others)

    def _check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Checks the options that can be checked without data."""
        keys_of(shapes, self.folders, "folders")
        keys_of(shapes, self.path_columns, "files")
        keys_of(shapes, self.words(self._asked), "columns")
        if not self.folders and not self.path_columns:
            raise DataError("images: neither folders nor files; name the folder of a modality, folders: {image: faces}, or source: table")
        ways = {"folders": self.folders, "files": self.path_columns, "columns": self._asked}
        for name in shapes:
            if len(said := [option for option, names in ways.items() if name in names]) > 1:
                raise DataError(f"modality {name!r}: in {listing(said)}, expected one of them")
        if self.path_columns and not self.paths:
            raise DataError("files: columns of a table, but data.table is not set")
        if self.folders and not self.id:
            raise DataError("id: folders of images have identifiers, the names of their files; leave id out, or name the column of a table")
