"""Writing files so that a reader, or a run that is killed, sees the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import secrets
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
    try:
        _write_and_rename(path, write)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda temporary: _fill(temporary, text))


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file atomically, indented, with a newline at its end."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_and_rename(path: Path, write: Callable[[Path], None]) -> None:
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    temporary.open("xb").close()
    # Of a file that open makes; tempfile and safetensors make files that only their owner may read.
    permissions = temporary.stat().st_mode
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(permissions)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _fill(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
