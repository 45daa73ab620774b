"""Atomic file writes: a reader, or a killed run, finds the old file or the new one, never a partial one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nbridge.errors import NBridgeError, RunError


@contextmanager
def writing(path: Path, kind: type[NBridgeError] = RunError) -> Iterator[None]:
    """Turns an `OSError` during a write into an nbridge error that names ``path``."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path}: cannot be written ({error.strerror or error})") from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write`` on a temporary file beside ``path``, flushes it to disk and renames it to ``path``.

    On any failure, a full disk included, the temporary file is removed and the old file at ``path`` is kept.

    Raises:
        OSError: if the file cannot be written; it names ``path``, not the temporary file.
    """
    with replacing(path) as temporary:
        write(temporary)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary file that replaces ``path`` when the block succeeds; see `write_atomically`.

    Raises:
        OSError: if the file cannot be written; it names ``path``, not the temporary file.
    """
    temporary = path.parent / _temporary_name(path)
    try:
        temporary.open("xb").close()
        # The default permissions of a new file: tempfile and safetensors create files readable by their owner only.
        permissions = temporary.stat().st_mode
        yield temporary
        _flush(temporary)
        temporary.chmod(permissions)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Yields a hidden folder on the same file system as ``path``, so that its contents can be renamed into place; always removed."""
    folder = path.parent / _temporary_name(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def replace_folder(path: Path, folder: Path) -> None:
    """Flushes all files in ``folder`` to disk and renames it to ``path``; an existing folder at ``path`` is replaced only then."""
    for file in folder.rglob("*"):
        if file.is_file():
            _flush(file)
    if not path.is_dir():
        folder.rename(path)
        return
    older = path.rename(path.parent / _temporary_name(path))
    try:
        folder.rename(path)
    except BaseException:
        older.rename(path)
        raise
    shutil.rmtree(older)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, content: object) -> None:
    """Writes an indented JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _temporary_name(path: Path) -> str:
    return f".{path.name}.{secrets.token_hex(4)}.tmp"


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
