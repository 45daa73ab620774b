"""Images as table columns: a folder, whose rows are named by its files, and a column of paths in a csv or parquet file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from nbridge.common.messages import clip, listing, quoted
from nbridge.data.ids import identifier_of
from nbridge.data.images.files import ENDINGS, ImageTarget, file_at, images_in
from nbridge.data.tables.arrow import pyarrow_of, row_texts
from nbridge.data.tables.columns import CHUNK, Chunk, TableFile
from nbridge.errors import DataError

AT_ONCE = 256
"""Number of images decoded at a time."""


class ImageFolder(TableFile):
    """A folder of images, as a table of two columns: identifiers, which are file names without endings, and images.

    Arguments:
        folder: The folder.
        id_column: The name of the identifier column.
        frame: The target that images are decoded to; its name is that of their column. Without it the table has identifiers only.

    Attributes:
        images: The file of each row.

    Raises:
        DataError: when it can't be read, holds no image, or has two with the same stem.
    """

    def __init__(self, folder: Path, id_column: str, frame: ImageTarget | None = None) -> None:
        self.path = folder
        self.images, self.others = images_in(folder)
        if not self.images:
            raise DataError(f"{folder}: no image in this folder ({listing(ENDINGS)})")
        self._id, self._frame = id_column, frame
        self.columns = (id_column,) if frame is None else (id_column, frame.name)

    @property
    def stems(self) -> list[str]:
        """The row identifiers."""
        return [identifier_of(path.stem) for path in self.images]

    @property
    def passed_over(self) -> str:
        """Describes the files that are not images."""
        return clip(listing(path.name for path in self.others), 100)

    def is_list(self, column: str) -> bool:
        return column != self._id

    def whole_bytes(self, column: str) -> bool:
        return column != self._id

    def where(self, row: int) -> str:
        return self.images[row].name

    def chunks(self, columns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
        columns = tuple(columns)
        size = min(size, AT_ONCE) if self.columns[-1] in columns else size
        for start in range(0, len(self.images), size):
            part = self.images[start : start + size]
            cells = {self._id: pyarrow_of().array([identifier_of(path.stem) for path in part])} if self._id in columns else {}
            vectors = {}
            if self._frame is not None and self._frame.name in columns:
                vectors[self._frame.name] = decoded(self._frame, part)
            yield Chunk(start, len(part), cells, vectors=vectors)


class ImagePaths(TableFile):
    """A table some of whose columns hold image paths; other columns are unchanged.

    Arguments:
        file: The table.
        frames: The decoding target of each image column.
        root: The folder that paths are relative to.
        missing: Further placeholders of absent cells.
        strict: Whether a missing file is an error; otherwise its image is absent.
    """

    def __init__(
        self, file: TableFile, frames: Mapping[str, ImageTarget], root: Path, missing: Collection[str], *, strict: bool = True
    ) -> None:
        self.file, self.root = file, root
        self.path, self.columns, self.absent = file.path, file.columns, file.absent
        self._frames, self._missing, self._strict = frames, file.absent.union(missing), strict

    def is_list(self, column: str) -> bool:
        return column in self._frames or self.file.is_list(column)

    def unfit(self, column: str) -> str:
        return self.file.unfit(column)

    def classes(self, column: str) -> tuple[str, ...]:
        return () if column in self._frames else self.file.classes(column)

    def whole_bytes(self, column: str) -> bool:
        return column in self._frames or self.file.whole_bytes(column)

    def where(self, row: int) -> str:
        return self.file.where(row)

    def chunks(self, columns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
        columns = tuple(columns)
        taken = [column for column in columns if column in self._frames]
        for chunk in self.file.chunks(columns, min(size, AT_ONCE) if taken else size):
            images = {column: self._decoded(chunk, column) for column in taken}
            cells = {column: array for column, array in chunk.columns.items() if column not in taken}
            yield Chunk(chunk.start, chunk.rows, cells, chunk.lines, {**chunk.vectors, **images}, self.absent)

    def as_text(self) -> TableFile:
        return self.file

    def texts(self, column: str) -> list[str]:
        """The paths of all rows in a column; empty where absent."""
        texts = (text for chunk in self.file.chunks([column]) for text in row_texts(chunk.column(column), str.strip))
        return ["" if text in self._missing else text for text in texts]

    def file_of(self, text: str) -> Path | None:
        """The file of a cell; None if the cell is empty or the file does not exist."""
        return None if text in self._missing else file_at(self.root, text)

    def _decoded(self, chunk: Chunk, column: str) -> np.ndarray:
        texts = row_texts(chunk.column(column), str.strip).tolist()
        paths = [self.file_of(text) for text in texts]
        for row, (text, path) in enumerate(zip(texts, paths, strict=True)):
            if self._strict and path is None and text not in self._missing:
                raise DataError(
                    f"{self.path}: column {clip(column)!r}: {chunk.where(row)} names {quoted(text)}, no such file in {self.root}; leave "
                    "cells of absent images empty, or set data.missing_files: absent"
                )
        return decoded(self._frames[column], paths)


def decoded(frame: ImageTarget, paths: Sequence[Path | None]) -> np.ndarray:
    """Decodes images to values from 0 to 1, multiples of 1/255, shape (N, C, H, W); NaN where there is none.

    Arguments:
        frame: The decoding target.
        paths: The files; None for rows without one.

    Raises:
        DataError: for the first that can't be read or has another size.
    """
    pixels = np.full((len(paths), *frame.shape), np.nan, np.float32)
    for row, path in enumerate(paths):
        if path is not None:
            pixels[row] = frame.decode(path)
    # In place: the array may be gigabytes.
    pixels /= 255
    return pixels
