"""Imputes image files, and tables joined with them, and writes the completed folders and tables into one folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from nbridge.common.atomic_files import scratch_beside, writing
from nbridge.common.messages import clip, listing
from nbridge.data.folders import find_file, find_file_or_folder, find_folder
from nbridge.data.images.files import images_in, is_image
from nbridge.data.images.rows import ImageRows
from nbridge.data.images.source import Images
from nbridge.data.images.tables import ImageFolder
from nbridge.data.images.write import Place
from nbridge.data.tables.columns import TableFile, ending_of, open_table
from nbridge.data.tables.csv import as_cell
from nbridge.data.tables.join import JoinedRows
from nbridge.data.tables.layout import TableLayout
from nbridge.errors import DataError
from nbridge.inference.file_completion import ImputationOptions, complete
from nbridge.inference.file_plan import Progress
from nbridge.inference.joined_completion import TablesCompleted
from nbridge.inference.served import Served

ROWS = "rows.csv"
"""The table of rows that is written if no table was given."""


@dataclass
class _Given:
    """The files to impute.

    Arguments:
        tables: Paths of tables.
        folders: The image folder of each modality that has one.
        root: The folder that paths in tables are relative to, if one is given.
        direct: Whether the only input is one folder of images, so that the output is one as well.
    """

    tables: list[Path] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    root: Path | None = None
    direct: bool = False


def impute_images(
    model: Served,
    target: str | Path,
    rows: Sequence[str | Path] = (),
    options: ImputationOptions | None = None,
    *,
    progress: Progress | None = None,
) -> TablesCompleted:
    """Imputes missing images in folders, and missing values in the tables joined with them.

    Each folder of images is written with its existing files, byte for byte, and a PNG file ``ID.png`` for each imputed image, or
    ``ID.1.png`` to ``ID.K.png`` for K samples, in the model's image size; in a column of paths, empty cells are filled with the names of
    these files. Tables keep their format, order and observed values, as in `nbridge.inference.joined_completion.impute_tables`. The first
    table marks imputed images in ``NAME__imputed``; without a table, rows.csv is written. Intervals apply to table columns only. All rows
    are read into memory, and the output is written atomically.

    Arguments:
        model: A model trained from image files.
        target: The folder to write. An existing folder is replaced if it contains only files of these names.
        rows: Tables, image folders named after a modality or after its folder in the source, or a folder that contains these; those of
            the source by default.
        options: Imputation options; a point estimate by default.
        progress: Progress callback: (stage, done, total).

    Raises:
        DataError: if rows do not match the model or cannot be joined, or the folder cannot be written.
    """
    table, images = model.binding.table, model.binding.images
    if table is None or images is None:
        raise DataError("this model was not trained from image files (data: {source: images})")
    source = Images(**images)
    options = options or ImputationOptions()
    options.check()
    folder, given = Path(target), _given(source, rows)
    places = _places(source, given)
    if options.intervals and set(model.names) <= set(places):
        raise DataError("intervals apply to table columns, and this model has only images; use --samples K instead")
    _check_apart(folder, given)
    with writing(folder, DataError), scratch_beside(folder) as scratch:
        tables, folders = _opened(source, table, given, scratch)
        read = ImageRows(tables, folders, table, places, samples=options.samples, levels=options.intervals)
        _check_older(folder, read.names, direct=given.direct)
        keys = {name: name for name in model.names}
        done = complete(model, read, partial(read.writing, folder), options, keys=keys, progress=progress)
        lacking = {path: count for path, count in read.lacking.items() if given.tables}
    return TablesCompleted(done, tuple(folder / Path(table.path).name for table in tables), lacking)


def read_images(model: Served, rows: Sequence[str | Path]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Reads image files and the tables joined with them: arrays by modality, and row identifiers if available.

    Arguments:
        model: A model trained from image files.
        rows: Tables and folders, as `impute_images` takes them.

    Raises:
        DataError: if they cannot be read or joined.
    """
    layout, images = model.binding.table, model.binding.images
    assert layout is not None
    assert images is not None
    source = Images(**images)
    with TemporaryDirectory() as scratch:
        tables, folders = _opened(source, layout, _given(source, rows), Path(scratch))
        read = JoinedRows([*tables, *folders.values()], layout)
        (block,) = read.blocks(read.there, 0, read.rows, read.rows)
        return dict(block.arrays), read.ids


