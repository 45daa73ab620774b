"""Resolves data paths against the current folder and the folder that the environment names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nbridge.data.endings import ARCHIVE, ARRAY, OMICS, TABLES, ending_among, files_ending, has_ending
from nbridge.data.remote import checked, is_url, local_copy
from nbridge.errors import DataError

VARIABLE = "NBRIDGE_DATA"


def data_folder() -> Path | None:
    """The folder in the environment variable NBRIDGE_DATA, if it is set."""
    return _home(text) if (text := os.environ.get(VARIABLE)) else None


def check_stored(path: str | Path) -> None:
    """Rejects paths that can't be read repeatedly as a file: standard input, a pipe or a device.

    Files are read more than once, since all of them are checked before any work starts.

    Raises:
        DataError: for such a path, with what to do; for a URL that may not be used.
    """
    text = str(path)
    if text == "-" or text in ("/dev/stdin", "/proc/self/fd/0") or text.startswith("/dev/fd/"):
        raise DataError(f"{text}: standard input or a pipe, which can be read only once, expected a file; save it to a file first")
    if is_url(text):
        checked(text)
        return
    if _is_special(_home(path)):
        raise DataError(f"{text}: a pipe or a device, which can be read only once, expected a file; save it to a file first")


def _is_special(path: Path) -> bool:
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except OSError:
        # The caller that opens the file reports it.
        return False


def find_file(path: str | Path) -> Path:
    """An existing file: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.

    Raises:
        DataError: when there is none, with the places searched.
    """
    return _find(path, Path.is_file, Path.is_dir, "file", "folder")


def find_folder(path: str | Path) -> Path:
    """An existing folder: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.

    Raises:
        DataError: when there is none, with the places searched.
    """
    return _find(path, Path.is_dir, Path.is_file, "folder", "file")


def find_file_or_folder(path: str | Path) -> Path:
    """An existing file or folder: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.

    Raises:
        DataError: when there is none, with the places searched.
    """
    return _find(path, Path.exists, Path.exists, "file or folder", "")


def is_folder(path: str | Path) -> bool:
    """Whether a path is an existing folder, and no file; searched as in `find_file_or_folder`."""
    try:
        return find_file_or_folder(path).is_dir()
    except DataError:
        return False


def holds_arrays(path: str | Path) -> bool:
    """Whether a path is an npz file or a folder of npy files.

    Raises:
        DataError: when there is no such file or folder.
    """
    found = find_file_or_folder(path)
    return bool(files_ending(found, ARRAY)) if found.is_dir() else has_ending(found, ARCHIVE)


def kind_of(path: str | Path) -> str:
    """The ending of the files that an imputed file or folder of this name may have; empty for a folder.

    Raises:
        DataError: when it is a pipe.
    """
    check_stored(path)
    known = ending_among(path, (*TABLES, *OMICS))
    if is_folder(path):
        return ""
    exists = any(Path(folder, _home(path)).is_file() for folder in filter(None, (Path.cwd(), data_folder())))
    # Other formats are those of data sources outside this package.
    return known or Path(path).suffix.lower() or (ARCHIVE if exists else "")


def _find(path: str | Path, sought: Callable[[Path], bool], other: Callable[[Path], bool], noun: str, other_noun: str) -> Path:
    check_stored(path)
    asked = local_copy(path) if is_url(path) else _home(path)
    data = data_folder()
    folders = [Path.cwd()] if data is None else [Path.cwd(), data]
    candidates = [asked] if asked.is_absolute() else [folder / asked for folder in folders]
    try:
        if found := next(filter(sought, candidates), None):
            return found
        if wrong := next(filter(other, candidates), None):
            raise DataError(f"{wrong}: a {other_noun}, expected a {noun}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if asked.is_absolute():
        raise DataError(f"{asked}: no such {noun}")
    places = f"{Path.cwd()}" if data is None else f"{Path.cwd()} or in ${VARIABLE} ({data})"
    hint = f"; set {VARIABLE} to the folder that holds your data, or write an absolute path" if data is None else ""
    raise DataError(f"{path}: no such {noun} in {places}{hint}")


def _home(path: str | Path) -> Path:
    # Path.expanduser raises for an unknown user; here the path is then taken literally.
    return Path(os.path.expanduser(path))  # noqa: PTH111
