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
from nbridge.data.images.files import write_png
from nbridge.data.images.tables import ImageFolder, ImagePaths
from nbridge.data.images.write import NewImages, Place, name_images
from nbridge.data.streaming.blocks import Block, Filled, Output, RowsOut
from nbridge.data.tables.cell_format import CellStyle
from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.join import AllRows, JoinedRows, Part, check_names, write_part
from nbridge.data.tables.layout import TableLayout
from nbridge.data.tables.output_columns import IMPUTED
from nbridge.errors import DataError


class ImageRows(JoinedRows):
    """Tables and image folders, in memory.

    Arguments:
        tables: The tables, one or more.
        folders: The folder of each modality that has one.
        layout: The columns of each modality.
        places: Where the images of each modality are written.
        samples: The number K of draws; None for one image per row.
        levels: The levels of intervals, used in column names; images have none.

    Attributes:
        places: As given.
        samples: As given.
        new: The files of imputed images, by modality.

    Raises:
        DataError: when rows can't be read or joined, or an image can't be written.
    """

    def __init__(
        self,
        tables: Sequence[TableFile],
        folders: Mapping[str, ImageFolder],
        layout: TableLayout,
        places: Mapping[str, Place],
        *,
        samples: int | None = None,
        levels: Sequence[float] = (),
    ) -> None:
        check_names(tables)
        super().__init__([*tables, *folders.values()], layout, levels)
        self.places, self.samples = places, samples
        self._there = {name: _files(place, tables, folders.get(name)) for name, place in places.items()}
        taken: dict[str, set[str]] = {}
        for name, place in places.items():
            taken.setdefault(place.folder, set()).update(self._there[name])
        self.new = {name: self._named(name, taken[place.folder]) for name, place in places.items()}
        self.parts = [self._as_written(part, first=number == 0) for number, part in enumerate(self.parts[: len(tables)])]
        self.lacking = {str(part.file.path): len(part.more) for part in self.parts if part.more}

    def shape(self, modality: str) -> tuple[int, ...]:
        """The shape of an image."""
        return self._layout.shapes[modality]

    @property
    def names(self) -> set[str]:
        """The output paths, by file or folder name."""
        files = {
            Path(place.folder, own).parts[0] for name, place in self.places.items() for own in (*self._there[name], *self.new[name].names)
        }
        return files | {Path(part.file.path).name for part in self.parts}

    @contextmanager
    def writing(self, target: Path, output: Output) -> Iterator[RowsOut]:  # noqa: ARG002 (all rows are written)
        with scratch_beside(target) as scratch:
            folder = scratch / "images"
            folder.mkdir()
            out = _ImagesOut(self, folder)
            yield out
            for name, place in self.places.items():
                _copy(self._there[name], folder / place.folder)
            done = out.done()
            for part in self.parts:
                write_part(part, folder / Path(part.file.path).name, done)
            replace_folder(target, folder)

    def _named(self, name: str, taken: set[str]) -> NewImages:
        absent = np.isnan(self._arrays[name][:, 0]) if name in self._arrays else np.ones(self.rows, dtype=bool)
        rows = np.flatnonzero(absent).tolist()
        said = self._said(self.places[name].column)
        stems = [Path(said.get(row, "")).stem or str(row if self._read.ids is None else self._read.ids[row]) for row in rows]
        beside = str(Path(next(iter(self._there[name]), f"{name}/_")).parent) if self.places[name].column else None
        return name_images(name, rows, stems, self.rows, taken, samples=self.samples, beside=beside)

    def _said(self, column: str) -> dict[int, str]:
        """The paths in a column, by row, whether the files exist or not."""
        table = next((file for file in self._files if isinstance(file, ImagePaths) and column in file.columns), None)
        if table is None:
            return {}
        texts = table.texts(column)
        places = np.arange(self.rows) if self._read.rows is None else self._read.rows[str(table.path)]
        return {row: texts[place] for row, place in enumerate(places.tolist()) if place >= 0}

    def _as_written(self, part: Part, *, first: bool) -> Part:
        """A table as written: a column of paths has a class for each new file; other images only have a mask column."""
        columns = {name: place.column for name, place in self.places.items() if place.column}
        elsewhere = [name for name in self.places if name not in columns]
        texts = {column: self.new[name].names for name, column in columns.items()}
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


class _ImagesOut(RowsOut):
    """Writes images into a folder as they come; everything else is written with the tables.

    Arguments:
        rows: The rows read.
        folder: The folder.
    """

    def __init__(self, rows: ImageRows, folder: Path) -> None:
        self._rows, self._folder = rows, folder
        self._others = AllRows()

    def write(self, block: Block, done: Mapping[str, Filled]) -> None:
        images = [name for name in self._rows.places if name in done]
        for name in images:
            self._write(name, block.start, done[name], done[name + IMPUTED].array)
        others = {key: filled for key, filled in done.items() if key.endswith(IMPUTED) or key.partition("__")[0] not in images}
        self._others.write(block, others)

    def done(self) -> dict[str, Filled]:
        """All rows of the tables."""
        done = self._others.done()
        for name, place in self._rows.places.items():
            if place.column and name + IMPUTED in done:
                numbers = self._rows.new[name].numbers()
                done[name] = Filled(numbers[0]) if self._rows.samples is None else Filled(numbers, 1)
        return done

    def _write(self, name: str, first: int, filled: Filled, mask: np.ndarray) -> None:
        folder = self._folder / self._rows.places[name].folder
        drawn = filled.array if filled.axis else filled.array[None]
        for row in np.flatnonzero(mask).tolist():
            for file, images in zip(self._rows.new[name].of(first + row), drawn, strict=True):
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
