"""Atomic file writes: a reader, or a killed run, finds the old file or the new one, never a partial one."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import re
import secrets
import shutil
import zlib
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
    """Yields a hidden folder on the same file system as ``path``, so that its contents can be renamed into place; always removed.

    Raises:
        OSError: if it cannot be created, or ``path`` is a folder that cannot be replaced (`check_replaceable`).
    """
    check_replaceable(path)
    path = real_folder(path)
    folder = path.parent / _temporary_name(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def real_folder(path: Path) -> Path:
    """The folder that a path leads to through links; any other path unchanged."""
    return Path(os.path.realpath(path)) if path.is_dir() else path


def check_replaceable(path: Path) -> None:
    """Checks that a folder which is to be replaced as a whole does not contain the current folder, which would then no longer exist.

    Raises:
        OSError: if it does.
    """
    try:
        here = Path(os.path.realpath(Path.cwd()))
    except OSError:  # the current folder was removed
        return
    if path.is_dir() and real_folder(path) in (here, *here.parents):
        raise OSError(
            errno.EBUSY, "it is or contains the current folder, and is replaced as a whole; run this from another folder", str(path)
        )


def replace_folder(path: Path, folder: Path) -> None:
    """Flushes all files in ``folder`` to disk and renames it to ``path``; an existing folder at ``path`` is replaced only then.

    Where ``path`` is a link to a folder, that folder is replaced and the link is kept.
    """
    path = real_folder(path)
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


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Removes temporary files and folders that processes of this machine left behind when they were killed.

    Arguments:
        folder: The folder that contains them.
        name: The file or folder that they were to replace; all by default.
    """
    for path in leftovers(folder, name):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def leftovers(folder: Path, name: str = "") -> Iterator[Path]:
    """The temporary files and folders that `remove_leftovers` removes."""
    for path in folder.glob(f".{glob.escape(name) or '*'}.*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found is not None and found["host"] == _host() and (not name or found["name"] == name) and not _is_running(int(found["pid"])):
            yield path


def _temporary_name(path: Path) -> str:
    """A new name beside a path; it tells the process that writes it, so that the next one can remove what a killed one left."""
    remove_leftovers(path.parent, path.name)
    return f".{path.name}.{_host()}-{os.getpid()}.{secrets.token_hex(4)}.tmp"


_TEMPORARY = re.compile(r"\.(?P<name>.*)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)\.[0-9a-f]{8}\.tmp", re.DOTALL)


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        # There, signal 0 would interrupt the process.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
