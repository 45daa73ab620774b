"""A lock on a run folder, so that two processes never write it at the same time."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from nbridge.common.atomic_files import remove_leftovers, writing
from nbridge.common.json_text import parse_json
from nbridge.errors import RunError


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds a run folder, which need not exist yet, until the end of the block; then removes what killed processes left in it.

    The lock is a lock of the file system on ``.NAME.lock`` beside the folder: it ends with the process that holds it, however that ends,
    and is seen by all machines that share the disk.

    Raises:
        RunError: if another process holds the folder, or the lock cannot be created.
    """
    path = lock_path(folder)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(
                f"{folder}: {holder(folder) or 'another process'} is writing this run; wait until it ends, or stop it"
            ) from error
        # Read by those who find the lock held.
        path.write_text(json.dumps({"process": os.getpid(), "host": platform.node(), "since": f"{datetime.now():%Y-%m-%d %H:%M}"}))
    try:
        whole = Path(os.path.realpath(folder))
        remove_leftovers(whole.parent, whole.name)
        for inside in (folder, folder / "checkpoints", folder / "model"):
            remove_leftovers(inside)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def lock_path(folder: Path) -> Path:
    """The lock of a run folder, the same one through every link to it."""
    whole = Path(os.path.realpath(folder))
    return whole.parent / f".{whole.name}.lock"


def holder(folder: Path) -> str:
    """Describes the process that holds a run folder, as it has written itself; empty if none has."""
    try:
        found = parse_json(lock_path(folder).read_text())
        return f"process {found['process']} on {found['host']}, since {found['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
