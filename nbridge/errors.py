"""Errors that a user can fix; the command line prints their message without a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Self

ADDRESSES: dict[str, str] = {}
"""The URL of each local copy of a remote file, by the path of the copy; messages name the URL."""


class NBridgeError(ValueError):
    """Base class of errors caused by the user's input. The message says what was found, where, what was expected and what to do.

    Arguments:
        text: The message; characters that are not printable, which files may contain, become ``?``.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(_printable(text))

    def __str__(self) -> str:
        text = super().__str__()
        for copy, url in ADDRESSES.items():
            text = text.replace(copy, url)
        return text


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


class SpecError(NBridgeError):
    """An invalid spec: all its errors, one per line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = [*map(_printable, problems)]
        super().__init__("\n".join(problems))

    def __reduce__(self) -> tuple[type[Self], tuple[list[str]]]:
        return type(self), (self.problems,)


class DataError(NBridgeError):
    """Data that does not match the spec; names the modality, the first offending row and its value."""


class CellError(DataError):
    """An invalid value in an array.

    Arguments:
        text: The message, with the position in the array.
        cell: Modality, row and element of the value.
        problem: The message without the position.
    """

    def __init__(self, text: str, cell: tuple[str, int, int], problem: str) -> None:
        self.cell, self.problem = cell, problem
        super().__init__(text)

    def __reduce__(self) -> tuple[type[Self], tuple[str, tuple[str, int, int], str]]:
        return type(self), (str(self), self.cell, self.problem)

    def at(self, place: Callable[[str, int, int], str] | None) -> DataError:
        """The same error with its position in a file, as ``place(modality, row, element)`` gives it."""
        return self if place is None else DataError(f"{place(*self.cell)}: {self.problem}")


class RunError(NBridgeError):
    """A run folder or checkpoint that cannot be used."""


class StoppedError(KeyboardInterrupt):
    """The process was asked to end, by Ctrl-C or a signal.

    Arguments:
        text: What to do next.
        code: The exit code: 128 and the number of the signal.
    """

    def __init__(self, text: str = "interrupted", code: int = 130) -> None:
        self.code = code
        super().__init__(text)


class NBridgeWarning(UserWarning):
    """Something about rows or a model that a user should know and that is no mistake."""


class LostProcessError(NBridgeError):
    """Another process of a distributed run ended, so this one cannot continue.

    Arguments:
        text: Which process, and what to do.
        exit_code: The exit code of that process if it reported its own error, else 1.
    """

    def __init__(self, text: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(text)

    def __reduce__(self) -> tuple[type[Self], tuple[str, int]]:
        return type(self), (str(self), self.exit_code)


def exit_code(error: BaseException) -> int:
    """The exit code of the command line: 2 for a user's error, 130, 143 or 129 by Ctrl-C, SIGTERM or SIGHUP, 1 for a failure of nbridge."""
    if isinstance(error, LostProcessError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return getattr(error, "code", 130)
    return 2 if isinstance(error, NBridgeError | OSError) else 1


def require_positive(**numbers: int) -> None:
    """Checks that options are at least 1.

    Raises:
        DataError: for the first that is not.
    """
    for name, number in numbers.items():
        if number < 1:
            raise DataError(f"{name} is {number}, expected 1 or more")


@contextmanager
def naming(origin: str | PathLike[str], path: str | PathLike[str] | None = None) -> Iterator[None]:
    """Prefixes the message of a `DataError` with the name of the file, unless it already has it.

    Arguments:
        origin: The name, as the user wrote it.
        path: The same file, as messages may name it already.
    """
    known = tuple(f"{name}: " for name in (origin, path) if name is not None)
    try:
        yield
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(known) else f"{origin}: {error}") from error
