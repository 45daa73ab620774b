"""Writing files so that a reader, or a run that is killed, sees the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nbridge.errors import NBridgeError, RunError


@contextmanager
def writing(path: Path, kind: type[NBridgeError] = RunError) -> Iterator[None]:
    """Tells what the system refuses to write as a mistake that a user can mend."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path}: cannot be written ({error.strerror or error})") from error


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill a temporary file beside ``path``, flushes it to the disk and renames it into place.

    When anything fails, a full disk included, the temporary file is removed and what stood at ``path`` stays.

    Raises:
        OSError: naming ``path``, never the temporary file, when it cannot be written.
    """
    with replacing(path) as temporary:
        write(temporary)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place at the end, as `write_atomically` does it.

    Raises:
        OSError: naming ``path``, never the temporary file, when it cannot be written.
    """
    try:
        with _renamed(path) as temporary:
            yield temporary
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path``, so that what is made in it can be renamed into place; nothing of it stays, whatever happens."""
    folder = path.parent / _hidden(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def replace_folder(path: Path, folder: Path) -> None:
    """Flushes all files in a folder to the disk and renames it to ``path``; an older folder of that name is there until then."""
    for file in folder.rglob("*"):
        if file.is_file():
            _flush(file)
    if not path.is_dir():
        folder.rename(path)
        return
    older = path.rename(path.parent / _hidden(path))
    try:
        folder.rename(path)
    except BaseException:
        older.rename(path)
        raise
    shutil.rmtree(older)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda temporary: _fill(temporary, text))


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file atomically, indented, with a newline at its end."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    temporary = path.parent / _hidden(path)
    temporary.open("xb").close()
    # Of a file that open makes; tempfile and safetensors make files that only their owner may read.
    permissions = temporary.stat().st_mode
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(permissions)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _hidden(path: Path) -> str:
    return f".{path.name}.{secrets.token_hex(4)}.tmp"


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _fill(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
