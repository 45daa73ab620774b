"""Rows in a folder of npy files or an npz archive, read and written block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, ClassVar

import numpy as np

from nbridge.common.atomic_files import replace_folder, replacing, scratch_beside
from nbridge.data.endings import ARRAY, files_ending, parquet_files
from nbridge.data.ids import check_ids_layout
from nbridge.data.numpy.class_texts import are_texts, class_numbers, filled_texts, text_type, texts_in
from nbridge.data.numpy.members import Filling, Member, archive_member, file_member
from nbridge.data.numpy.npz import opened_npz, pack_npz
from nbridge.data.streaming.blocks import Block, Filled, Layout, Output, RowsIn, RowsOut
from nbridge.data.tables.output_columns import IMPUTED
from nbridge.errors import DataError

_NUMBER = np.dtype(np.float64)


class ArrayRows(RowsIn):
    """Named arrays; text classes are read as indices and written back as text.

    Arguments:
        members: The arrays.
        packed: Whether they are in an archive, not a folder.
        classes: The ordered classes of text arrays, by array.
    """

    noun: ClassVar[str] = "array"

    def __init__(self, members: Mapping[str, Member], *, packed: bool, classes: Mapping[str, Sequence[str]] | None = None) -> None:
        self.members, self.packed = members, packed
        self.keys = tuple(members)
        listed = classes or {}
        # Numeric arrays stay numeric.
        self._classes = {
            key: texts for key, texts in listed.items() if key not in members or are_texts(members[key].dtype, members[key].shape)
        }

    def layout(self, key: str) -> Layout:
        member = self.members[key]
        return Layout(_NUMBER, member.shape[:1]) if key in self._classes else Layout(member.dtype, member.shape)

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:  # noqa: ARG002
        return sum(self.members[key].dtype.itemsize * prod(self.members[key].shape[1:]) for key in keys)

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        keys = tuple(keys)
        for first in range(start, stop, size):
            arrays = {key: self.members[key].rows(first, min(first + size, stop)) for key in keys}
            texts = {key: array for key, array in arrays.items() if key in self._classes}
            yield Block(first, arrays | {key: self._numbers(key, array, first) for key, array in texts.items()}, table=_Texts(texts))

    def _numbers(self, key: str, array: np.ndarray, first: int) -> np.ndarray:
        what = f"array {key!r}"
        return class_numbers(texts_in(array, what), self._classes[key], what, first)

    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:
        check_ids_layout(self.members[key].shape, self.members[key].dtype, rows)
        return (block.arrays[key] for block in self.blocks([key], 0, rows, size))

    def check_passed(self, key: str) -> None:
        # Archives have checksums.
        for _ in self.members[key].pieces() if self.packed else ():
            pass

    @contextmanager
    def writing(self, target: Path, output: Output) -> Iterator[RowsOut]:
        with scratch_beside(target) as folder:
            files = _Files(folder, self.members, output, self._classes)
            try:
                yield files
            finally:
                files.close()
            if self.packed:
                with replacing(target) as temporary:
                    pack_npz(temporary, files.writers())
            else:
                replace_folder(target, _unpacked(folder / "arrays", files.writers()))


@dataclass(frozen=True)
class _Texts:
    """The original texts of some rows, by array."""

    arrays: Mapping[str, np.ndarray]

    def slice(self, start: int, count: int) -> _Texts:
        """Selects some of the rows."""
        return _Texts({key: array[start : start + count] for key, array in self.arrays.items()})


class _Files(RowsOut):
    """Writes npy files for arrays filled in block by block, and for unchanged ones only if some of their rows are left out."""

    def __init__(self, folder: Path, members: Mapping[str, Member], output: Output, classes: Mapping[str, Sequence[str]]) -> None:
        self._folder, self._output, self._members, self._classes = folder, output, members, classes
        self._fillings: dict[str, Filling] = {}
        self.needs = tuple(key for key in output.passed if output.partial and members[key].shape[:1] == (output.total,))

    def write(self, block: Block, done: Mapping[str, Filled]) -> None:
        texts = {key: self._texts(block, done, key) for key in self._classes if key in done}
        for key, filled in {**{key: Filled(block.arrays[key]) for key in self.needs}, **done, **texts}.items():
            if key not in self._fillings:
                shape = list(filled.array.shape)
                shape[filled.axis] = self._output.stop - self._output.start
                path = self._folder / f"{len(self._fillings)}.filling"
                self._fillings[key] = Filling(path, filled.array.dtype, tuple(shape), filled.axis)
            self._fillings[key].write(filled.array)

    def _texts(self, block: Block, done: Mapping[str, Filled], key: str) -> Filled:
        """Imputed classes as texts, with the same width in all blocks."""
        classes, given = self._classes[key], block.table.arrays.get(key)
        dtype = text_type(self._members[key].dtype if key in self._members else None, classes)
        array = filled_texts(given, done[key].array, done[key + IMPUTED].array, classes, dtype)
        return Filled(array, done[key].axis)

    def close(self) -> None:
        """Closes all files."""
        for filling in self._fillings.values():
            filling.close()

    def writers(self) -> dict[str, Callable[[IO[bytes]], None]]:
        """The writers of each array's npy file, for one use: unchanged arrays come first."""
        passed = {key: self._members[key].copy_to for key in self._output.passed}
        return {**passed, **{key: filling.move_to for key, filling in self._fillings.items()}}


@contextmanager
def archive_rows(path: Path, scratch: Path, classes: Mapping[str, Sequence[str]] | None = None) -> Iterator[ArrayRows]:
    """Opens the arrays of an npz archive.

    Arguments:
        path: The file.
        scratch: A folder for arrays that must be extracted.
        classes: The ordered classes of text arrays, by array.

    Raises:
        DataError: when it is damaged, not an archive, or holds anything but arrays.
    """
    with opened_npz(path) as archive:
        assert archive.zip is not None, "the archive is open"
        names = enumerate(archive.zip.namelist())
        members = [archive_member(archive.zip, name, scratch / f"{number}.npy") for number, name in names]
        yield ArrayRows({member.key: member for member in members}, packed=True, classes=classes)


@contextmanager
def folder_rows(path: Path, classes: Mapping[str, Sequence[str]] | None = None) -> Iterator[ArrayRows]:
    """Opens the arrays of a folder of npy files.

    Arguments:
        path: The folder.
        classes: As for `archive_rows`.

    Raises:
        DataError: when it has none, or one is damaged.
    """
    try:
        files = [file for file in files_ending(path, ARRAY) if file.is_file()]
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error
    if not files and (parts := parquet_files(path)):
        raise DataError(f"a folder of {len(parts)} Parquet files; impute them one at a time, such as {parts[0].name}")
    if not files:
        raise DataError("no npy file in this folder, expected one NAME.npy a modality")
    yield ArrayRows({file.stem: file_member(file) for file in files}, packed=False, classes=classes)


def _unpacked(folder: Path, writers: Mapping[str, Callable[[IO[bytes]], None]]) -> Path:
    folder.mkdir()
    for key, write in writers.items():
        with (folder / f"{key}.npy").open("xb") as file:
            write(file)
    return folder
