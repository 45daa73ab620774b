"""Storage of runs: one JSON file with an entry per run, written atomically and by one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbridge.common.atomic_files import replacing

RESULT = Path(__file__).resolve().parent.parent / "results" / "suite.json"
DIGITS = 5
"""Significant digits stored."""


def key_of(task: str, system: str, seed: int, budget: int) -> str:
    """The key of a run; the baseline has budget 0."""
    return f"{task} | {system} | {seed} | {budget}"


class Results:
    """The runs of a file.

    Arguments:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """All runs by key."""
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}

    def __contains__(self, key: str) -> bool:
        return key in self.read()

    def put(self, key: str, run: dict[str, Any]) -> None:
        """Adds a run, or replaces it."""
        with self._alone():
            runs = dict(sorted({**self.read(), key: _rounded(run)}.items()))
            lines = (f"{json.dumps(name)}: {json.dumps(one)}" for name, one in runs.items())
            text = "{\n" + ",\n".join(lines) + "\n}\n"
            with replacing(self.path) as temporary:
                temporary.write_text(text, encoding="utf-8")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A lock on the file's folder, so that two processes do not lose each other's runs."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
