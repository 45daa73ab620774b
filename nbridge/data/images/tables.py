"""Images as columns of tables: a folder, whose rows bear the names of its files, and a column of paths in a csv or parquet file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from nbridge.common.messages import clip, listing, quoted
from nbridge.data.ids import identifier_of
from nbridge.data.images.files import ENDINGS, Frame, file_at, images_in
from nbridge.data.tables.columns import CHUNK, Chunk, TableFile
from nbridge.errors import DataError

AT_ONCE = 256
"""Images that are decoded at a time."""


class ImageFolder(TableFile):
    """A folder of images, as a table of two columns: identifiers, which are the names of files without their endings, and images.

    Arguments:
        folder: The folder.
        id_column: What the column of identifiers is called.
        frame: What images are decoded to; its name is that of their column. Without it there are identifiers alone.

    Attributes:
        images: The file of each row.

    Raises:
        DataError: when it can't be read, holds no image, or two of one stem.
    """

    def __init__(self, folder: Path, id_column: str, frame: Frame | None = None) -> None:
        self.path = folder
        self.images, self.others = images_in(folder)
        if not self.images:
            raise DataError(f"{folder}: no image in this folder ({listing(ENDINGS)})")
        self._id, self._frame = id_column, frame
        self.columns = (id_column,) if frame is None else (id_column, frame.name)

    @property
    def stems(self) -> list[str]:
        """The identifiers of the rows."""
        return [identifier_of(path.stem) for path in self.images]

    @property
    def passed_over(self) -> str:
        """What is no image, in words."""
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
            cells = {self._id: [identifier_of(path.stem) for path in part]} if self._id in columns else {}
            vectors = {}
            if self._frame is not None and self._frame.name in columns:
                vectors[self._frame.name] = decoded(self._frame, part)
            yield Chunk(start, len(part), cells, vectors=vectors)


class ImagePaths(TableFile):
    """A table of which some columns hold the paths of images; all others are as they were.

    Arguments:
        file: The table.
        frames: What the images of each of these columns are decoded to.
        root: The folder that paths are relative to.
        missing: Texts of absent cells.
        strict: Whether a file that is not there is a mistake; it is absent otherwise.
    """

    def __init__(self, file: TableFile, frames: Mapping[str, Frame], root: Path, missing: Collection[str], *, strict: bool = True) -> None:
        self.file, self.root = file, root
        self.path, self.columns = file.path, file.columns
        self._frames, self._missing, self._strict = frames, missing, strict

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
            cells = {column: texts for column, texts in chunk.cells.items() if column not in taken}
            yield Chunk(chunk.start, chunk.rows, cells, chunk.lines, {**chunk.vectors, **images})

    def as_text(self) -> TableFile:
        return self.file

    def texts(self, column: str) -> list[str]:
        """The paths of all rows as they stand in a column; empty where it is absent."""
        texts = (text.strip() for chunk in self.file.chunks([column]) for text in chunk.single(column))
        return ["" if text in self._missing else text for text in texts]

    def file_of(self, text: str) -> Path | None:
        """The file that a text names; None where it names none, or one that is not there."""
        return None if text in self._missing else file_at(self.root, text)

    def _decoded(self, chunk: Chunk, column: str) -> np.ndarray:
        texts = [text.strip() for text in chunk.single(column)]
        paths = [self.file_of(text) for text in texts]
        for row, (text, path) in enumerate(zip(texts, paths, strict=True)):
            if self._strict and path is None and text not in self._missing:
                raise DataError(
                    f"{self.path}: column {clip(column)!r}: {chunk.where(row)} names {quoted(text)}, no such file in {self.root}; an empty "
                    "cell is an image that is absent, and with data.missing_files: absent this one is"
                )
        return decoded(self._frames[column], paths)


def decoded(frame: Frame, paths: Sequence[Path | None]) -> np.ndarray:
    """Images as numbers from 0 to 1, whole multiples of 1/255, shape (N, C, H, W); NaN where there is none.

    Arguments:
        frame: What they are decoded to.
        paths: Their files; None of rows that have none.

    Raises:
        DataError: for the first that can't be read or is of another size.
    """
    pixels = np.full((len(paths), *frame.shape), np.nan, np.float32)
    for row, path in enumerate(paths):
        if path is not None:
            pixels[row] = frame.decode(path)
    # In place: there may be gigabytes of them.
    pixels /= 255
    return pixels