def _opened(source: Images, layout: TableLayout, given: _Given, scratch: Path) -> tuple[list[TableFile], dict[str, ImageFolder]]:
    """Opens the tables, at least one, and the folder of each modality that has one."""
    folders = {name: source.folder(name, path, layout.shapes) for name, path in given.folders.items()}
    tables = source.with_images([open_table(path) for path in given.tables], layout.shapes, given.root)
    return tables or [_rows_of(folders.values(), scratch / ROWS, source.id)], folders


def _given(source: Images, rows: Sequence[str | Path]) -> _Given:
    """The given tables and folders; those of the source if none are given."""
    if not rows:
        named = {name: find_folder(folder) for name, folder in source.folders.items()}
        return _Given([find_file(path) for path in source.paths], named)
    given = _Given()
    for path in rows:
        found = find_file_or_folder(path)
        if found.is_dir():
            _take_folder(given, source, found)
        elif ending_of(found):
            given.tables.append(found)
        else:
            raise DataError(f"{path}: expected image folders or tables (.csv, .tsv, .csv.gz, .tsv.gz, .parquet)")
    given.direct = len(rows) == 1 and given.direct
    if given.root is not None and not given.tables:
        raise DataError(f"{given.root}: a table column holds the paths of this model's images; pass the table as well")
    return given


def _take_folder(given: _Given, source: Images, found: Path) -> None:
    """Adds a folder: that of a modality, one that contains such folders, or the one that paths in tables are relative to."""
    names = {name: {name, Path(folder).name} for name, folder in source.folders.items()}
    if not images_in(found).images:
        inside = {name: found / sub for name, known in names.items() for sub in sorted(known) if (found / sub).is_dir()}
        if not inside and (names or not source.path_columns):
            raise DataError(f"{found}: no images in this folder, and no folder named {listing(sorted(set().union(*names.values())))}")
        given.folders |= inside
        given.root = given.root if inside else found
        return
    if not names:
        given.root = found
        return
    fitting = [name for name, known in names.items() if found.name in known]
    chosen = fitting if fitting else list(names) if len(names) == 1 else []
    if len(chosen) != 1:
        raise DataError(f"{found}: ambiguous modality; name the folder after a modality or its folder in the source: {listing(names)}")
    if chosen[0] in given.folders:
        raise DataError(f"{found}: images of {chosen[0]!r}, like {given.folders[chosen[0]]}; pass only one of them")
    given.folders[chosen[0]], given.direct = found, True


def _places(source: Images, given: _Given) -> dict[str, Place]:
    """Where the images of each modality are written: in a folder named as the one they were read from."""
    if given.direct:
        (name,) = given.folders
        others = [other for other in source.folders if other != name]
        return {name: Place("."), **{other: Place(other) for other in others}, **_path_places(source, given)}
    folders = {name: Path(given.folders.get(name, folder)).resolve().name for name, folder in source.folders.items()}
    called = list(folders.values())
    own = {name: Place(folder if called.count(folder) == 1 else name) for name, folder in folders.items()}
    return {**own, **_path_places(source, given)}


def _path_places(source: Images, given: _Given) -> dict[str, Place]:
    root = given.root or (None if source.root is None else Path(source.root))
    return {name: Place("." if root is None else root.resolve().name, column) for name, column in source.path_columns.items()}


def _rows_of(folders: Iterable[ImageFolder], path: Path, id_column: str) -> TableFile:
    """Writes a table with the identifiers of all images in the folders, and opens it."""
    stems = dict.fromkeys(stem for folder in folders for stem in folder.stems)
    path.write_text("\n".join([as_cell(id_column, ","), *(as_cell(stem, ",") for stem in stems), ""]), encoding="utf-8", newline="\n")
    return open_table(path)


def _check_apart(target: Path, given: _Given) -> None:
    """Checks that input and output folders do not contain each other."""
    whole = target.resolve()
    for folder in (*given.folders.values(), *([given.root] if given.root else []), *(path.parent for path in given.tables)):
        if folder.resolve().is_relative_to(whole):
            raise DataError(f"{target}: contains the input {folder}; choose another folder")
    for folder in given.folders.values():
        if whole.is_relative_to(folder.resolve()):
            raise DataError(f"{target}: inside the input folder {folder}; choose another")


def _check_older(target: Path, names: Collection[str], *, direct: bool) -> None:
    """Checks that an existing folder contains only files of an earlier imputation."""
    if not target.exists():
        return
    if not target.is_dir():
        raise DataError(f"{target}: a file, expected a folder")
    if other := sorted(file.name for file in target.iterdir() if file.name not in names and not (direct and is_image(file.name))):
        raise DataError(f"{target}: the folder contains other files ({clip(other[0])}); choose another")
