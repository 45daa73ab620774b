"""Joined images and tables, read as one set of rows and written back as the same folders and tables.

Existing files are copied byte for byte; an imputed image is written as a new PNG file. In a folder it is named by the identifier of its
row, ``anna.png``, or for K draws ``anna.1.png`` to ``anna.K.png``; a column of paths gets its path in the empty cell. The first table
records which images were imputed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from nbridge.common.atomic_files import replace_folder, scratch_beside
from nbridge.common.messages import clip, quoted
from nbridge.data.blocks import Block, Output, RowWriter
from nbridge.data.images.files import is_image, write_png
from nbridge.data.images.tables import ImageFolder, ImagePaths
from nbridge.data.images.write import NewImages, Place, name_images
from nbridge.data.imputed import Imputed, select
from nbridge.data.tables.cell_format import CellStyle
from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.join import AllRows, JoinedRows, Part, check_names, write_part
from nbridge.data.tables.layout import TableLayout
from nbridge.errors import DataError


class ImageRows(JoinedRows):
    """Tables and image folders, in memory.

    Arguments:
        tables: The tables, one or more.
        folders: The folder of each modality that has one.
        layout: The columns of each modality.
        names: The modalities of the model.
        places: Where the images of each modality are written.
        whole: Whether the images of one folder are the only input, so that the output is a folder of images as well.

    Attributes:
        places: As given.

    Raises:
        DataError: when rows can't be read or joined.
    """

    def __init__(
        self,
        tables: Sequence[TableFile],
        folders: Mapping[str, ImageFolder],
        layout: TableLayout,
        names: Sequence[str],
        places: Mapping[str, Place],
        *,
        whole: bool = False,
    ) -> None:
        check_names(tables)
        super().__init__([*tables, *folders.values()], layout, names)
        self.places, self._whole = places, whole
        self._existing = {name: _files(place, tables, folders.get(name)) for name, place in places.items()}
        self.parts = self.parts[: len(tables)]
        self.file_names = tuple(Path(part.file.path).name for part in self.parts)
        self.appended = {str(part.file.path): len(part.more) for part in self.parts if part.more}

    def shape(self, modality: str) -> tuple[int, ...]:
        """The shape of an image."""
        return self._layout.shapes[modality]

    @contextmanager
    def writing(self, target: Path | None, output: Output) -> Iterator[RowWriter]:
        assert target is not None, "images are files"
        if output.statistics and set(self.names) <= set(self.places):
            raise DataError("intervals apply to table columns, and this model has only images; use --samples K instead")
        new = self._new_files(output.draws)
        self._check_older(target, new)
        with scratch_beside(target) as scratch:
            folder = scratch / "images"
            folder.mkdir()
            out = _ImageWriter(self, folder, new)
            yield out
            for name, place in self.places.items():
                _copy(self._existing[name], folder / place.folder)
            imputed = out.imputed()
            for number, part in enumerate(self.parts):
                write_part(self._as_written(part, new, first=number == 0), folder / Path(part.file.path).name, imputed)
            replace_folder(target, folder)

    def _new_files(self, draws: int | None) -> dict[str, NewImages]:
        """The files of imputed images, by modality."""
        taken: dict[str, set[str]] = {}
        for name, place in self.places.items():
            taken.setdefault(place.folder, set()).update(self._existing[name])
        return {name: self._named(name, taken[place.folder], draws) for name, place in self.places.items()}

    def _check_older(self, target: Path, new: Mapping[str, NewImages]) -> None:
        """Checks that an existing folder contains only files of an earlier imputation."""
        if not target.exists():
            return
        if not target.is_dir():
            raise DataError(f"{target}: a file, expected a folder")
        written = {
            Path(place.folder, own).parts[0] for name, place in self.places.items() for own in (*self._existing[name], *new[name].names)
        }
        others = {file.name for file in target.iterdir()} - written - set(self.file_names)
        if other := sorted(name for name in others if not (self._whole and is_image(name))):
            raise DataError(f"{target}: the folder contains other files ({clip(other[0])}); choose another")

    def _named(self, name: str, taken: set[str], draws: int | None) -> NewImages:
        absent = np.isnan(self._arrays[name][:, 0]) if name in self._arrays else np.ones(self.rows, dtype=bool)
        rows = np.flatnonzero(absent).tolist()
        said = self._said(self.places[name].column)
        stems = [Path(said.get(row, "")).stem or str(row if self._read.ids is None else self._read.ids[row]) for row in rows]
        beside = str(Path(next(iter(self._existing[name]), f"{name}/_")).parent) if self.places[name].column else None
        return name_images(name, rows, stems, self.rows, taken, draws=draws, beside=beside)

    def _said(self, column: str) -> dict[int, str]:
        """The paths in a column, by row, whether the files exist or not."""
        table = next((file for file in self._files if isinstance(file, ImagePaths) and column in file.columns), None)
        if table is None:
            return {}
        texts = table.texts(column)
        places = np.arange(self.rows) if self._read.rows is None else self._read.rows[str(table.path)]
        return {row: texts[place] for row, place in enumerate(places.tolist()) if place >= 0}

    def _as_written(self, part: Part, new: Mapping[str, NewImages], *, first: bool) -> Part:
        """A table as written: a column of paths has a class for each new file; other images only have a mask column."""
        columns = {name: place.column for name, place in self.places.items() if place.column}
        elsewhere = [name for name in self.places if name not in columns]
        texts = {column: new[name].names for name, column in columns.items()}
        layout = replace(
            part.plan.layout,
            shapes={**part.plan.layout.shapes, **{name: (max(2, len(texts[column])),) for name, column in columns.items()}},
            classes={**part.plan.layout.classes, **texts},
            lists=part.plan.layout.lists.difference(column for name in self.places for column in part.plan.layout.columns[name]),
        )
        assert part.plan.written is not None, "what is joined knows which table has what"
        plan = replace(
            part.plan,
            layout=layout,
            styles={**part.plan.styles, **{column: CellStyle(own) for column, own in texts.items()}},
            written=part.plan.written.difference(column for name in elsewhere for column in layout.columns[name]),
            elsewhere=tuple(elsewhere) if first else (),
        )
        return replace(part, plan=plan, file=part.file.file if isinstance(part.file, ImagePaths) else part.file)


class _ImageWriter(RowWriter):
    """Writes images into a folder as they come; everything else is written with the tables.

    Arguments:
        rows: The rows read.
        folder: The folder.
        new: The files of imputed images, by modality.
    """

    def __init__(self, rows: ImageRows, folder: Path, new: Mapping[str, NewImages]) -> None:
        self._rows, self._folder, self._new = rows, folder, new
        self._others = AllRows()

    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:
        images = [name for name in self._rows.places if name in imputed.values]
        for name in images:
            self._write(name, block.start, imputed)
        others = [name for name in imputed.values if name not in images]
        self._others.write(block, replace(select(imputed, others), mask=imputed.mask, earlier=imputed.earlier))

    def imputed(self) -> Imputed[np.ndarray]:
        """All rows of the tables, with the numbers of the files of images."""
        imputed = self._others.imputed()
        numbers = {name: self._new[name].numbers() for name, place in self._rows.places.items() if place.column and name in imputed.mask}
        own = {name: number if imputed.draws is not None else number[0] for name, number in numbers.items()}
        return replace(imputed, values={**imputed.values, **own})

    def _write(self, name: str, first: int, imputed: Imputed[np.ndarray]) -> None:
        folder = self._folder / self._rows.places[name].folder
        for row in np.flatnonzero(imputed.mask[name]).tolist():
            for file, images in zip(self._new[name].of(first + row), imputed.each_draw(name), strict=True):
                path = folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                write_png(path, images[row].reshape(self._rows.shape(name)))


def _files(place: Place, tables: Sequence[TableFile], folder: ImageFolder | None) -> dict[str, Path]:
    """Existing files of a modality, by paths relative to its folder; absolute paths are left out."""
    if folder is not None:
        return {path.name: path for path in folder.images}
    table = next((table for table in tables if isinstance(table, ImagePaths) and place.column in table.columns), None)
    found: dict[str, Path] = {}
    if table is None:
        return found
    for row, text in enumerate(table.texts(place.column)):
        own = os.path.normpath(text)
        if Path(own).parts[:1] == ("..",):
            raise DataError(
                f"{table.path}: column {clip(place.column)!r}: {table.where(row)} names {quoted(text)}, outside of {table.root}, so that "
                "it can't be copied with the table; name a folder above both, data.root, or write absolute paths"
            )
        if (path := table.file_of(text)) is not None and not Path(own).is_absolute():
            found[own] = path
    return found


def _copy(files: Mapping[str, Path], folder: Path) -> None:
    """Copies files into a folder, at their relative paths."""
    for own, path in files.items():
        (folder / own).parent.mkdir(parents=True, exist_ok=True)
        # Two columns may refer to the same file.
        if not (folder / own).exists():
            shutil.copyfile(path, folder / own)
