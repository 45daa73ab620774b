"""A folder of text files as a table: one text a row, identified by the name of its file."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.blocks import Block, RowWriter
from nbridge.data.endings import IMAGES, PLAIN, files_ending, parquet_files
from nbridge.data.ids import check_stem, identifier_of
from nbridge.data.imputed import Imputed
from nbridge.data.tables.arrow import pyarrow_of
from nbridge.data.tables.columns import CHUNK, Chunk, TableFile
from nbridge.data.tables.output_columns import CellPlan, output_columns
from nbridge.errors import DataError


def is_text_folder(path: Path) -> bool:
    """Whether a path is a folder with text files, and neither images nor the parts of a Parquet table."""
    try:
        return path.is_dir() and bool(files_ending(path, PLAIN)) and not files_ending(path, *IMAGES) and not parquet_files(path)
    except OSError:
        # Whoever opens the folder reports it.
        return False


class TextFolder(TableFile):
    """A folder of text files, as a table of two columns: identifiers, which are file names without ``.txt``, and texts.

    Files are UTF-8; line breaks at the end of a file do not belong to its text, and an empty file is an absent text. The column of
    texts is called as the folder. Hidden files, subfolders and files of other endings are ignored.

    Arguments:
        folder: The folder.
        id_column: The name of the identifier column.

    Attributes:
        files: The file of each row.

    Raises:
        DataError: when it can't be read, or two files have the same stem.
    """

    named_by_files = True

    def __init__(self, folder: Path, id_column: str = "id") -> None:
        self.path = folder
        try:
            self.files = [path for path in files_ending(folder, PLAIN) if path.is_file()]
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
        stems: dict[str, Path] = {}
        for path in self.files:
            if (other := stems.setdefault(identifier_of(path.stem), path)) is not path:
                raise DataError(f"{folder}: {other.name} and {path.name} have the same stem, so the row's text is ambiguous; remove one")
        self.stems = list(stems)
        self.name = folder.resolve().name
        if self.name == id_column:
            raise DataError(f"{folder}: the folder is called as the column of identifiers ({clip(id_column)!r}); rename it")
        self._id, self.columns = id_column, (id_column, self.name)

    def identified_by(self, column: str) -> TextFolder:
        return TextFolder(Path(self.path), column)

    def where(self, row: int) -> str:
        return self.files[row].name

    def chunks(self, columns: Iterable[str], size: int = CHUNK) -> Iterator[Chunk]:
        columns, pa = tuple(columns), pyarrow_of()
        for start in range(0, len(self.files), size):
            part = self.files[start : start + size]
            cells = {self._id: pa.array(self.stems[start : start + size], pa.large_string())} if self._id in columns else {}
            if self.name in columns:
                cells[self.name] = pa.array([text_of(path) for path in part], pa.large_string())
            yield Chunk(start, len(part), cells, files=part)


def text_of(path: Path) -> str:
    """The text of a UTF-8 file, without line breaks at its end.

    Raises:
        DataError: when it can't be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").rstrip("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def texts_among(files: Iterable[TableFile]) -> list[TextFolder]:
    """The folders of texts among tables."""
    return [file for file in files if isinstance(file, TextFolder)]


class TextFolderWriter(RowWriter):
    """Writes a folder of texts: files with a text are copied byte for byte, imputed ones are UTF-8 and end with a line break.

    With several draws, the imputed texts of row p7 are ``p7.1.txt``, ``p7.2.txt`` and so on.

    Arguments:
        path: The new folder.
        file: The folder that was read.
        more: The identifiers of rows that it lacks, which follow its own.
    """

    def __init__(self, path: Path, plan: CellPlan, file: TextFolder, more: Sequence[Mapping[str, str]]) -> None:
        self._path, self._plan, self._file = path, plan, file
        self._stems = [*file.stems, *(next(iter(row.values())) for row in more)]
        path.mkdir()

    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:
        texts = next((column for column in output_columns(self._plan, imputed) if column.name == self._file.name), None)
        for row in range(len(imputed)):
            place = block.start + row
            if texts is None or not texts.fill[row]:
                if place < len(self._file.files):
                    own = self._file.files[place]
                    shutil.copyfile(own, self._path / own.name)
                continue
            stem = check_stem(self._stems[place], f"a text of {self._file.name!r}")
            for draw in range(imputed.draws or 1):
                ending = PLAIN if imputed.draws is None else f".{draw + 1}{PLAIN}"
                (self._path / (stem + ending)).write_text(texts.text(draw, row) + "\n", encoding="utf-8", newline="\n")

    def close(self) -> None:
        """Nothing is open."""
